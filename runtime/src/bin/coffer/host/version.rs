//! `coffer version`.

use std::env::consts::ARCH;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::format::{Fields, Format};

/// Print the version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer version
  coffer version --format '{{.Client.Version}}'
  coffer --json version")]
pub struct Args {
    /// Print it by a template, or as `json`: Client.Version Client.Arch Client.Os. There is no daemon, so Server has the same.
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Prints the version.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    let format = args.format.as_deref().map(|text| Format::of(text, &["Client", "Server"])).transpose()?;
    if let Some(format) = format.filter(|_| !context.json) {
        let ours = json!({ "Version": version, "Arch": ARCH, "Os": std::env::consts::OS });
        let row = Fields { value: json!({ "Client": ours, "Server": ours }), labels: Map::new() };
        format.print(&[row], &[])?;
    } else if context.json {
        println!("{}", json());
    } else {
        println!("coffer {version} ({})", ARCH);
    }
    Ok(ExitCode::SUCCESS)
}

/// For scripts.
pub fn json() -> Value {
    json!({ "version": env!("CARGO_PKG_VERSION"), "arch": ARCH })
}
