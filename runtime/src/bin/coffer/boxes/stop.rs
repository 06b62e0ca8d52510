//! `coffer stop`.

use std::process::ExitCode;

use coffer_rim::foreign;
use coffer_runtime::engine::Guest;

use crate::boxes::to_stop::ToStop;
use crate::context::Context;
use crate::error::{self, CliError};
use crate::prove::guest::Trust;
use crate::several::each_box;

/// Stop running boxes: their stop signal, then the power.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer stop web
  coffer stop -t 30 web db
  coffer stop -s INT web
  coffer stop coffer://host.example:7443 --reference web.json")]
pub struct Args {
    #[command(flatten)]
    what: ToStop,
    #[command(flatten)]
    trust: Trust,
}

/// Stops them; goes on after an error. A box that does not run is stopped already.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let how = args.what.how()?;
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    let trust = args.trust.read()?;
    Trust::tells_apart(&trust, args.what.boxes.iter().map(String::as_str))?;
    let stop = |name: &str| {
        if args.trust.is_given() || Guest::is_elsewhere(name) {
            return runtime.block_on(engine.stop_elsewhere(name, how, &trust)).map_err(error::of);
        }
        let ended = runtime.block_on(engine.stop(name, how)).map_err(error::of)?;
        if let Some(wrong) = ended {
            eprintln!("coffer: warning: {}: {}", foreign(name), foreign(&wrong));
        }
        Ok(())
    };
    Ok(each_box(context, &args.what.boxes, stop))
}
