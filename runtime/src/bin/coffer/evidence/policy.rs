//! `coffer policy`: what authors of Rego do before a policy decides anything. None of these commands decides or releases.

mod endorse;
mod explain;
mod input;
mod lint;
mod show;
mod sign;
mod test;
mod try_on;

use crate::row::Entry;

/// Show, test, explain, check and sign Rego policies.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer policy show azure-cvm > team.rego
  coffer policy lint team.rego floor.toml
  coffer policy test team.rego team_test.rego
  coffer policy explain team.rego --input input.json")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    command!("show": show),
    command!("lint": lint),
    command!("test": test),
    command!("input": input),
    command!("explain": explain),
    command!("try": try_on),
    command!("keygen": sign::KeygenArgs => sign::keygen),
    command!("sign": sign),
    command!("re-endorse": endorse),
];
