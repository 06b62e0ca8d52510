//! `coffer start`.

use std::process::ExitCode;

use coffer_runtime::boxes::Timings;
use coffer_runtime::monitor;
use coffer_runtime::supervisor::of_state;
use coffer_runtime::{BoxState, Home, State};

use crate::cli::Context;
use crate::error::{self, Class, CliError};
use crate::live::{self, Stay};

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
    let (home, state) = context.open_state()?;
    let runtime = context.runtime()?;
    if args.attach {
        let [name] = args.boxes.as_slice() else {
            return Err(CliError::new(Class::Usage, "--attach takes one box"));
        };
        let stay = Stay::ToTheEnd { allow_simulated: args.allow_simulated };
        return runtime.block_on(start(context, &home, &state, name, stay));
    }
    each(context, &args.boxes, |name| {
        runtime.block_on(start(context, &home, &state, name, Stay::UntilRunning)).map(drop)
    })
}

/// Starts one box that does not run; one that runs is left alone.
pub async fn start(
    context: &Context,
    home: &Home,
    state: &State,
    name: &str,
    stay: Stay,
) -> Result<ExitCode, CliError> {
    let mut record = state.find(name).map_err(of_state)?;
    if record.state == BoxState::Running {
        return Ok(ExitCode::SUCCESS);
    }
    monitor::of(record.options.isolation, &context.search)?.check()?;
    record.timings = Timings::start();
    Ok(live::start(context, home, &record, stay).await?.exit_code())
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
            Ok(()) => println!("{name}"),
            Err(failure) => {
                if let Some(before) = last.replace(failure) {
                    error::print(&before, context.json);
                }
            }
        }
    }
    last.map_or(Ok(ExitCode::SUCCESS), Err)
}
