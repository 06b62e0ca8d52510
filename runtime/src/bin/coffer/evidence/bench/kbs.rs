//! `coffer bench kbs`: what a guest waits for its secret, beside the public-key work and the durable commit it cannot avoid.
//!
//! A `coffer-kbs` of its own on a fresh state folder, and guests with simulated evidence in this process; each on one processor.
//! What a figure is held against is measured in turns with it, in the same run and on the same disk; before each of both the
//! disk rests for a round of public-key work. Raw samples go into the JSON. A limit that is missed is said, and fails nothing.
//! Never: reaches a broker that is in use, or a simulator's keys that anybody lists.

mod broker;
mod sqlite;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coffer_kbs_client::{BrokerClient, kbs};
use coffer_ratls::{ClientTls, Identity, PeerPin, connect_pinned};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use self::broker::Broker;
use self::sqlite::Disk;
use super::apart::{apart, program};
use super::figures::{broken, median, micros, real};
use super::guest::{Guest, Platform, TENANT};
use super::work::{Operation, PublicKeys};
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::passing;

/// Measure a key broker of its own under load: time to a secret, releases at once, memory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer bench kbs
  coffer bench kbs --guests 200 --folder /var/lib/coffer-kbs --json")]
pub struct Args {
    /// Guests that attest one after the other, and stay connected.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=900))]
    guests: u16,

    /// Further secrets, and twice as many calls of an operator.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=10_000))]
    samples: u16,

    /// Folder on the disk to measure; what is made in it is removed [default: that of temporary files].
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,

    /// The `coffer-kbs` to measure [default: beside this program].
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Questions at one time.
const IN_FLIGHT: usize = 32;
const FLIGHTS: usize = 7;
/// Lines of releases wait no longer than this for the checkpoint outside the database.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Measures and prints.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    if !context.json {
        eprintln!("measuring for most of a minute; figures mean something on an idle machine");
    }
    let program = program(args.program.as_deref(), "coffer-kbs", context)?;
    let folder = match &args.folder {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let folder = folder.and_then(passing::with_us).class_while(Class::Config, "making a folder for the broker")?;
    let platform = Platform::new()?;
    let (broker, pinned) = apart(|| Broker::start(&program, folder.path(), &platform))?;
    let mut bench = Bench {
        runtime: event_loop()?,
        disk: Disk::new(folder.path())?,
        keys: PublicKeys::new(&platform)?,
        clients: Vec::new(),
        broker,
        platform,
    };
    let mut figures = json!({ "guests": args.guests, "pinned": pinned.is_some() });
    figures["first_secret"] = bench.first_secret(usize::from(args.guests))?;
    figures["further_secret"] = bench.further_secret(usize::from(args.samples))?;
    figures["in_flight"] = bench.in_flight()?;
    figures["get_meta"] = bench.get_meta(2 * usize::from(args.samples))?;
    // Of the guests that the first figure left connected.
    figures["memory"] = figures["first_secret"]["memory"].take();
    if let Some(first) = figures["first_secret"].as_object_mut() {
        first.remove("memory");
    }
    if context.json {
        println!("{figures}");
    } else {
        say(&figures);
    }
    Ok(ExitCode::SUCCESS)
}

/// On this thread alone: the load has one processor, and hands nothing from thread to thread that it is timed with.
fn event_loop() -> Result<tokio::runtime::Runtime, CliError> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.class_while(Class::Internal, "starting the event loop")
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    broker: Broker,
    platform: Platform,
    disk: Disk,
    keys: PublicKeys,
    clients: Vec<BrokerClient>,
}

impl Bench {
    fn first_secret(&mut self, guests: usize) -> Result<Value, CliError> {
        self.runtime.block_on(self.broker.furnish(&self.platform))?;
        let warm = (guests / 2).min(8);
        let (mut times, mut commits, mut checkpoints) = (Vec::new(), Vec::new(), Vec::new());
        let (mut memory, mut evidence) = (Vec::new(), self.broker.evidence_cost()?);
        for number in 0..warm + guests {
            if number == warm {
                // As long as the line of a release.
                self.disk.fit(self.runtime.block_on(self.broker.last_line())?.len());
                (memory, evidence) = (vec![self.broker.memory()?], self.broker.evidence_cost()?);
            }
            self.keys.round()?;
            let guest = Arc::new(Guest::launch(&self.platform)?);
            let identity = Identity::generate("guest").class(Class::Internal)?;
            let start = Instant::now();
            let client = self.runtime.block_on(async {
                let stream = TcpStream::connect(self.broker.listen).await.class(Class::Unreachable)?;
                stream.set_nodelay(true).class(Class::Unreachable)?;
                let connected = BrokerClient::connect(stream, &identity, TENANT, vec![self.broker.pin], guest);
                let client = connected.await.class(Class::Unreachable)?;
                client.secret(&self.platform.path).await.class(Class::Refused)?;
                Ok::<_, CliError>(client)
            })?;
            let time = micros(start.elapsed());
            self.clients.push(client);
            self.keys.round()?;
            let commit = self.disk.commit()?;
            self.keys.round()?;
            let checkpoint = self.disk.checkpoint()?;
            if number >= warm {
                memory.push(self.broker.memory()?);
                times.push(time);
                commits.push(commit);
                checkpoints.push(checkpoint);
            }
        }
        let after = self.broker.evidence_cost()?;
        let each = |before: u64, after: u64| real(after - before) / real(guests);
        let (rsa, ecdsa) = (each(evidence.0, after.0), each(evidence.1, after.1));
        let work = self.keys.work(rsa, ecdsa);
        let public_keys: f64 = work.iter().map(|one| one.count * one.each).sum();
        let (p50, commit, checkpoint) = (median(times.clone()), median(commits.clone()), median(checkpoints.clone()));
        let share = (p50 / micros(CHECKPOINT_EVERY)).min(1.0);
        let sum = public_keys + commit + share * checkpoint;
        let grown = memory.last().copied().unwrap_or(0).saturating_sub(memory.first().copied().unwrap_or(0));
        Ok(json!({
            "p50_us": p50, "sum_us": sum, "ratio": p50 / sum, "limit": 2.0,
            "public_keys_us": public_keys, "commit_us": commit, "checkpoint_us": checkpoint, "checkpoint_share": share,
            "work": work.iter().map(Operation::to_json).collect::<Vec<_>>(),
            "samples_us": times, "commit_samples_us": commits, "checkpoint_samples_us": checkpoints,
            "memory": { "connections": guests, "bytes_each": real(grown) / real(guests), "limit": 131_072,
                "samples_bytes": memory },
        }))
    }

    fn further_secret(&mut self, secrets: usize) -> Result<Value, CliError> {
        let client = self.clients.last().ok_or_else(|| broken("no guest"))?;
        let (mut times, mut commits) = (Vec::new(), Vec::new());
        for _ in 0..secrets {
            self.keys.round()?;
            let start = Instant::now();
            self.runtime.block_on(client.secret(&self.platform.path)).class(Class::Refused)?;
            times.push(micros(start.elapsed()));
            self.keys.round()?;
            commits.push(self.disk.commit()?);
        }
        let encapsulations = self.keys.encapsulations();
        let (p50, commit, hpke) = (median(times.clone()), median(commits.clone()), median(encapsulations.to_vec()));
        let sum = commit + hpke;
        Ok(json!({
            "p50_us": p50, "sum_us": sum, "ratio": p50 / sum, "limit": 1.3,
            "commit_us": commit, "encapsulation_us": hpke, "samples_us": times, "commit_samples_us": commits,
            "encapsulation_samples_us": encapsulations,
        }))
    }

    fn in_flight(&mut self) -> Result<Value, CliError> {
        let (mut one, mut many) = (Vec::new(), Vec::new());
        let ask = async |number: usize| {
            let client = &self.clients[number % self.clients.len()];
            client.secret(&self.platform.path).await.class(Class::Refused).map(|_| ())
        };
        for _ in 0..FLIGHTS {
            for (at_once, count, rates) in [(1, IN_FLIGHT, &mut one), (IN_FLIGHT, 4 * IN_FLIGHT, &mut many)] {
                let start = Instant::now();
                self.runtime.block_on(async {
                    let mut asked = stream::iter((0..count).map(ask)).buffer_unordered(at_once);
                    while let Some(answer) = asked.next().await {
                        answer?;
                    }
                    Ok::<_, CliError>(())
                })?;
                rates.push(real(count) / start.elapsed().as_secs_f64());
            }
        }
        let (alone, together) = (median(one.clone()), median(many.clone()));
        Ok(json!({
            "at_once": IN_FLIGHT, "per_second": together, "one_after_the_other_per_second": alone,
            "ratio": together / alone, "at_least": 3.0,
            "samples_per_second": many, "one_after_the_other_samples_per_second": one,
        }))
    }

    /// The yardstick is a call of a service that the listener does not offer: the same road, and nothing at its end. Every
    /// method that the listener offers looks into the database.
    fn get_meta(&mut self, calls: usize) -> Result<Value, CliError> {
        let profile = self.broker.profile()?;
        let tls =
            ClientTls::with_alpn(&profile.identity, PeerPin::Spki(profile.pins.clone()), coffer_kbs_client::ALPN_ADMIN);
        let tls = tls.class(Class::Internal)?;
        let channel = self.runtime.block_on(async {
            let stream = TcpStream::connect(&profile.address).await.class(Class::Unreachable)?;
            stream.set_nodelay(true).class(Class::Unreachable)?;
            connect_pinned(stream, &tls).await.map(|(channel, _)| channel).class(Class::Unreachable)
        })?;
        let mut nothing = kbs::v1::broker_client::BrokerClient::new(channel.clone());
        let mut admin = kbs::admin::v1::admin_client::AdminClient::new(channel);
        let (mut empty, mut metas) = (Vec::new(), Vec::new());
        for _ in 0..calls {
            let start = Instant::now();
            let request = kbs::v1::GetSecretRequest::default();
            match self.runtime.block_on(nothing.get_secret(request)) {
                Err(status) if status.code() == tonic::Code::Unimplemented => {}
                _ => return Err(broken("a service that is not offered answered")),
            }
            empty.push(micros(start.elapsed()));
            let start = Instant::now();
            let request =
                kbs::admin::v1::GetSecretMetaRequest { tenant: TENANT.into(), path: self.platform.path.to_string() };
            self.runtime.block_on(admin.get_secret_meta(request)).class(Class::Refused)?;
            metas.push(micros(start.elapsed()));
        }
        let (call, meta) = (median(empty.clone()), median(metas.clone()));
        Ok(json!({
            "p50_us": meta, "empty_call_p50_us": call, "ratio": call / meta, "at_least": 0.5,
            "samples_us": metas, "empty_call_samples_us": empty,
        }))
    }
}

/// What is said of a limit that is missed; a figure that is none misses it.
fn missed(held: bool) -> &'static str {
    if held { "" } else { ", missed" }
}

fn say(figures: &Value) {
    let number = |group: &str, name: &str| figures[group][name].as_f64().unwrap_or(f64::NAN);
    let operations = figures["first_secret"]["work"].as_array().into_iter().flatten();
    for one in operations {
        let (end, what) = (one["end"].as_str().unwrap_or_default(), one["operation"].as_str().unwrap_or_default());
        let (count, each) = (one["count"].as_f64().unwrap_or(0.0), one["each_us"].as_f64().unwrap_or(f64::NAN));
        println!("  {end:<7} {count:>4.1} x {what:<46} {each:>9.1} us");
    }
    println!("  {:<60} {:>9.1} us", "one durable commit", number("first_secret", "commit_us"));
    println!("  {:<60} {:>9.1} us", "one checkpoint write", number("first_secret", "checkpoint_us"));
    for (group, name) in [("first_secret", "connect, attest, secret"), ("further_secret", "a further secret")] {
        let (p50, sum, limit) = (number(group, "p50_us"), number(group, "sum_us"), number(group, "limit"));
        println!(
            "{name:<26} {p50:>9.0} us   {:>5.2} x   limit {limit} x of {sum:.0} us{}",
            p50 / sum,
            missed(p50 / sum <= limit)
        );
    }
    let (rate, ratio) = (number("in_flight", "per_second"), number("in_flight", "ratio"));
    println!(
        "{:<26} {rate:>9.0} /s   {ratio:>5.2} x   at least 3 x one after the other{}",
        "32 secrets at once",
        missed(ratio >= 3.0)
    );
    let (meta, ratio) = (number("get_meta", "p50_us"), number("get_meta", "ratio"));
    println!(
        "{:<26} {meta:>9.0} us   {ratio:>5.2} x   at least 0.5 x the rate of an empty call{}",
        "get-meta",
        missed(ratio >= 0.5)
    );
    let bytes = number("memory", "bytes_each");
    println!(
        "{:<26} {:>9.1} KiB            at most 128 KiB{}",
        "memory per connection",
        bytes / 1024.0,
        missed(bytes <= 131_072.0)
    );
    if figures["pinned"] != true {
        println!("broker and load shared processors: there is only one");
    }
}
