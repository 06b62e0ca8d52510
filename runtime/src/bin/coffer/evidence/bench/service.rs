//! `coffer bench service`: what an appraisal costs the verifier's service, beside what it cannot avoid: judging the same bytes in
//! process, and one signature.
//!
//! A `coffer-verifier` of its own on a fresh state folder, in plain HTTP on loopback; the load is this process; each has one
//! processor. What is counted is processor time, so that waiting does not count. Evidence is simulated, each report
//! another, its chain verified once on both sides. What a figure is held against is measured in turns with it.
//! A limit that is missed is said, and fails nothing.
//! Never: reaches a service that is in use.

mod line;
mod program;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_ratls::Attester as _;
use coffer_token::TokenKey;
use coffer_verifier::abi::ReportData;
use coffer_verifier::ear::TokenSigner as _;
use coffer_verifier::{
    ConnectionChain, CrlPolicy, Endorsements, EvidencePolicy, ExpectedReportData, Presented, TrustAnchors, Verdict,
    Verifier,
};
use serde_json::{Value, json};

use self::line::{Line, post};
use self::program::{POLICY, Program};
use super::apart::{Apart, apart, own_processor_time, processor_time, resident};
use super::figures::{broken, median, micros, real};
use super::guest::{Guest, Platform};
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};

/// Measure a verifier's service of its own under load: appraisals and tokens, what is shed, memory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer bench service\n  coffer bench service --rounds 20 --json")]
pub struct Args {
    /// Rounds, each of 100 appraisals without a token and as many with one.
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=1000))]
    rounds: u16,

    /// The `coffer-verifier` to measure [default: beside this program].
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Reports, each another.
const REPORTS: usize = 100;
/// Requests that the service takes at once, and clients that ask it at once: twice as many.
const AT_ONCE: u16 = 8;
const CLIENTS: u16 = 2 * AT_ONCE;
/// Callers who keep its processor busy, so that it does not sleep and wake for each request; fewer than it takes at once.
const BUSY: usize = 4;
/// Requests in a batch.
const BATCH: usize = 20;
const _: () = assert!(REPORTS.is_multiple_of(BATCH));
/// Stands once in the answer about each report that is believed.
const VERDICT: &[u8] = b"\"verdict\":\"accepted\"";
/// Of what the core does in that time.
const LEAST: f64 = 0.8;
/// Growth of memory under all of it.
const MOST_MEMORY: u64 = 64 << 20;

/// Measures and prints.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let program = super::apart::program(args.program.as_deref(), "coffer-verifier", context)?;
    if !context.json {
        eprintln!("measuring for some seconds; figures mean something on an idle machine");
    }
    let folder = tempfile::tempdir().class_while(Class::Config, "making a folder for the service")?;
    let platform = Platform::new()?;
    let (service, processors) = apart(|| Program::start(&program, folder.path(), &platform.anchor, AT_ONCE))?;
    let mut bench = Bench { core: Core::new(&platform)?, service, processors };
    let mut figures = bench.unhurried(usize::from(args.rounds))?;
    figures["pinned"] = processors.is_some().into();
    figures["overload"] = bench.overload(usize::from(args.rounds))?;
    let grown = resident(bench.service.id())?.saturating_sub(figures["memory_bytes"].as_u64().unwrap_or(0));
    figures["memory"] = json!({ "growth_bytes": grown, "limit": MOST_MEMORY });
    if context.json {
        println!("{figures}");
    } else {
        say(&figures);
    }
    Ok(ExitCode::SUCCESS)
}

/// What the service cannot avoid, in this process.
struct Core {
    verifier: Verifier,
    chain: ConnectionChain,
    key: TokenKey,
    /// CMW records.
    evidence: Vec<Vec<u8>>,
}

impl Core {
    fn new(platform: &Platform) -> Result<Self, CliError> {
        let guest = Guest::launch(platform)?;
        let record = |number: usize| {
            let mut data = [0; 64];
            data[..8].copy_from_slice(&(number as u64).to_be_bytes());
            guest.evidence(&ReportData::new(data)).map(|evidence| evidence.to_cmw()).map_err(|_| broken("report"))
        };
        let anchors = TrustAnchors::amd().with_simulated(platform.anchor);
        let policy = EvidencePolicy::default_floor();
        Ok(Self {
            verifier: Verifier { anchors, crl: CrlPolicy::Required, policy },
            chain: ConnectionChain::new(),
            key: TokenKey::generate().class(Class::Internal)?,
            evidence: (0..REPORTS).map(record).collect::<Result<_, _>>()?,
        })
    }

    /// Judges one, as the service does: from the bytes on.
    fn judge(&self, record: &[u8]) -> Result<(), CliError> {
        let presented = Presented::parse(record).class(Class::Internal)?;
        let (none, any) = (Endorsements::new(), ExpectedReportData::Any);
        let now = SystemTime::now().into();
        let appraisal = self.verifier.judge_presented(&self.chain, &presented, &none, &any, now);
        if appraisal.verdict() == Verdict::Accepted { Ok(()) } else { Err(broken("refused while measuring")) }
    }
}

struct Bench {
    core: Core,
    service: Program,
    processors: Option<Apart>,
}

/// What is asked.
fn body(record: &[u8], token: bool) -> Value {
    let mut body = json!({ "evidence": STANDARD.encode(record), "report_data": "any", "policy": POLICY });
    if token {
        body["token"] = json!({ "audience": "bench" });
    }
    body
}

impl Bench {
    fn requests(&self, token: bool) -> Vec<Vec<u8>> {
        let all = self.core.evidence.iter();
        all.map(|record| post(&self.service.key, "/v1/appraise", &body(record, token).to_string())).collect()
    }

    fn batches(&self, token: bool) -> Vec<Vec<u8>> {
        let batch = |records: &[Vec<u8>]| {
            let requests: Vec<_> = records.iter().map(|record| body(record, token)).collect();
            post(&self.service.key, "/v1/appraise/batch", &json!({ "requests": requests }).to_string())
        };
        self.core.evidence.chunks(BATCH).map(batch).collect()
    }

    /// All of these by these callers, of whom each asks again once it is answered: what each report of them cost the service.
    fn asked(&self, lines: &mut [Line], requests: &[Vec<u8>]) -> Result<f64, CliError> {
        let each = REPORTS / requests.len();
        let before = processor_time(self.service.id())?;
        let mut answered = |line: &mut Line| -> Result<(), CliError> {
            let (status, body) = line.answer().class(Class::Unreachable)?;
            let verdicts = body.windows(VERDICT.len()).filter(|words| *words == VERDICT).count();
            (status == 200 && verdicts == each)
                .then_some(())
                .ok_or_else(|| broken("refused by the service while measuring"))
        };
        let callers = lines.len();
        for (number, request) in requests.iter().enumerate() {
            let line = &mut lines[number % callers];
            if number >= callers {
                answered(line)?;
            }
            line.send(request).class(Class::Unreachable)?;
        }
        // Of fewer requests than callers some were not sent any.
        lines.iter_mut().take(requests.len()).try_for_each(&mut answered)?;
        Ok(micros(processor_time(self.service.id())?.saturating_sub(before)) / real(REPORTS))
    }

    /// Callers who keep the service busy, and one alone, for whom it wakes each time.
    fn unhurried(&mut self, rounds: usize) -> Result<Value, CliError> {
        let kinds = [false, true].map(|token| (self.requests(token), self.batches(token)));
        // With one processor for both, whoever does not sleep keeps it from the service.
        let awake = self.processors.is_some();
        let line = |_| {
            let line = Line::connect(self.service.listen).class(Class::Unreachable)?;
            Ok::<_, CliError>(if awake { line.awake() } else { line })
        };
        let mut lines = (0..BUSY).map(line).collect::<Result<Vec<_>, _>>()?;
        let mut memory = 0;
        let (mut judged, mut signed) = (Vec::new(), Vec::new());
        // With and without a token, by several, by one, and in batches.
        let mut service: [[Vec<f64>; 3]; 2] = Default::default();
        for round in 0..=rounds {
            for ((requests, batches), times) in kinds.iter().zip(&mut service) {
                times[0].push(self.asked(&mut lines, requests)?);
                times[1].push(self.asked(&mut lines[..1], requests)?);
                times[2].push(self.asked(&mut lines, batches)?);
            }
            let (core, signature) = self.unavoidable()?;
            judged.push(core);
            signed.push(signature);
            if round == 0 {
                // The first warms up: chains, allocators, the kernel's buffers.
                memory = resident(self.service.id())?;
                service.as_flattened_mut().iter_mut().chain([&mut judged, &mut signed]).for_each(Vec::clear);
            }
        }
        let both: Vec<f64> = judged.iter().zip(&signed).map(|(core, signature)| core + signature).collect();
        let [plain, with_token] = service;
        // Round by round: what slows a processor down for a while slows both.
        let ratio = |unavoidable: &[f64], samples: &[f64]| {
            median(unavoidable.iter().zip(samples).map(|(unavoidable, each)| unavoidable / each).collect())
        };
        let figure = |[samples, alone, batched]: [Vec<f64>; 3], unavoidable: &[f64]| {
            let each = median(samples.clone());
            json!({
                "processor_us": each, "per_second": 1e6 / each, "unavoidable_us": median(unavoidable.to_vec()),
                "ratio": ratio(unavoidable, &samples), "at_least": LEAST, "samples_us": samples, "callers": BUSY,
                "one_caller_us": median(alone.clone()), "one_caller_ratio": ratio(unavoidable, &alone),
                "one_caller_samples_us": alone, "batch": BATCH, "batch_us": median(batched.clone()),
                "batch_ratio": ratio(unavoidable, &batched), "batch_samples_us": batched,
            })
        };
        Ok(json!({
            "core_us": median(judged.clone()), "signature_us": median(signed.clone()),
            "appraisal": figure(plain, &judged), "token": figure(with_token, &both),
            "core_samples_us": judged, "signature_samples_us": signed, "memory_bytes": memory,
        }))
    }

    /// Judging, and a signature, each as often as there are reports, on the processor of the service: what one takes of it.
    fn unavoidable(&self) -> Result<(f64, f64), CliError> {
        let measured = || {
            let start = own_processor_time();
            self.core.evidence.iter().try_for_each(|record| self.core.judge(record))?;
            let between = own_processor_time();
            for record in &self.core.evidence {
                self.core.key.sign(record).class(Class::Internal)?;
            }
            let each = |time: Duration| micros(time) / real(REPORTS);
            Ok((each(between.saturating_sub(start)), each(own_processor_time().saturating_sub(between))))
        };
        match self.processors {
            Some(processors) => processors.there(measured),
            None => measured(),
        }
    }

    /// Twice as many callers as it takes at once, each of whom asks again as soon as it is answered.
    fn overload(&mut self, rounds: usize) -> Result<Value, CliError> {
        let requests = self.requests(true);
        let (answered, shed) = (Mutex::new(Vec::new()), Mutex::new(0_u32));
        let (to, requests) = (self.service.listen, &requests);
        let before = processor_time(self.service.id())?;
        let client = || -> std::io::Result<()> {
            let mut line = Line::connect(to)?;
            let (mut times, mut refused) = (Vec::new(), 0);
            for number in 0..rounds * REPORTS / usize::from(AT_ONCE) {
                let start = Instant::now();
                match line.ask(&requests[number % requests.len()])? {
                    (200, _) => times.push(micros(start.elapsed())),
                    (503, _) => {
                        refused += 1;
                        // As one that comes again does; sooner than it was told to.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    _ => return Err(std::io::Error::other("neither an answer nor a refusal for want of a place")),
                }
            }
            answered.lock().map_err(|_| std::io::Error::other("a client broke"))?.extend(times);
            *shed.lock().map_err(|_| std::io::Error::other("a client broke"))? += refused;
            Ok(())
        };
        let ended: std::io::Result<()> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            let broke = |_| Err(std::io::Error::other("a client broke"));
            clients.into_iter().try_for_each(|client| client.join().unwrap_or_else(broke))
        });
        ended.class(Class::Unreachable)?;
        let spent = micros(processor_time(self.service.id())?.saturating_sub(before));
        let (mut times, shed) = (answered.into_inner().unwrap_or_default(), shed.into_inner().unwrap_or_default());
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(f64::NAN);
        let each = spent / real(times.len());
        // Those that were let in wait for one another, and for nobody else.
        let bound = f64::from(2 * AT_ONCE) * each;
        Ok(json!({
            "clients": CLIENTS, "at_once": AT_ONCE, "answered": times.len(), "shed": shed,
            "p50_us": at(50), "p99_us": at(99), "processor_us": each, "limit_us": bound,
        }))
    }
}

fn say(figures: &Value) {
    let number = |group: &str, name: &str| figures[group][name].as_f64().unwrap_or(f64::NAN);
    let missed = |held: bool| if held { "" } else { ", missed" };
    let alone = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    println!("{:<34} {:>9.1} us", "judged in process", alone("core_us"));
    println!("{:<34} {:>9.1} us", "one ES384 signature", alone("signature_us"));
    for (group, name) in [("appraisal", "appraisal by the service"), ("token", "the same with a token")] {
        let (each, ratio) = (number(group, "processor_us"), number(group, "ratio"));
        let held = missed(ratio >= LEAST);
        println!("{name:<34} {each:>9.1} us of processor time   {ratio:.3} x   at least {LEAST} x{held}");
        let (each, ratio) = (number(group, "one_caller_us"), number(group, "one_caller_ratio"));
        println!("{:<34} {each:>9.1} us of processor time   {ratio:.3} x", "  of one caller, who waits");
        let (each, ratio) = (number(group, "batch_us"), number(group, "batch_ratio"));
        let held = missed(ratio >= LEAST);
        let batches = format!("  in batches of {BATCH}");
        println!("{batches:<34} {each:>9.1} us of processor time   {ratio:.3} x   at least {LEAST} x{held}");
    }
    let (p99, limit) = (number("overload", "p99_us"), number("overload", "limit_us"));
    let (answered, shed) = (number("overload", "answered"), number("overload", "shed"));
    let held = missed(p99 <= limit);
    println!(
        "{:<34} {p99:>9.0} us   limit {limit:.0} us   {answered} answered, {shed} shed{held}",
        "p99 under twice the load"
    );
    let grown = number("memory", "growth_bytes") / 1024.0;
    println!("{:<34} {grown:>9.0} KiB   limit {} KiB", "growth of memory", MOST_MEMORY / 1024);
    if figures["pinned"] != true {
        println!("service and load shared processors: there is only one");
    }
}
