//! How a guest ends.

use coffer_machine::Refusal;

use crate::snp::page_state::PageStateError;

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
    /// An SEV-SNP guest asked or did with its pages what no guest of ours does.
    Pages(PageStateError),
}
