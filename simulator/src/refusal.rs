//! Why firmware refuses, and the order of TCB versions it insists on.

use coffer_verifier::abi::{Measurement, ProductLine};
use coffer_verifier::measure::LaunchError;

use crate::installation::InstallationError;
use crate::options::TcbState;

/// Why the secure processor refused a launch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchFailure {
    /// Keys are missing or cannot be made.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// The guest policy contradicts the platform or itself.
    #[error("guest policy {policy:#x} is refused: {why}")]
    Policy {
        /// POLICY.
        policy: u64,
        /// The rule it breaks.
        why: &'static str,
    },
    /// TCB versions are out of order or of another product's layout.
    #[error("TCB state is refused: {0}")]
    Tcb(&'static str),
    /// The product does not write this report version.
    #[error("{product} does not write report version {version}")]
    ReportVersion {
        /// Product line.
        product: ProductLine,
        /// Version asked for.
        version: u32,
    },
    /// A page address is wrong.
    #[error(transparent)]
    Page(#[from] LaunchError),
    /// The ID block was signed for another launch.
    #[error("ID block expects launch digest {expected}, this launch has {found}")]
    IdBlockMeasurement {
        /// In the ID block.
        expected: Measurement,
        /// Of this launch.
        found: Measurement,
    },
    /// The ID block was signed for another policy.
    #[error("ID block expects policy {expected:#x}, this launch has {found:#x}")]
    IdBlockPolicy {
        /// In the ID block.
        expected: u64,
        /// Of this launch.
        found: u64,
    },
    /// A signature of the ID authentication block is wrong.
    #[error("{0} does not verify")]
    IdSignature(&'static str),
}

/// The order TCB versions are always in.
pub fn check_tcb(product: ProductLine, tcb: &TcbState) -> Result<(), LaunchFailure> {
    let turin = product == ProductLine::Turin;
    if [tcb.current, tcb.committed, tcb.launch, tcb.reported].iter().any(|one| one.fmc.is_some() != turin) {
        return Err(LaunchFailure::Tcb("an FMC level belongs to Turin, and to Turin alone"));
    }
    if !tcb.current.at_least(tcb.committed) {
        return Err(LaunchFailure::Tcb("committed exceeds current"));
    }
    if !tcb.current.at_least(tcb.launch) {
        return Err(LaunchFailure::Tcb("launch exceeds current"));
    }
    if !tcb.committed.at_least(tcb.reported) {
        return Err(LaunchFailure::Tcb("reported exceeds committed"));
    }
    Ok(())
}
