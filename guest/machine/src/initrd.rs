//! Names inside the initrd: what `coffer_platform::initrd` puts there and init finds. Without a leading `/`.

/// init, the first program; where Linux looks for it.
pub const INIT: &str = "init";
/// Kernel modules every guest loads, in the order of their names.
pub const MODULES: &str = "modules";
/// Modules that only a guest with a scratch disk loads.
pub const SCRATCH_MODULES: &str = "modules/scratch";
/// Modules that only a guest with a network card loads.
pub const NETWORK_MODULES: &str = "modules/network";
