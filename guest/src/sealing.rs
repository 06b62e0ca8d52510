//! Sealing with this guest's own key: what the agent does between an owner's request and `coffer_seal`.

use coffer_seal::{Header, SealError, SealPolicy, check_floor, key_request, refuse_unsafe};
use coffer_spec::{Tee, WorkloadSpec};
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
    spec: &WorkloadSpec,
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
    // The processor was opened as the spec says, so the spec tells which kind it is.
    let header = Header::new(policy, spec.tee == Tee::Simulated, tcb, context, salt);
    Ok(coffer_seal::seal(&key, &header, context, plaintext)?)
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
    header.check_processor(spec.tee == Tee::Simulated)?;
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

#[cfg(test)]
mod tests {
    use coffer_spec::{Floors, SealFloors};
    use coffer_verifier::abi::{
        DerivedKey, ExtendedReport, KeyRequest,
        report::{REPORT_LEN, offset},
    };
    use sha2::{Digest, Sha256};

    use super::*;

    /// Derives keys as a secure processor does: from its own root and what the request names.
    struct Chip {
        root: u8,
        measurement: u8,
        policy: u64,
        committed: u64,
    }

    const USUAL: Chip = Chip { root: 1, measurement: 2, policy: 0x3_0000, committed: 0x0102_0000_0000_0304 };

    impl SecureProcessor for Chip {
        fn report(&mut self, _: &ReportRequest) -> Result<ExtendedReport, ProcessorError> {
            let mut report = vec![0; REPORT_LEN];
            let mut put = |at: usize, value: &[u8]| report[at..at + value.len()].copy_from_slice(value);
            put(offset::VERSION, &2_u32.to_le_bytes());
            put(offset::POLICY, &self.policy.to_le_bytes());
            put(offset::SIGNATURE_ALGO, &1_u32.to_le_bytes());
            put(offset::MEASUREMENT, &[self.measurement; 48]);
            put(offset::COMMITTED_TCB, &self.committed.to_le_bytes());
            put(offset::R, &[1]);
            put(offset::S, &[1]);
            Ok(ExtendedReport { report, cert_table: vec![] })
        }

        fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, ProcessorError> {
            let mixed = format!("{}{}{}{request:?}", self.root, self.measurement, self.policy);
            Ok(DerivedKey::new(Sha256::digest(mixed).into()))
        }
    }

    fn sealed() -> Vec<u8> {
        seal(&mut { USUAL }, &crate::boot::tests::spec(Tee::Snp), "measurement-and-chip", b"db", b"secret").unwrap()
    }

    fn unseal_on(mut chip: Chip, min_tcb: &str) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let floors = Floors { seal: SealFloors { min_tcb: min_tcb.into() }, ..Floors::default() };
        let spec = WorkloadSpec { floors, ..crate::boot::tests::spec(Tee::Snp) };
        unseal(&mut chip, &spec, b"db", &sealed())
    }

    #[test]
    fn opens_on_the_same_chip_and_platform_after_a_firmware_update() {
        assert_eq!(*unseal_on(USUAL, "").unwrap(), b"secret");
        let updated = Chip { committed: 0x0202_0000_0000_0304, ..USUAL };
        assert_eq!(*unseal_on(updated, "").unwrap(), b"secret", "the header's TCB is asked for, not today's");
    }

    #[test]
    fn does_not_open_on_another_chip_or_platform() {
        assert!(unseal_on(Chip { root: 9, ..USUAL }, "").is_err());
        assert!(unseal_on(Chip { measurement: 9, ..USUAL }, "").is_err());
    }

    #[test]
    fn files_sealed_on_hardware_do_not_open_in_a_simulated_guest() {
        let refused = unseal(&mut { USUAL }, &crate::boot::tests::spec(Tee::Simulated), b"db", &sealed()).unwrap_err();
        assert!(matches!(refused, SealingError::Seal(SealError::Processor { sealed_simulated: false })), "{refused}");
    }

    #[test]
    fn does_not_open_below_the_floor_of_the_spec() {
        assert!(unseal_on(USUAL, "0403000000000201").is_ok());
        let refused = unseal_on(USUAL, "0503000000000201").unwrap_err();
        assert!(matches!(refused, SealingError::Seal(SealError::Floor { .. })));
    }

    #[test]
    fn neither_seals_nor_opens_in_a_guest_that_can_be_debugged() {
        let debugged = || Chip { policy: 0xb_0000, ..USUAL };
        let spec = crate::boot::tests::spec(Tee::Snp);
        let refused = seal(&mut debugged(), &spec, "measurement-and-chip", b"", b"x").unwrap_err();
        assert!(matches!(refused, SealingError::Seal(SealError::Unsafe { .. })));
        assert!(matches!(unseal_on(debugged(), ""), Err(SealingError::Seal(SealError::Unsafe { .. }))));
    }

    #[test]
    fn policies_without_a_key_here_are_refused_by_name() {
        let spec = crate::boot::tests::spec(Tee::Snp);
        let refused = seal(&mut { USUAL }, &spec, "workload", b"", b"x").unwrap_err();
        assert!(refused.to_string().contains("measurement-and-chip"), "{refused}");
    }
}
