//! The reports of a whole fleet on two threads, beside the raw operation on the same signatures.
//!
//! A hundred chips under one manufacturer, each with a leaf of its own, their reports in turn: what a relying party that keeps a verified
//! chain for each chip sees. Both sides find the key by the report's CHIP_ID, and each verifies every report once in a round.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use coffer_simulator::{Installation, LaunchOptions, SecureProcessor};
use coffer_verifier::abi::report::{SIGNED_LEN, offset};
use coffer_verifier::abi::{
    CertKind, CertTable, ChipId, HostData, ProductLine, Report, ReportData, ReportRequest, SecureProcessor as _,
};
use coffer_verifier::measure::PageType;
use coffer_verifier::{CrlPolicy, Endorsements, ExpectedReportData, TrustAnchors, UnixTime, VerifiedChain};
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::figures::{broken, median, real};
use crate::error::{Class, Classify as _, CliError};

/// What the fleet reaches of the raw rate.
const LEAST: f64 = 0.97;
const CHIPS: usize = 100;
const THREADS: usize = 2;

/// One report, and its signature as the raw operation takes it.
struct One {
    report: Vec<u8>,
    signature: Vec<u8>,
}

/// What is known of one chip.
struct Known {
    chain: VerifiedChain,
    key: ParsedPublicKey,
}

pub struct Fleet {
    reports: Vec<One>,
    chips: HashMap<ChipId, Known>,
}

/// Reports verified in a second, and by the raw operation.
pub struct Rates {
    reports: usize,
    chips: usize,
    per_second: f64,
    raw_per_second: f64,
    ratio: f64,
}

impl Rates {
    pub fn to_json(&self) -> Value {
        let Self { reports, chips, per_second, raw_per_second, ratio } = self;
        json!({
            "reports": reports, "chips": chips, "threads": THREADS, "per_second": per_second, "raw_per_second": raw_per_second,
            "ratio": ratio, "at_least": LEAST,
        })
    }

    pub fn print(&self) {
        println!("{:<34} {:>9.0} /s", "raw P-384 of a fleet, two threads", self.raw_per_second);
        let missed = if self.ratio >= LEAST { "" } else { ", missed" };
        let name = format!("{} reports of {} chips", self.reports, self.chips);
        println!("{name:<34} {:>9.0} /s   {:.3} x, at least {LEAST:.2} x{missed}", self.per_second, self.ratio);
    }
}

impl Fleet {
    /// So many reports of a hundred chips, or of fewer where there are fewer reports.
    pub fn make(
        manufacturer: &Installation,
        anchors: &TrustAnchors,
        reports: usize,
        now: UnixTime,
    ) -> Result<Self, CliError> {
        let count = CHIPS.min(reports);
        let mut chips = HashMap::new();
        let mut of_each = Vec::new();
        for _ in 0..count {
            let (chip, known, reports) = chip(manufacturer, anchors, reports / count, now)?;
            chips.insert(chip, known);
            of_each.push(reports.into_iter());
        }
        // One of each chip in turn, as they would come.
        let mut all = Vec::new();
        while let Some(next) = of_each.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>() {
            all.extend(next);
        }
        Ok(Self { reports: all, chips })
    }

    /// Measures both in turns.
    pub fn measure(&self, rounds: usize, now: UnixTime) -> Result<Rates, CliError> {
        let any = ExpectedReportData::Any;
        let ours = |one: &One, known: &Known| known.chain.verify_report(black_box(&one.report), &any, now).is_ok();
        let raw = |one: &One, known: &Known| {
            known.key.verify_sig(black_box(&one.report[..SIGNED_LEN]), &one.signature).is_ok()
        };
        let (mut of_ours, mut of_raw, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            // Before and after, so that a machine that slows down meanwhile slows both.
            let before = self.rate(&raw).ok_or_else(|| broken("refused on a thread"))?;
            let rate = self.rate(&ours).ok_or_else(|| broken("refused on a thread"))?;
            let after = self.rate(&raw).ok_or_else(|| broken("refused on a thread"))?;
            of_ours.push(rate);
            of_raw.push(f64::midpoint(before, after));
            ratios.push(rate / f64::midpoint(before, after));
        }
        Ok(Rates {
            reports: self.reports.len(),
            chips: self.chips.len(),
            per_second: median(of_ours),
            raw_per_second: median(of_raw),
            ratio: median(ratios),
        })
    }

    /// All of them once, shared out to two threads; none if one is refused.
    fn rate(&self, verifies: &(impl Fn(&One, &Known) -> bool + Sync)) -> Option<f64> {
        let share = self.reports.len().div_ceil(THREADS);
        let start = Instant::now();
        let held = std::thread::scope(|scope| {
            let workers = self.reports.chunks(share).map(|part| {
                scope.spawn(move || {
                    part.iter().all(|one| {
                        let chip = ChipId::try_from(&one.report[CHIP_ID]).ok();
                        chip.and_then(|chip| self.chips.get(&chip)).is_some_and(|known| black_box(verifies(one, known)))
                    })
                })
            });
            workers.collect::<Vec<_>>().into_iter().all(|worker| worker.join().unwrap_or(false))
        });
        let took = start.elapsed().max(Duration::from_nanos(1));
        held.then(|| real(self.reports.len()) / took.as_secs_f64())
    }
}

/// Where a report states its chip.
const CHIP_ID: std::ops::Range<usize> = offset::CHIP_ID..offset::CHIP_ID + ChipId::LEN;

/// Another chip of this manufacturer: its verified chain, its key, and reports of a guest on it.
fn chip(
    manufacturer: &Installation,
    anchors: &TrustAnchors,
    reports: usize,
    now: UnixTime,
) -> Result<(ChipId, Known, Vec<One>), CliError> {
    let installation = manufacturer.with_another_chip().class(Class::Internal)?;
    let seconds = u64::try_from(now.0).unwrap_or(0);
    let options = LaunchOptions { policy: 0x3_0000, ..LaunchOptions::new(ProductLine::Milan, seconds) };
    let mut launch = SecureProcessor::launch_start(&installation, options).class(Class::Internal)?;
    launch.update(PageType::Normal, 0x10_0000, &[1; 4096]).class(Class::Internal)?;
    let guest = launch.finish(HostData::new([2; 32]), None).class(Class::Internal)?;
    let mut processor = guest.into_processor();
    let (mut all, mut table) = (Vec::new(), Vec::new());
    for number in 0..reports {
        let data = ReportData::new(std::array::from_fn(|at| if at < 8 { number.to_be_bytes()[at] } else { 3 }));
        let made = processor.report(&ReportRequest::new(data)).class(Class::Internal)?;
        let parsed = Report::parse(&made.report).class(Class::Internal)?;
        let (r, s) = parsed.signature();
        all.push(One { signature: r.iter().rev().chain(s.iter().rev()).copied().collect(), report: made.report });
        table = made.cert_table;
    }
    let first = all.first().ok_or_else(|| broken("no report"))?;
    let parsed = Report::parse(&first.report).class(Class::Internal)?;
    let endorsements = Endorsements::from_cert_table(&table).class(Class::Internal)?;
    let chain =
        VerifiedChain::verify(&parsed, &endorsements, anchors, &CrlPolicy::Required, now).class(Class::Internal)?;
    let table = CertTable::parse(&table).class(Class::Internal)?;
    let leaf = table.entries().iter().find(|(kind, _)| *kind == CertKind::Vcek);
    let (_, leaf) = leaf.ok_or_else(|| broken("no leaf"))?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| broken("certificate"))?;
    let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &leaf.public_key().subject_public_key.data)
        .map_err(|_| broken("leaf key"))?;
    Ok((parsed.chip_id(), Known { chain, key }, all))
}
