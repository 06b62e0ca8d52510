//! `coffer sim`: the simulated secure processor of this machine, evidence on demand, attacks, and a stand-in for AMD's KDS.
//!
//! Nothing here makes anybody believe simulated evidence: that takes the anchor, listed by whoever decides.

mod check;
mod evidence;
mod kds;

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_runtime::simulator;
use coffer_simulator::Installation;
use coffer_simulator::attack::{ATTACKS, Attack, Expect};
use coffer_verifier::UnixTime;
use coffer_verifier::abi::ProductLine;
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;
use crate::row::Entry;

/// Make simulated evidence and attacks, and check verifiers with them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer sim evidence --out evidence
  coffer sim check --cmd 'my-verifier \"$COFFER_EVIDENCE\"'")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    command!("init": InitArgs => init),
    command!("evidence": evidence),
    command!("attacks": AttacksArgs => attacks),
    command!("check": check),
    command!("kds": kds),
];

/// Make the simulator's keys and print its anchors.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer sim init --product milan")]
struct InitArgs {
    /// Product lines.
    #[arg(long, value_name = "NAME", default_values = ["milan", "genoa", "turin"])]
    product: Vec<ProductLine>,
}

/// List the attacks and the answer each must get.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer sim attacks --json")]
struct AttacksArgs {}

fn init(args: &InitArgs, context: &Context) -> Result<ExitCode, CliError> {
    let folder = folder(context);
    let installation = open_all(&args.product, true, context)?;
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
            let ark = simulator::ark_file(&folder, anchor.product);
            println!("  {:<6} {}  {}", anchor.product.name(), anchor.spki, ark.display());
        }
        println!(
            "List an anchor, or its certificate, where simulated evidence is to be believed: coffer verify --allow-simulated --anchor HEX|FILE …"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn attacks(_: &AttacksArgs, context: &Context) -> Result<ExitCode, CliError> {
    if context.json {
        println!("{}", json!(ATTACKS));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<26} {:<10} {:<32} WHAT IS WRONG", "ATTACK", "GROUP", "MUST BE ANSWERED");
    for attack in ATTACKS {
        println!("{:<26} {:<10} {:<32} {}", attack.name, group(attack), expected(attack.expect), attack.what);
    }
    Ok(ExitCode::SUCCESS)
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

/// This installation's simulator. Where its keys are to be made, which takes seconds, people are told so.
fn open_all(products: &[ProductLine], vlek: bool, context: &Context) -> Result<Installation, CliError> {
    let folder = folder(context);
    if !context.json && !simulator::has_all(&folder, products, vlek) {
        let names: Vec<_> = products.iter().map(ToString::to_string).collect();
        eprintln!("coffer: making the simulator's keys for {}: some seconds", names.join(", "));
    }
    simulator::open_all(&folder, products, vlek)
}

fn now() -> u64 {
    u64::try_from(UnixTime::from(std::time::SystemTime::now()).0).unwrap_or(0)
}
