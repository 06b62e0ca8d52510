//! A guest whose report says what it is asked to say, and a broker that admits every report: what fails, fails by the connection.

use coffer_ratls::{Appraiser, Attester, AttesterError, Refusal};
use coffer_verifier::{
    abi::{ReportData, WorkloadDigest},
    evidence::Evidence,
};

pub struct Guest;

impl Attester for Guest {
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError> {
        let mut report = vec![0; 1184];
        report[0x50..0x90].copy_from_slice(report_data.as_bytes());
        report[0xC0..0xE0].copy_from_slice(self.workload().as_bytes());
        Ok(Evidence { report, workload_spec: b"spec".to_vec(), ..Evidence::default() })
    }

    fn workload(&self) -> WorkloadDigest {
        WorkloadDigest::of(b"spec")
    }
}

pub struct Everything;

impl Appraiser for Everything {
    type Admitted = ();

    fn appraise(&self, _: &Evidence, _: &ReportData) -> Result<(), Refusal> {
        Ok(())
    }
}
