//! `coffer inject-secret`.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_rim::foreign;
use coffer_runtime::engine::{InjectRequest, VALUE_LIMIT};
use zeroize::Zeroizing;

use crate::boxes::logs::read_input;
use crate::context::Context;
use crate::error::{self, CliError};
use crate::prove::guest::Trust;

/// Write a value to /run/secrets/NAME of a guest that proves itself first, encrypted to that guest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  printf %s \"$TOKEN\" | coffer inject-secret web api-token --file -")]
pub struct Args {
    /// File with the value; - is standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    trust: Trust,
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
    /// Name of the value; the spec must list it (`--inject NAME`).
    #[arg(value_name = "NAME")]
    secret: String,
}

/// Injects it. Nothing that could be compared with a guess is printed: the guest's confirmation is checked, not shown.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    engine.may_inject(&args.name, &args.secret).map_err(error::of)?;
    let value = Zeroizing::new(read_input(Some(&args.file), VALUE_LIMIT as u64)?);
    let request = InjectRequest { name: args.secret.clone(), value };
    context.runtime()?.block_on(engine.inject(&args.name, &request, &trust)).map_err(error::of)?;
    if context.json {
        println!("{}", serde_json::json!({ "name": args.secret, "injected": true }));
    } else {
        println!("injected {} into {}", foreign(&args.secret), foreign(&args.name));
    }
    Ok(ExitCode::SUCCESS)
}
