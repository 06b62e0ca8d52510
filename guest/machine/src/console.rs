//! What stage0 says on the serial line: one line each. Under SEV-SNP as anywhere; nothing secret exists yet.

/// First words of all. A line of its own.
pub const START: &str = "stage0: start";
/// Kernel, initrd and command line are the measured ones; `copy=N hash=N ticks` follow on the line.
pub const CHECKED: &str = "stage0: kernel checked";
/// A refusal's word ([`crate::Refusal::word`]) follows on the line, and the machine ends.
pub const REFUSED: &str = "stage0: refused: ";
/// Both lines of a boot that is not refused stand within this many bytes of the console's start.
pub const LIMIT: usize = 256;
