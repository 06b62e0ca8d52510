//! The block of Rust in docs/verifier.md is a piece of this file, and decides about genuine evidence.

use std::error::Error;

use crate::vectors;
use coffer_verifier::abi::{HostData, Report, ReportData};
use coffer_verifier::{
    Appraisal, CrlPolicy, Endorsements, Evidence, EvidencePolicy, Expected, ExpectedGuest, ExpectedReportData, Pair,
    TrustAnchors, UnixTime, Verdict, Verifier,
};

#[allow(clippy::needless_pass_by_value, reason = "owned, as they are where the page takes them from")]
fn documented(
    evidence: Evidence,
    (vcek, crl): (Vec<u8>, Vec<u8>),
    nonce: ReportData,
    pair: Pair,
    now: UnixTime,
) -> Result<Appraisal, Box<dyn Error>> {
    let mut endorsements = Endorsements::new();
    endorsements.add_certificates(&vcek)?;
    endorsements.add_crl(&crl)?;
    let verifier =
        Verifier { anchors: TrustAnchors::amd(), crl: CrlPolicy::Required, policy: EvidencePolicy::strict() };
    let expected = Expected { report_data: ExpectedReportData::Exactly(nonce), guest: ExpectedGuest::Exactly(pair) };
    let appraisal = verifier.judge(&evidence, &endorsements, &expected, now);
    Ok(appraisal)
}

/// Without what a formatter may change.
fn bare(text: &str) -> String {
    text.split_whitespace().collect::<String>().replace(",}", "}")
}

#[test]
fn the_block_of_the_page_is_what_is_compiled_here() {
    let page = include_str!("../../docs/verifier.md");
    let blocks: Vec<_> = page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 1);
    assert!(bare(include_str!("documented.rs")).contains(&bare(blocks[0])), "{}", blocks[0]);
}

#[test]
fn it_decides_about_genuine_evidence() {
    let Some(vectors) = vectors::root() else { return };
    let read = |name: &str| std::fs::read(vectors.join("turin-v5").join(name)).unwrap();
    let (report, vcek, crl) = (read("report.bin"), read("vcek.der"), read("crl.der"));
    let parsed = Report::parse(&report).unwrap();
    let (nonce, now) = (parsed.report_data(), UnixTime(1_789_862_400));
    let pair = Pair { measurement: parsed.measurement(), host_data: parsed.host_data() };
    let evidence = Evidence { report, ..Evidence::default() };
    let judged = |nonce, pair| documented(evidence.clone(), (vcek.clone(), crl.clone()), nonce, pair, now).unwrap();
    let good = judged(nonce, pair);
    assert_ne!(good.verdict(), Verdict::NotAuthentic, "{}", good.why());
    assert_eq!(judged(ReportData::new([1; 64]), pair).verdict(), Verdict::NotAuthentic);
    let other = judged(nonce, Pair { host_data: HostData::new([1; 32]), ..pair });
    assert_eq!(other.verdict(), Verdict::Refused);
}
