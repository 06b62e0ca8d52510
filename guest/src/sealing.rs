//! Sealing with this guest's own key: what the agent does between an owner's request and `coffer_seal`.

use coffer_seal::{Header, SealError, SealPolicy, check_floor, key_request, refuse_unsafe};
use coffer_spec::WorkloadSpec;
use coffer_verifier::abi::{ProcessorError, Report, ReportData, ReportRequest, SecureProcessor};
use zeroize::Zeroizing;

/// Why nothing was sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// The format, the key or the rules.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The secure processor.
    #[error("secure processor: {0}")]
    Processor(#[from] ProcessorError),
    /// Its report.
    #[error("this guest's own report does not parse")]
    Report,
    /// The kernel's random source.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// Seals `plaintext` for this platform, workload and chip.
///
/// # Errors
/// [`SealingError`].
pub fn seal(
    processor: &mut dyn SecureProcessor,
    _spec: &WorkloadSpec,
    policy: &str,
    context: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, SealingError> {
    let policy = SealPolicy::available(policy)?;
    let report = own_report(processor)?;
    let tcb = report.committed_tcb_raw();
    let key = processor.derived_key(&key_request(tcb))?;
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(SealingError::Random)?;
    Ok(coffer_seal::seal(&key, &Header::new(policy, tcb, context, salt), context, plaintext)?)
}

/// Opens what the same workload sealed on this platform and chip, unless its TCB is below the spec's floor.
///
/// # Errors
/// [`SealingError`].
pub fn unseal(
    processor: &mut dyn SecureProcessor,
    spec: &WorkloadSpec,
    context: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealingError> {
    let header = Header::peek(sealed)?;
    SealPolicy::available(header.policy.name())?;
    check_floor(header.tcb, &spec.floors.seal.min_tcb)?;
    own_report(processor)?;
    let key = processor.derived_key(&key_request(header.tcb))?;
    Ok(coffer_seal::unseal(&key, context, sealed)?)
}

fn own_report(processor: &mut dyn SecureProcessor) -> Result<Report, SealingError> {
    let answer = processor.report(&ReportRequest::new(ReportData::new([0; 64])))?;
    let report = Report::parse(&answer.report).map_err(|_| SealingError::Report)?;
    refuse_unsafe(&report)?;
    Ok(report)
}
