//! A simulated service on loopback whose answers a test decides, and a client of it.

use std::fs::{self, File};
use std::ops::Deref;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coffer_kds::{Collected, Kds, Options};
use coffer_simulator::{Installation, LaunchOptions, SecureProcessor};
use coffer_verifier::abi::{HostData, ProductLine, Report, ReportData, ReportRequest, SecureProcessor as _};
use coffer_verifier::measure::PageType;
use coffer_verifier::{
    CrlPolicy, Endorsements, Evidence, EvidencePolicy, Expected, ExpectedGuest, ExpectedReportData, TrustAnchors,
    UnixTime, Verdict, Verifier,
};

/// 2026-09-20T00:00:00Z, as Unix seconds.
pub const SECONDS: u64 = 1_789_862_400;
pub const NOW: UnixTime = UnixTime::from_secs(1_789_862_400);
pub const DAY: i64 = 86_400;

pub fn installation() -> &'static Installation {
    static INSTALLATION: OnceLock<Installation> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let stored = folder.join("kds-simulator.json");
        let lock = File::create(folder.join("kds-simulator.lock")).unwrap();
        lock.lock().unwrap();
        if let Ok(bytes) = fs::read(&stored) {
            return Installation::from_bytes(&bytes).unwrap();
        }
        let mut made = Installation::create(SECONDS - 100 * 86_400).unwrap();
        for product in ProductLine::ALL {
            made.ensure_vlek(product, SECONDS - 100 * 86_400).unwrap();
        }
        fs::write(&stored, made.to_bytes().unwrap()).unwrap();
        made
    })
}

pub fn anchors() -> TrustAnchors {
    installation().anchors().fold(TrustAnchors::amd(), |all, anchor| all.with_simulated(anchor.spki))
}

/// A bare report of the simulated chip.
pub fn report(product: ProductLine) -> Vec<u8> {
    let mut processor = SecureProcessor::launch_start(installation(), LaunchOptions::new(product, SECONDS)).unwrap();
    processor.update(PageType::Normal, 0x1000, &[7; 4096]).unwrap();
    let guest = processor.finish(HostData::new([3; 32]), None).unwrap();
    guest.into_processor().report(&ReportRequest::new(ReportData::new([2; 64]))).unwrap().report
}

/// A report of a chip that is not there: another CHIP_ID, so nobody signed it.
pub fn fake(number: u32) -> Vec<u8> {
    let mut bytes = report_milan().to_vec();
    bytes[0x1a0..0x1a4].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn report_milan() -> &'static [u8] {
    static REPORT: OnceLock<Vec<u8>> = OnceLock::new();
    REPORT.get_or_init(|| report(ProductLine::Milan))
}

#[path = "../../../../tests/kds_service.rs"]
mod kds_service;

pub use kds_service::Reply;

/// A service that counts, and a client of it.
pub struct Service(kds_service::Service);

impl Deref for Service {
    type Target = kds_service::Service;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Service {
    pub async fn honest() -> Self {
        Self::new(|_, _| None).await
    }

    /// `rule`: by path and query, and how often this path was asked before.
    pub async fn new(rule: impl Fn(&str, u64) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let service = kds_service::Service::start(installation(), SECONDS - 50 * 86_400, rule).await;
        service.days.store(50, Ordering::Relaxed);
        Self(service)
    }

    pub fn options(&self) -> Options {
        let mut options = Options::simulated(self.base.clone(), anchors());
        options.timeout = Duration::from_secs(2);
        options.patience = Duration::from_secs(4);
        options
    }

    pub fn client(&self) -> Kds {
        Kds::open(self.options()).unwrap()
    }
}

pub async fn collect(kds: &Kds, report: &[u8]) -> Collected {
    kds.collect(&Report::parse(report).unwrap(), &Endorsements::new(), NOW).await
}

/// What the judge says of a bare report with what was collected.
pub fn judged(report: &[u8], found: &Endorsements, at: UnixTime) -> Verdict {
    judge(report, found, anchors(), at)
}

pub fn judge(report: &[u8], found: &Endorsements, anchors: TrustAnchors, at: UnixTime) -> Verdict {
    let verifier = Verifier { anchors, crl: CrlPolicy::Required, policy: EvidencePolicy::default_floor() };
    let expected = Expected { report_data: ExpectedReportData::Any, guest: ExpectedGuest::WhateverThePolicyAdmits };
    let evidence = Evidence { report: report.to_vec(), ..Evidence::default() };
    let appraisal = verifier.judge(&evidence, found, &expected, at);
    if appraisal.verdict() != Verdict::Accepted {
        println!("{}", appraisal.why());
    }
    appraisal.verdict()
}

/// True if the report is authentic with what was collected.
pub fn holds(report: &[u8], found: &Collected) -> bool {
    judged(report, &found.endorsements, NOW) != Verdict::NotAuthentic
}
