//! From the first mount to the workload's root: everything that happens before the agent answers.

pub mod data;
pub mod devices;
pub mod memory;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod root;
pub mod scratch;
pub mod tee;
pub mod verity;
pub mod volumes;
pub mod whole;

use coffer_guest_proto::Speech;
use coffer_machine::spec_disk::SpecDisk;
use coffer_spec::{Document, MeasuredCommandLine, Tee};

use crate::failure::{Code, Failure, OrFail};

/// What is known once the spec has been checked against the measured command line.
#[derive(Debug)]
pub struct Checked {
    /// The spec.
    pub document: Document,
    /// The clock to start with, seconds since 1970.
    pub clock: Option<u64>,
}

/// Checks what was read from the spec disk against the measured command line.
///
/// # Errors
/// `spec-invalid`, `spec-mismatch`, `tee-mismatch`.
pub fn check_spec(disk: &[u8], command_line: &MeasuredCommandLine) -> Result<Checked, Failure> {
    let disk = SpecDisk::parse(disk).or_fail(Code::SpecInvalid, "read the spec disk")?;
    let digest = coffer_verifier::abi::WorkloadDigest::of(disk.document);
    if digest != command_line.workload {
        let detail = format!("spec disk holds {digest}, the measured command line names {}", command_line.workload);
        return Err(Failure::new(Code::SpecMismatch, detail));
    }
    let document = Document::parse(disk.document.to_vec()).or_fail(Code::SpecInvalid, "parse the spec")?;
    let (spec_tee, line_tee) = (document.spec().tee, command_line.tee);
    if spec_tee != line_tee {
        let detail = format!("spec demands {spec_tee:?}, the measured command line {line_tee:?}");
        return Err(Failure::new(Code::TeeMismatch, detail));
    }
    let clock = first_clock(disk.claimed_unix_seconds, document.spec().floors.not_before);
    Ok(Checked { document, clock })
}

/// The clock a guest starts with: the host's claim, but nothing before the spec's floor.
fn first_clock(claimed: Option<u64>, not_before: u64) -> Option<u64> {
    match (claimed, not_before) {
        (None, 0) => None,
        (claimed, floor) => Some(claimed.unwrap_or(0).max(floor)),
    }
}

/// What the host is told: in TEE mode nothing but fixed words.
pub fn speech(tee: Tee) -> Speech {
    if is_tee(tee) { Speech::FixedWords } else { Speech::Sentences }
}

/// True where the host is nobody's friend.
pub fn is_tee(tee: Tee) -> bool {
    tee != Tee::None
}

#[cfg(test)]
pub(crate) mod tests;
