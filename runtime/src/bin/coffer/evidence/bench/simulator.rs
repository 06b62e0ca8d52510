//! `coffer bench simulator`: a report beside one P-384 signature, a launch digest beside SHA-384 of the same bytes.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use coffer_simulator::{Installation, LaunchOptions, SecureProcessor};
use coffer_verifier::UnixTime;
use coffer_verifier::abi::{HostData, ProductLine, ReportData, ReportRequest, SecureProcessor as _};
use coffer_verifier::measure::{LaunchDigest, PageType};
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};
use serde_json::json;
use sha2::{Digest as _, Sha384};

use super::figures::{ROUNDS, broken, median, micros};
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};

const MEMORY: usize = 64 << 20;
const DIGESTS: usize = 7;

/// Measure the simulator: reports and launch digests.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer bench simulator")]
pub struct Args {}

/// Measures and prints.
pub fn run(_: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (signature, report) = reports()?;
    let (raw, launch) = digests()?;
    let (ratio, share) = (report / signature, raw / launch);
    if context.json {
        println!(
            "{}",
            json!({
                "p384_signature_us": signature, "report_us": report, "report_ratio": ratio,
                "sha384_64mib_us": raw, "launch_digest_64mib_us": launch, "launch_digest_share": share,
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<34} {signature:>9.1} us", "one P-384 signature");
    println!("{:<34} {report:>9.1} us   limit {:>9.1} us   {ratio:.3} x", "a simulated report", 1.2 * signature);
    println!("{:<34} {raw:>9.0} us", "SHA-384 of 64 MiB");
    println!(
        "{:<34} {launch:>9.0} us   limit {:>9.0} us   {:.1} %",
        "launch digest of 64 MiB",
        raw / 0.8,
        100.0 * share
    );
    Ok(ExitCode::SUCCESS)
}

/// The report goes the whole way: request sealed, opened, signed, answer sealed, opened, with the certificate table.
fn reports() -> Result<(f64, f64), CliError> {
    let now = u64::try_from(UnixTime::from(SystemTime::now()).0).unwrap_or(0);
    let mut installation = Installation::create(now).class(Class::Internal)?;
    installation.ensure(ProductLine::Milan, now).class(Class::Internal)?;
    let launch = SecureProcessor::launch_start(&installation, LaunchOptions::new(ProductLine::Milan, now));
    let guest = launch.and_then(|launch| launch.finish(HostData::new([3; 32]), None)).class(Class::Internal)?;
    let mut processor = guest.into_processor();
    let key = SigningKey::from_slice(&[7; 48]).map_err(|_| broken("signing key"))?;
    let message = [1; 0x2a0];
    let (mut signatures, mut reports) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let signature: Signature = key.sign(black_box(&message));
        black_box(signature);
        signatures.push(micros(start.elapsed()));
        let start = Instant::now();
        black_box(processor.report(&ReportRequest::new(ReportData::new([1; 64]))).class(Class::Internal)?);
        reports.push(micros(start.elapsed()));
    }
    Ok((median(signatures), median(reports)))
}

fn digests() -> Result<(f64, f64), CliError> {
    let memory = vec![0x5a_u8; MEMORY];
    let (mut raw, mut launch) = (Vec::new(), Vec::new());
    for _ in 0..DIGESTS {
        let start = Instant::now();
        black_box(Sha384::digest(black_box(&memory)));
        raw.push(micros(start.elapsed()));
        let start = Instant::now();
        let mut digest = LaunchDigest::new();
        for (gpa, page) in (0..).step_by(4096).zip(memory.as_chunks::<4096>().0) {
            digest.extend(PageType::Normal, gpa, page).class(Class::Internal)?;
        }
        black_box(digest.finish());
        launch.push(micros(start.elapsed()));
    }
    Ok((median(raw), median(launch)))
}
