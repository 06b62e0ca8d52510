//! `coffer bench`: how fast evidence is decided about (`verify`, over a network `service`) and made (`simulator`) here, a broker answers
//! (`kbs`), data is sealed (`seal`), and a guest is believed and its workload reached (`ratls`), each figure beside what it cannot avoid.
//!
//! Evidence is simulated (the same algorithms, sizes and encodings as AMD's), made in memory, and believed by nobody else.
//! Medians (of `seal` the fastest), measured in turns in one process; meaningful on an otherwise idle machine only. What two threads gain has the gain of
//! the raw operation beside it: processors that share a core, a cache or a clock bound both.

mod apart;
mod figures;
mod fleet;
mod guest;
mod kbs;
mod ratls;
mod seal;
mod service;
mod simulator;
mod work;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{SHA384, digest};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RSA_PSS_2048_8192_SHA384};
use coffer_simulator::Installation;
use coffer_simulator::attack::{EvidenceSet, Scene, genuine};
use coffer_verifier::abi::{ProductLine, Report, SpkiDigest};
use coffer_verifier::{CrlPolicy, Endorsements, ExpectedReportData, TrustAnchors, UnixTime, VerifiedChain, verify};
use serde_json::json;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use self::figures::{ROUNDS, broken, median, micros};
use self::fleet::Fleet;
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::row::Entry;

/// Measure how fast this machine decides about evidence, seals, and a key broker answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer bench verify\n  coffer bench kbs --guests 100")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    command!("verify": VerifyArgs => verifier),
    command!("simulator": simulator),
    command!("kbs": kbs),
    command!("seal": seal),
    command!("ratls": ratls),
    command!("service": service),
];

/// Measure the verifier.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer bench verify --json")]
struct VerifyArgs {
    /// A hundredth of the work: it shows that it runs, and its figures mean little.
    #[arg(long)]
    short: bool,
}

/// How much is measured.
struct Extent {
    rounds: usize,
    /// Of the measurements on threads, which take longer.
    thread_rounds: usize,
    /// Reports of the fleet, each verified once in each round.
    reports: usize,
    fleet_rounds: usize,
}

const WHOLE: Extent = Extent { rounds: ROUNDS, thread_rounds: 15, reports: 10_000, fleet_rounds: 7 };
const SHORT: Extent = Extent { rounds: 3, thread_rounds: 1, reports: 100, fleet_rounds: 1 };

/// What a round begins with: new threads may share a processor until the kernel has spread them.
const THREAD_WARM_UP: Duration = Duration::from_millis(150);
/// How long a round counts.
const THREAD_WINDOW: Duration = Duration::from_millis(300);

fn verifier(args: &VerifyArgs, context: &Context) -> Result<ExitCode, CliError> {
    let now = UnixTime::from(SystemTime::now());
    let extent = if args.short { SHORT } else { WHOLE };
    if !context.json {
        eprintln!("measuring for a minute or two; figures mean something on an idle machine");
    }
    let subject = Subject::make(now)?;
    let figures = subject.measure(&extent, now)?;
    let fleet = Fleet::make(&subject.manufacturer, &subject.anchors, extent.reports, now)?;
    let fleet = fleet.measure(extent.fleet_rounds, now)?;
    if context.json {
        println!(
            "{}",
            json!({
                "raw_p384_us": figures.raw_p384,
                "raw_rsa_pss_us": figures.raw_rsa_pss,
                "raw_sha384_us": figures.raw_sha384,
                "parse_us": figures.parse,
                "report_cached_us": figures.report_cached,
                "full_chain_us": figures.full_chain,
                "threads2_ratio": figures.threads2_ratio,
                "raw_threads2_ratio": figures.raw_threads2_ratio,
                "at_most": {
                    "parse_us": figures.most_of_parse(),
                    "report_cached_us": figures.most_of_report(),
                    "full_chain_us": figures.most_of_chain(),
                },
                "at_least": { "threads2_ratio": figures.least_of_threads() },
                "fleet": fleet.to_json(),
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    let missed = |held: bool| if held { "" } else { ", missed" };
    let line = |name: &str, value: f64, limit: f64| {
        println!("{name:<34} {value:>9.2} us   limit {limit:>9.2} us{}", missed(value <= limit));
    };
    println!("{:<34} {:>9.2} us", "one raw P-384 verification", figures.raw_p384);
    println!("{:<34} {:>9.2} us", "one raw RSA-4096 PSS verification", figures.raw_rsa_pss);
    println!("{:<34} {:>9.2} us", "SHA-384 of what is signed", figures.raw_sha384);
    line("parse a report", figures.parse, figures.most_of_parse());
    line("report under a cached chain", figures.report_cached, figures.most_of_report());
    line("chain and CRL cold, with report", figures.full_chain, figures.most_of_chain());
    println!("{:<34} {:>9.2} x", "raw P-384 on two threads", figures.raw_threads2_ratio);
    let (ratio, least) = (figures.threads2_ratio, figures.least_of_threads());
    println!("{:<34} {ratio:>9.2} x    at least {least:.2} x{}", "reports on two threads", missed(ratio >= least));
    fleet.print();
    Ok(ExitCode::SUCCESS)
}

struct Figures {
    raw_p384: f64,
    raw_rsa_pss: f64,
    raw_sha384: f64,
    parse: f64,
    report_cached: f64,
    full_chain: f64,
    threads2_ratio: f64,
    raw_threads2_ratio: f64,
}

/// What each is held against, all of it measured in the same run.
impl Figures {
    fn most_of_parse(&self) -> f64 {
        0.2 * self.raw_sha384
    }

    fn most_of_report(&self) -> f64 {
        1.05 * self.raw_p384
    }

    /// Three certificates and a revocation list, and the report.
    fn most_of_chain(&self) -> f64 {
        1.05 * (4.0 * self.raw_rsa_pss + self.raw_p384)
    }

    /// What two processors give the raw operation.
    fn least_of_threads(&self) -> f64 {
        0.97 * self.raw_threads2_ratio
    }
}

struct Subject {
    manufacturer: Installation,
    set: EvidenceSet,
    anchors: TrustAnchors,
}

impl Subject {
    fn make(now: UnixTime) -> Result<Self, CliError> {
        let seconds = u64::try_from(now.0).unwrap_or(0);
        let mut installation = Installation::create(seconds).class(Class::Internal)?;
        installation.ensure(ProductLine::Milan, seconds).class(Class::Internal)?;
        let scene = Scene::new(ProductLine::Milan, seconds);
        let set = genuine(&installation, &scene).class(Class::Internal)?;
        let anchor = installation.anchor(ProductLine::Milan).ok_or_else(|| broken("no anchor"))?;
        let anchors = TrustAnchors::amd().with_simulated(SpkiDigest::new(*anchor.spki.as_bytes()));
        Ok(Self { anchors, set, manufacturer: installation })
    }

    fn endorsements(&self) -> Option<Endorsements> {
        let mut all = Endorsements::new();
        for certificate in [&self.set.leaf, &self.set.intermediate, &self.set.ark] {
            all.add_certificates(certificate).ok()?;
        }
        all.add_crl(self.set.crl.as_deref()?).ok()?;
        Some(all)
    }

    fn measure(&self, extent: &Extent, now: UnixTime) -> Result<Figures, CliError> {
        let report = &self.set.report;
        let parsed = Report::parse(report).class(Class::Internal)?;
        let endorsements = self.endorsements().ok_or_else(|| broken("certificates"))?;
        let chain = VerifiedChain::verify(&parsed, &endorsements, &self.anchors, &CrlPolicy::Required, now)
            .class(Class::Internal)?;
        let any = ExpectedReportData::Any;
        chain.verify_report(report, &any, now).class(Class::Internal)?;

        // The raw operations, on the same keys, messages and signatures.
        let certificate = |der| X509Certificate::from_der(der).map(|(_, one)| one).map_err(|_| broken("certificate"));
        let (leaf, root) = (certificate(&self.set.leaf)?, certificate(&self.set.ark)?);
        let p384 = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &leaf.public_key().subject_public_key.data)
            .map_err(|_| broken("leaf key"))?;
        let rsa = ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, &root.public_key().subject_public_key.data)
            .map_err(|_| broken("root key"))?;
        let (r, s) = parsed.signature();
        let fixed: Vec<u8> = r.iter().rev().chain(s.iter().rev()).copied().collect();

        let mut times: [Vec<f64>; 6] = Default::default();
        for _ in 0..extent.rounds {
            let mut time = |index: usize, repeats: u32, work: &mut dyn FnMut() -> bool| {
                let start = Instant::now();
                let mut ok = true;
                for _ in 0..repeats {
                    ok &= black_box(work());
                }
                times[index].push(micros(start.elapsed()) / f64::from(repeats));
                ok
            };
            let ok = time(0, 1, &mut || p384.verify_sig(parsed.signed_bytes(), &fixed).is_ok())
                & time(3, 1, &mut || chain.verify_report(black_box(report), &any, now).is_ok())
                & time(1, 1, &mut || rsa.verify_sig(root.tbs_certificate.as_ref(), &root.signature_value.data).is_ok())
                & time(5, 50, &mut || !digest(&SHA384, black_box(parsed.signed_bytes())).as_ref().is_empty())
                & time(2, 50, &mut || Report::parse(black_box(report)).is_ok())
                & time(4, 1, &mut || {
                    self.endorsements()
                        .is_some_and(|all| verify(report, &all, &self.anchors, &any, &CrlPolicy::Required, now).is_ok())
                });
            if !ok {
                return Err(broken("refused while measuring"));
            }
        }
        let [raw_p384, raw_rsa_pss, parse, report_cached, full_chain, raw_sha384] = times.map(median);
        let under_chain = || chain.verify_report(black_box(report), &any, now).is_ok();
        let raw = || p384.verify_sig(black_box(parsed.signed_bytes()), &fixed).is_ok();
        let (mut gains, mut raw_gains) = (Vec::new(), Vec::new());
        for _ in 0..extent.thread_rounds {
            raw_gains.push(gain(&raw).ok_or_else(|| broken("refused on a thread"))?);
            gains.push(gain(&under_chain).ok_or_else(|| broken("refused on a thread"))?);
        }
        let (threads2_ratio, raw_threads2_ratio) = (median(gains), median(raw_gains));
        Ok(Figures {
            raw_p384,
            raw_rsa_pss,
            raw_sha384,
            parse,
            report_cached,
            full_chain,
            threads2_ratio,
            raw_threads2_ratio,
        })
    }
}

/// Throughput on two threads over that on one, measured before and after, so that a machine that slows down meanwhile slows
/// both; none if the work fails.
fn gain(work: &(impl Fn() -> bool + Sync)) -> Option<f64> {
    let before = throughput(1, work)?;
    let both = throughput(2, work)?;
    Some(2.0 * both / (before + throughput(1, work)?))
}

/// Operations per second on `threads` threads at work at the same time.
fn throughput(threads: usize, work: &(impl Fn() -> bool + Sync)) -> Option<f64> {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let worker = || {
            barrier.wait();
            let warm = Instant::now() + THREAD_WARM_UP;
            let mut ok = true;
            while Instant::now() < warm {
                ok &= black_box(work());
            }
            let (start, mut count) = (Instant::now(), 0_u32);
            while start.elapsed() < THREAD_WINDOW {
                ok &= black_box(work());
                count += 1;
            }
            ok.then(|| f64::from(count) / start.elapsed().as_secs_f64())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().ok().flatten()).sum()
    })
}
