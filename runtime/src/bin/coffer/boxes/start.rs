//! `coffer start`.

use std::process::ExitCode;

use coffer_rim::foreign;
use coffer_runtime::engine::{Engine, Started};

use crate::boxes::live::{self, Stay};
use crate::context::Context;
use crate::error::{self, Class, CliError};

/// Start boxes that are not running.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer start web
  coffer start --attach web")]
pub struct Args {
    /// Stay with the box and show its output; the exit code is its own.
    #[arg(short, long)]
    attach: bool,
    /// Believe the simulator of this installation, to show output that only the owner of a simulated box may read.
    #[arg(long, requires = "attach")]
    allow_simulated: bool,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Starts them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    if args.attach {
        let [name] = args.boxes.as_slice() else {
            return Err(CliError::new(Class::Usage, "--attach takes one box"));
        };
        return runtime.block_on(async {
            match engine.start(name).await.map_err(error::of)? {
                Started::AlreadyRunning(_) => Ok(ExitCode::SUCCESS),
                Started::Live(mut live) => {
                    let stay = Stay::ToTheEnd { allow_simulated: args.allow_simulated };
                    Ok(live::exit_code(live::stay(&engine, &mut live, stay).await?.as_ref()))
                }
            }
        });
    }
    each(context, &args.boxes, |name| {
        runtime.block_on(async {
            let started = engine.start(name).await.map_err(error::of)?;
            let_go(&engine, started).await
        })
    })
}

/// Waits until a box runs, and lets it live on.
pub async fn let_go(engine: &Engine, started: Started) -> Result<(), CliError> {
    let Started::Live(mut live) = started else { return Ok(()) };
    if live::stay(engine, &mut live, Stay::UntilRunning).await?.is_none() {
        live.detach().map_err(error::of)?;
    }
    Ok(())
}

/// Does something to each name, prints the names it was done to, and fails as the last failure does.
pub fn each(
    context: &Context,
    names: &[String],
    mut act: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let mut last = None;
    for name in names {
        match act(name) {
            Ok(()) => println!("{}", foreign(name)),
            Err(failure) => {
                if let Some(before) = last.replace(failure) {
                    error::print(&before, context.json);
                }
            }
        }
    }
    last.map_or(Ok(ExitCode::SUCCESS), Err)
}
