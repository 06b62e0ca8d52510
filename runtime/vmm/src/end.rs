//! How a guest ends.

use coffer_machine::Refusal;

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It ended itself.
    PoweredOff,
    /// stage0 refused to start the kernel.
    Refused(Refusal),
    /// Whoever wanted it is gone.
    Unwanted,
    /// A processor left the guest for a reason this machine has no answer to.
    Stuck(String),
}
