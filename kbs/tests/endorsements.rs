//! A limit for strangers is not a limit for the operator: as many certificates as there are chips can be configured.

use crate::common;
use std::sync::Arc;

use crate::common::{Guest, Kbs, PATH, TENANT, VALUE, ask, not_admitted};
use coffer_ratls::{Attester, AttesterError};
use coffer_verifier::{
    Evidence,
    abi::{CertTable, ProductLine, ReportData, TcbVersion, WorkloadDigest},
};

/// A guest whose host gives no certificates.
pub struct Bare(pub Arc<Guest>);

impl Attester for Bare {
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError> {
        Ok(Evidence { cert_table: Vec::new(), crls: Vec::new(), ..self.0.evidence(report_data)? })
    }

    fn workload(&self) -> WorkloadDigest {
        self.0.workload()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_chips_certificates_can_be_configured_and_the_guests_own_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let mut file = |bytes: &[u8]| {
        let path = folder.path().join(format!("{}.der", files.len()));
        std::fs::write(&path, bytes).unwrap();
        files.push(path);
    };
    let guest = Guest::usual();
    let evidence = guest.evidence(&ReportData::new([0; 64])).unwrap();
    let installation = common::installation();
    for number in 0..1000_u32 {
        let (snp, microcode) = ((number / 250) as u8, (number % 250) as u8);
        let tcb = TcbVersion { fmc: None, bootloader: 1, tee: 0, snp, microcode };
        file(&installation.issue_vcek(ProductLine::Milan, tcb, common::unix()).unwrap());
    }
    // Behind all the others, and once more: what is there twice counts once.
    for _ in 0..2 {
        for (_, content) in CertTable::parse(&evidence.cert_table).unwrap().entries() {
            file(content);
        }
    }
    let kbs = Kbs::start_with(|config| {
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![common::anchor().to_string()];
        config.endorsements = files;
    })
    .await;
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(Arc::new(Bare(guest.clone()))).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);

    let without = Kbs::start().await;
    not_admitted(without.connect(Arc::new(Bare(guest))).await);
}
