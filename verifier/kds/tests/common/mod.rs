//! A simulated service on loopback whose answers a test decides, and a client of it.

use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coffer_kds::{Collected, Kds, Options};
use coffer_verifier::abi::{ProductLine, Report, ReportData};
use coffer_verifier::{
    CrlPolicy, Endorsements, Evidence, EvidencePolicy, Expected, ExpectedGuest, ExpectedReportData, TrustAnchors,
    UnixTime, Verdict, Verifier,
};

pub const NOW: UnixTime = UnixTime::from_secs(1_789_862_400);
pub const DAY: i64 = 86_400;

#[path = "../../../../tests/simulated.rs"]
mod simulated;

pub use simulated::{SECONDS, installation};

pub fn anchors() -> TrustAnchors {
    installation().anchors().fold(TrustAnchors::amd(), |all, anchor| all.with_simulated(anchor.spki))
}

/// A bare report of the simulated chip.
pub fn report(product: ProductLine) -> Vec<u8> {
    simulated::report(product, SECONDS, ReportData::new([2; 64])).report
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

    /// Those of a client that waits for as long as a test lasts: what is there then was not waited for.
    pub fn patient(&self) -> Options {
        let mut options = self.options();
        options.timeout = Duration::from_hours(1);
        options.patience = Duration::from_hours(1);
        options
    }

    /// Until so many requests for paths with `part` have come.
    pub async fn is_asked(&self, part: &str, times: u64) {
        while self.asked(part) < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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
    judge_under(report, found, anchors, CrlPolicy::Required, at)
}

pub fn judge_under(
    report: &[u8],
    found: &Endorsements,
    anchors: TrustAnchors,
    crl: CrlPolicy,
    at: UnixTime,
) -> Verdict {
    let verifier = Verifier { anchors, crl, policy: EvidencePolicy::default_floor() };
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
