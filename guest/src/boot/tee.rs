//! Which secure processor this guest really has.

use std::path::Path;

use coffer_spec::Tee;
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

#[cfg(test)]
mod tests {
    use super::*;

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
