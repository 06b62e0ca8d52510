//! `coffer start`.

use std::process::ExitCode;

use coffer_runtime::BoxRecord;
use coffer_runtime::engine::{Engine, Started};

use crate::boxes::flags::Monitor;
use crate::boxes::live::{self, Stay};
use crate::boxes::unproven;
use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::output::Output;
use crate::several::each_box;

/// Start boxes that are not running.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer start web
  coffer start --attach web
  coffer start --isolation kvm web")]
pub struct Args {
    /// Stay with the box, also with one that runs already, and show what it writes; the exit code is its own.
    #[arg(short, long)]
    attach: bool,
    /// Believe the simulator of this installation, to show output that only the owner of a simulated box may read.
    #[arg(long, requires = "attach")]
    allow_simulated: bool,
    /// What isolates the boxes from now on; one with a TEE keeps the launch form it was measured by.
    #[arg(long, value_enum, value_name = "KIND", help = "What isolates the boxes from now on [default: as before]")]
    isolation: Option<Monitor>,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Starts them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    let isolation = args.isolation.map(Into::into);
    if args.attach {
        let [name] = args.boxes.as_slice() else {
            return Err(CliError::new(Class::Usage, "--attach takes one box"));
        };
        return runtime.block_on(async {
            let allow_simulated = args.allow_simulated;
            unproven::say_of_start(&engine, name);
            let started = engine.start(name, isolation).await.map_err(error::of)?;
            let record: &BoxRecord = match &started {
                Started::AlreadyRunning(record) => record,
                Started::Live(live) => live.record(),
            };
            let output = Output::new(context, &serde_json::json!({ "id": record.id, "name": record.name }));
            let ended = match started {
                Started::AlreadyRunning(record) => {
                    live::join(&engine, &record, &output, allow_simulated).await.map(Some)
                }
                Started::Live(mut live) => {
                    let stay = Stay::ToTheEnd { output: output.clone(), allow_simulated };
                    live::stay(&engine, &mut live, &stay).await
                }
            };
            output.end(context, ended.map(|ended| live::ended(ended.as_ref())))
        });
    }
    Ok(each_box(context, &args.boxes, |name| {
        runtime.block_on(async {
            unproven::say_of_start(&engine, name);
            let started = engine.start(name, isolation).await.map_err(error::of)?;
            let_go(&engine, started).await
        })
    }))
}

/// Waits until a box runs, and lets it live on.
pub async fn let_go(engine: &Engine, started: Started) -> Result<(), CliError> {
    let Started::Live(mut live) = started else { return Ok(()) };
    if live::stay(engine, &mut live, &Stay::UntilRunning).await?.is_none() {
        live.detach().map_err(error::of)?;
    }
    Ok(())
}
