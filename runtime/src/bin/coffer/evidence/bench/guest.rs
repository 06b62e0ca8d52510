//! Guests with simulated evidence, of an installation in memory that nobody else lists.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use coffer_kbs_client::ResourcePath;
use coffer_ratls::{Attester, AttesterError};
use coffer_simulator::{Installation, LaunchOptions, LocalProcessor, SecureProcessor};
use coffer_spec::{Document, KbsPin, SecretTarget, SecretWanted, Tee, WorkloadSpec, sample};
use coffer_verifier::abi::{
    Measurement, ProductLine, ReportData, ReportRequest, SecureProcessor as _, SpkiDigest, WorkloadDigest,
};
use coffer_verifier::measure::PageType;
use coffer_verifier::{Evidence, UnixTime};

use super::figures::broken;
use crate::error::{Class, Classify as _, CliError};

pub const TENANT: &str = "acme";
const PATH: &str = "kbs:///default/app/password";

/// What all guests have in common.
pub struct Platform {
    pub installation: Installation,
    pub anchor: SpkiDigest,
    pub document: Document,
    pub path: ResourcePath,
    pub measurement: Measurement,
}

pub struct Guest {
    processor: Mutex<LocalProcessor>,
    document: Document,
}

impl Platform {
    pub fn new() -> Result<Self, CliError> {
        let mut installation = Installation::create(now()).class(Class::Internal)?;
        installation.ensure(ProductLine::Milan, now()).class(Class::Internal)?;
        let anchor = installation.anchor(ProductLine::Milan).ok_or_else(|| broken("no anchor"))?.spki;
        let path: ResourcePath = PATH.parse().map_err(|_| broken("path"))?;
        let wanted = SecretWanted::new(path.clone(), SecretTarget::File(sample::name("password")));
        // Guests of a box would find it there; these are told.
        let kbs = Some(KbsPin { address: "127.0.0.1:1".into(), spki: vec![SpkiDigest::new([9; 32])] });
        let spec = WorkloadSpec { kbs, secrets: vec![wanted], ..sample::workload(Tee::Simulated) };
        let document = Document::write(&spec).class(Class::Internal)?;
        let measurement = launched(&installation)?.digest();
        Ok(Self { installation, anchor, document, path, measurement })
    }
}

impl Guest {
    /// A guest with a REPORT_ID of its own.
    pub fn launch(platform: &Platform) -> Result<Self, CliError> {
        let document = Document::parse(platform.document.bytes().to_vec()).class(Class::Internal)?;
        let launched = launched(&platform.installation)?;
        let guest = launched.finish(document.digest().host_data(), None).class(Class::Internal)?;
        Ok(Self { processor: Mutex::new(guest.into_processor()), document })
    }
}

fn launched(installation: &Installation) -> Result<SecureProcessor<'_>, CliError> {
    let options = LaunchOptions { policy: 0x3_0000, ..LaunchOptions::new(ProductLine::Milan, now()) };
    let mut processor = SecureProcessor::launch_start(installation, options).class(Class::Internal)?;
    processor.update(PageType::Normal, 0x10_0000, &[1; 4096]).class(Class::Internal)?;
    Ok(processor)
}

impl Attester for Guest {
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError> {
        // A processor is whole between two reports.
        let mut processor = self.processor.lock().unwrap_or_else(PoisonError::into_inner);
        let extended = processor.report(&ReportRequest::new(*report_data))?;
        Ok(Evidence {
            report: extended.report,
            cert_table: extended.cert_table,
            crls: Vec::new(),
            workload_spec: self.document.bytes().to_vec(),
        })
    }

    fn workload(&self) -> WorkloadDigest {
        self.document.digest()
    }
}

pub fn now() -> u64 {
    u64::try_from(UnixTime::from(SystemTime::now()).0).unwrap_or(0)
}
