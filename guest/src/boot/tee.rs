//! Which secure processor this guest really has.

use std::path::Path;

use coffer_spec::{SvnFloor, Tee};
use coffer_verifier::abi::{HostData, Report, ReportData, ReportRequest, SecureProcessor, WorkloadDigest};

use crate::failure::{Code, Failure, OrFail};

/// The kernel makes this file only where MSR 0xC0010131 says that SEV-SNP is active (arch/x86/coco/sev).
const SNP_ACTIVE: &str = "sys/devices/system/cpu/sev/vmpl";

/// Checks the CPU against what the spec demands; nothing falls back.
///
/// `root`: `/`, another folder in tests.
///
/// # Errors
/// `tee-mismatch`.
pub fn check_cpu(tee: Tee, root: &Path) -> Result<(), Failure> {
    let active = root.join(SNP_ACTIVE).exists();
    match (tee, active) {
        (Tee::Snp, false) => {
            Err(Failure::new(Code::TeeMismatch, "spec demands SEV-SNP, the CPU does not run this guest under it"))
        }
        (Tee::Simulated, true) => {
            Err(Failure::new(Code::TeeMismatch, "spec demands the simulator, the CPU runs this guest under SEV-SNP"))
        }
        _ => Ok(()),
    }
}

/// Asks for one report and checks that it is this workload's.
///
/// # Errors
/// `spec-mismatch` if HOST_DATA is not the spec's digest, `tee-mismatch` if there is no usable report.
pub fn check_own_report(processor: &mut dyn SecureProcessor, workload: &WorkloadDigest) -> Result<Report, Failure> {
    let request = ReportRequest::new(ReportData::new([0; 64]));
    let report = processor.report(&request).or_fail(Code::TeeMismatch, "ask the secure processor for a report")?;
    let report = Report::parse(&report.report).or_fail(Code::TeeMismatch, "read the report")?;
    let (found, expected): (HostData, HostData) = (report.host_data(), workload.host_data());
    if found != expected {
        return Err(Failure::new(Code::SpecMismatch, format!("HOST_DATA is {found}, the spec's digest {expected}")));
    }
    Ok(report)
}

/// Checks this guest's security version against the spec's floor. The number stands in the ID block, which the host
/// chooses, so it counts only under the key the spec names.
///
/// # Errors
/// `svn-below-floor`.
pub fn check_svn(report: &Report, floor: Option<&SvnFloor>) -> Result<(), Failure> {
    let Some(SvnFloor { id_key_digest, min }) = floor else { return Ok(()) };
    let refuse = |detail| Err(Failure::new(Code::SvnBelowFloor, detail));
    let found = report.id_key_digest();
    if found != *id_key_digest {
        return refuse(format!("this guest was launched under ID key {found}, the spec demands {id_key_digest}"));
    }
    let svn = report.guest_svn();
    if svn < *min { refuse(format!("GUEST_SVN is {svn}, the spec demands {min}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use coffer_verifier::abi::{
        KeyDigest,
        report::{REPORT_LEN, offset},
    };

    use super::*;

    fn report(id_key_digest: u8, svn: u32) -> Report {
        let mut report = vec![0; REPORT_LEN];
        let mut put = |at: usize, value: &[u8]| report[at..at + value.len()].copy_from_slice(value);
        put(offset::VERSION, &2_u32.to_le_bytes());
        put(offset::POLICY, &0x3_0000_u64.to_le_bytes());
        put(offset::GUEST_SVN, &svn.to_le_bytes());
        put(offset::ID_KEY_DIGEST, &[id_key_digest; 48]);
        put(offset::SIGNATURE_ALGO, &1_u32.to_le_bytes());
        put(offset::R, &[1]);
        put(offset::S, &[1]);
        Report::parse(&report).unwrap()
    }

    #[test]
    fn a_security_version_counts_only_under_the_key_the_spec_names() {
        let floor = SvnFloor { id_key_digest: KeyDigest::new([7; 48]), min: 3 };
        let code = |report: &Report| check_svn(report, Some(&floor)).map_err(|failure| failure.code);
        assert_eq!(code(&report(7, 3)), Ok(()));
        assert_eq!(code(&report(7, 2)), Err(Code::SvnBelowFloor));
        assert_eq!(code(&report(8, 9)), Err(Code::SvnBelowFloor), "any host can sign a high number with its own key");
        assert_eq!(code(&report(0, 9)), Err(Code::SvnBelowFloor), "launched without an ID block");
        assert_eq!(check_svn(&report(0, 0), None), Ok(()));
    }

    #[test]
    fn no_processor_stands_in_for_another() {
        let plain = tempfile::tempdir().unwrap();
        let snp = tempfile::tempdir().unwrap();
        let marker = snp.path().join(SNP_ACTIVE);
        std::fs::create_dir_all(marker.parent().unwrap()).unwrap();
        std::fs::write(marker, "0").unwrap();
        assert_eq!(check_cpu(Tee::Snp, plain.path()).unwrap_err().code, Code::TeeMismatch);
        assert_eq!(check_cpu(Tee::Simulated, snp.path()).unwrap_err().code, Code::TeeMismatch);
        assert_eq!(check_cpu(Tee::Snp, snp.path()), Ok(()));
        assert_eq!(check_cpu(Tee::Simulated, plain.path()), Ok(()));
        assert_eq!(check_cpu(Tee::None, plain.path()), Ok(()));
    }
}
