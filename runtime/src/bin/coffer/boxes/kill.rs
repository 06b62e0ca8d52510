//! `coffer kill`.

use std::process::ExitCode;

use coffer_runtime::engine::{Guest, KillError, StopError};
use coffer_spec::Act;

use crate::boxes::to_stop;
use crate::context::Context;
use crate::error::{self, CliError};
use crate::prove::guest::Trust;
use crate::several::each_box;

/// Send the programs of running boxes a signal; KILL ends a box at once.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A box with a TEE takes KILL and its own stop signal from its host, and others where the host may exec; else they are sent as owner, \
to a guest that proves itself first.

Examples:
  coffer kill web
  coffer kill -s HUP web db"
)]
pub struct Args {
    /// Name or number.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    #[command(flatten)]
    trust: Trust,
    /// Names, ids, or coffer://HOST:PORT of guests elsewhere, with --reference.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Sends it to each; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let signal = to_stop::signal(&args.signal)?;
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    let trust = args.trust.read()?;
    Trust::tells_apart(&trust, args.boxes.iter().map(String::as_str))?;
    let kill = |name: &str| {
        let as_owner = || runtime.block_on(engine.signal_as_owner(name, signal, &trust)).map_err(error::of);
        if args.trust.is_given() || Guest::is_elsewhere(name) {
            return as_owner();
        }
        match runtime.block_on(engine.kill(name, signal)) {
            Err(KillError::Stop(StopError::HostMayNot { act: Act::Exec, .. })) => as_owner(),
            killed => killed.map_err(error::of),
        }
    };
    Ok(each_box(context, &args.boxes, kill))
}
