//! `coffer start`.

use std::process::ExitCode;

use coffer_runtime::BoxRecord;
use coffer_runtime::engine::{Engine, Started};

use crate::boxes::attach;
use crate::boxes::attend::{Attended, Ours};
use crate::boxes::flags::Monitor;
use crate::boxes::live::{self, Foreground, MANNER, Stay, Stayed};
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
  coffer start -ai shell
  coffer start --isolation kvm web")]
pub struct Args {
    /// Stay with the box, also with one that runs already, and show what it writes; the exit code is its own.
    #[arg(short, long)]
    attach: bool,
    /// And give its program our standard input, if it was made with -i.
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    attended: Attended,
    /// Believe the simulator of this installation, to show output that only the owner of a simulated box may read.
    #[arg(long)]
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
    if args.attach || args.interactive {
        let [name] = args.boxes.as_slice() else {
            return Err(CliError::new(Class::Usage, "--attach takes one box"));
        };
        let ended = runtime.block_on(stay(args, context, &engine, name));
        // A read of our terminal may still be pending; nobody waits for it.
        runtime.shutdown_background();
        return ended;
    }
    if args.allow_simulated {
        return Err(CliError::new(Class::Usage, "--allow-simulated is for --attach"));
    }
    Ok(each_box(context, &args.boxes, |name| {
        runtime.block_on(async {
            unproven::say_of_start(&engine, name);
            let started = engine.start(name, isolation).await.map_err(error::of)?;
            let_go(&engine, started).await
        })
    }))
}

/// Starts one, or finds it running, and stays with it.
async fn stay(args: &Args, context: &Context, engine: &Engine, name: &str) -> Result<ExitCode, CliError> {
    let allow_simulated = args.allow_simulated;
    let found = engine.find(name).map_err(error::of)?;
    let process = engine.document(&found).map_err(error::of)?.spec().process.clone();
    let ours = args.attended.ours(args.interactive && process.stdin_open, process.tty, MANNER);
    ours.check()?;
    let attaches = ours.input || ours.terminal && args.interactive;
    let trust = attaches.then(|| live::trust_to_attach(engine, &found, allow_simulated)).transpose()?;
    unproven::say_of_start(engine, name);
    let started = engine.start(name, args.isolation.map(Into::into)).await.map_err(error::of)?;
    let record: &BoxRecord = match &started {
        Started::AlreadyRunning(record) => record,
        Started::Live(live) => live.record(),
    };
    let output = Output::new(context, &serde_json::json!({ "id": record.id, "name": record.name }));
    let stayed = match (started, trust) {
        (Started::AlreadyRunning(record), Some(trust)) => {
            let ours = Ours { manner: attach::MANNER.proxied(ours.manner.proxied), ..ours };
            attach::stay((context, engine), &record, &ours, &output, &trust).await
        }
        (Started::AlreadyRunning(record), None) => live::join(engine, &record, &output, allow_simulated).await,
        (Started::Live(mut live), trust) => {
            // Without a word about input, a terminal is looked at.
            let terminal = ours.terminal && trust.is_some();
            let foreground = Foreground { output: output.clone(), allow_simulated, ours: Ours { terminal, ..ours } };
            let stayed = live::stay(engine, &mut live, &Stay::ToTheEnd(foreground)).await;
            if let Ok(Stayed::Left(_)) = &stayed {
                live.detach().map_err(error::of)?;
            }
            stayed
        }
    };
    output.end(context, stayed.map(|stayed| stayed.told()))
}

/// Waits until a box runs, and lets it live on.
pub async fn let_go(engine: &Engine, started: Started) -> Result<(), CliError> {
    let Started::Live(mut live) = started else { return Ok(()) };
    if let Stayed::Running = live::stay(engine, &mut live, &Stay::UntilRunning).await? {
        live.detach().map_err(error::of)?;
    }
    Ok(())
}
