//! The block of Rust in docs/collateral.md is a piece of this file, line by line. It would keep things in a folder of this machine, so it is
//! compiled and not called.

use coffer_kds::{Kds, OpenError, Options};
use coffer_verifier::abi::Report;
use coffer_verifier::{Appraisal, Endorsements, Evidence, Expected, UnixTime, Verifier};

#[allow(dead_code, reason = "compiled, and not called")]
async fn documented(
    report: Report,
    (evidence, carried): (Evidence, Endorsements),
    verifier: Verifier,
    expected: Expected,
    now: UnixTime,
) -> Result<Appraisal, OpenError> {
    let kds = Kds::open(Options::amd().kept_in("/var/lib/example/collateral"))?;
    let found = kds.collect(&report, &carried, now).await;
    let appraisal = verifier.judge(&evidence, &found.endorsements, &expected, now);
    Ok(appraisal)
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_block_of_the_page_is_what_is_compiled_here() {
    let page = include_str!("../../../docs/collateral.md");
    let blocks: Vec<_> = page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 1);
    let (wanted, here) = (lines(blocks[0]), lines(include_str!("documented.rs")));
    assert!(here.windows(wanted.len()).any(|part| part == wanted), "{wanted:#?}");
}
