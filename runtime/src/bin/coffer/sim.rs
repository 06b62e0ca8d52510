//! `coffer sim`: the simulated secure processor of this machine, evidence on demand, attacks, and a stand-in for AMD's KDS.
//!
//! Nothing here makes anybody believe simulated evidence: that takes the anchor, listed by whoever decides.

mod check;
mod evidence;
mod kds;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use coffer_runtime::simulator;
use coffer_simulator::Installation;
use coffer_simulator::attack::{ATTACKS, Attack, Expect};
use coffer_verifier::UnixTime;
use coffer_verifier::abi::ProductLine;
use serde_json::json;

use crate::cli::Context;
use crate::error::CliError;

/// Simulated evidence for development and CI.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the simulator's keys and print its anchors.
    Init(InitArgs),
    /// Write good evidence, or with --attack evidence with one thing wrong.
    Evidence(evidence::Args),
    /// List the attacks and the answer each must get.
    Attacks,
    /// Run all attacks against a verifier and print what it wrongly accepts.
    Check(check::Args),
    /// Serve AMD's key distribution paths for simulated chips.
    Kds(kds::Args),
}

#[derive(Debug, clap::Args)]
struct InitArgs {
    /// Product lines.
    #[arg(long, value_name = "NAME", default_values = ["milan", "genoa", "turin"])]
    product: Vec<ProductLine>,
}

/// Runs it.
pub fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Init(args) => init(&args, context),
        Command::Evidence(args) => evidence::run(&args, context),
        Command::Attacks => {
            attacks(context);
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(args) => check::run(&args, context),
        Command::Kds(args) => kds::run(&args, context),
    }
}

fn init(args: &InitArgs, context: &Context) -> Result<ExitCode, CliError> {
    let folder = folder(context);
    let installation = simulator::open_all(&folder, &args.product, true)?;
    let anchors: Vec<_> = installation.anchors().collect();
    if context.json {
        let list: Vec<_> = anchors
            .iter()
            .map(|anchor| {
                let ark = simulator::ark_file(&folder, anchor.product);
                json!({ "product": anchor.product, "spki_sha256": anchor.spki, "ark": ark })
            })
            .collect();
        println!("{}", json!({ "folder": folder, "anchors": list }));
    } else {
        println!("simulator at {}", folder.display());
        for anchor in anchors {
            println!("  {:<6} {}", anchor.product.name(), anchor.spki);
        }
        println!(
            "List an anchor where simulated evidence is to be believed: coffer verify --allow-simulated --anchor HEX …"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn attacks(context: &Context) {
    if context.json {
        println!("{}", json!(ATTACKS));
        return;
    }
    println!("{:<26} {:<10} {:<32} WHAT IS WRONG", "ATTACK", "GROUP", "MUST BE ANSWERED");
    for attack in ATTACKS {
        println!("{:<26} {:<10} {:<32} {}", attack.name, group(attack), expected(attack.expect), attack.what);
    }
}

fn group(attack: &Attack) -> String {
    format!("{:?}", attack.group).to_lowercase()
}

fn expected(expect: Expect) -> String {
    match expect {
        Expect::NotAuthentic => "not-authentic".to_owned(),
        Expect::Refused(policy) => format!("refused ({policy})"),
    }
}

fn folder(context: &Context) -> PathBuf {
    context.home.join("sim")
}

fn open(folder: &Path, product: ProductLine, vlek: bool) -> Result<Installation, CliError> {
    simulator::open_all(folder, &[product], vlek)
}

fn now() -> u64 {
    u64::try_from(UnixTime::from(std::time::SystemTime::now()).0).unwrap_or(0)
}
