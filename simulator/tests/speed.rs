//! How much the simulator costs beyond its cryptography. Prints its figures; run with `--ignored --nocapture`.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use coffer_verifier::abi::{ProductLine, ReportData, ReportRequest, SecureProcessor as _};
use coffer_verifier::measure::{LaunchDigest, PageType};
use common::guest;
use p384::ecdsa::{Signature, SigningKey, signature::Signer};
use sha2::{Digest, Sha384};

/// Shortest of several runs: what the work takes when nothing else does.
fn shortest(runs: usize, mut work: impl FnMut()) -> Duration {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

#[test]
#[ignore = "a measurement of time, meaningful on an idle machine"]
fn a_report_costs_little_more_than_its_signature() {
    let key = SigningKey::from_slice(&[7; 48]).unwrap();
    let message = [1; 0x2a0];
    let signature = shortest(400, || {
        let signature: Signature = key.sign(black_box(&message));
        black_box(signature);
    });
    let mut processor = guest(ProductLine::Milan).into_processor();
    let report = shortest(400, || {
        black_box(processor.report(&ReportRequest::new(ReportData::new([1; 64]))).unwrap());
    });
    let ratio = report.as_secs_f64() / signature.as_secs_f64();
    println!("p384 signature {signature:?}, simulated report {report:?}, ratio {ratio:.3}");
    assert!(ratio <= 1.2, "{ratio}");
}

#[test]
#[ignore = "a measurement of time, meaningful on an idle machine"]
fn a_launch_digest_runs_at_the_speed_of_sha_384() {
    const BYTES: usize = 64 << 20;
    let memory = vec![0x5a_u8; BYTES];
    let raw = shortest(5, || {
        black_box(Sha384::digest(black_box(&memory)));
    });
    let launch = shortest(5, || {
        let mut digest = LaunchDigest::new();
        for (index, page) in memory.as_chunks::<4096>().0.iter().enumerate() {
            digest.extend(PageType::Normal, 4096 * index as u64, page).unwrap();
        }
        black_box(digest.finish());
    });
    let share = raw.as_secs_f64() / launch.as_secs_f64();
    println!("SHA-384 of 64 MiB {raw:?}, launch digest {launch:?}, {:.1} % of raw speed", 100.0 * share);
    assert!(share >= 0.8, "{share}");
}
