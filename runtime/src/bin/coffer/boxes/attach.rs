//! `coffer attach`.

use std::process::ExitCode;

use coffer_runtime::BoxRecord;
use coffer_runtime::engine::{AttachRequest, Engine, Guest, Shown, Trust as MustProve};

use crate::boxes::attend::{Attended, End, Ours, attend};
use crate::boxes::live::{Stayed, until_it_ends};
use crate::context::Context;
use crate::error::{self, CliError};
use crate::output::Output;
use crate::prove::guest::Trust;
use crate::signals::Manner;
use crate::terminal::size;

/// Be at the program of a running box: see what it writes from now on, type at it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The program has our input where it was made with -i, and our terminal with -t. It goes on when we go, by the keys too; an end \
of our input is the end of its. Signals that we get go to it as they are; a second SIGTERM or ^C, and 10 s after SIGTERM, ends us alone.
The exit code is its own. Where the spec does not let the host attach, it is done as owner, in a guest that proves itself first.

Examples:
  coffer attach shell
  coffer attach --no-stdin --sig-proxy=false web"
)]
pub struct Args {
    /// Keep our standard input to ourselves.
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    attended: Attended,
    #[command(flatten)]
    trust: Trust,
    /// Name or id; or coffer://HOST:PORT of a guest elsewhere, with --reference.
    #[arg(value_name = "BOX")]
    name: String,
}

/// How we stand to a program that goes on without us.
pub const MANNER: Manner = Manner {
    proxied: true,
    interrupts: 2,
    goes_on: "coffer: the program has ^C and goes on; another one leaves it, `coffer stop` ends it",
};

/// Stays; the exit code is the program's.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let runtime = context.runtime()?;
    let guest = engine.guest(&args.name).map_err(error::of)?;
    let document = runtime.block_on(engine.document_run_by(&guest, &trust)).map_err(error::of)?;
    let process = &document.spec().process;
    let ours = args.attended.ours(process.stdin_open && !args.no_stdin, process.tty, MANNER);
    ours.check()?;
    let output = Output::new(context, &serde_json::json!({ "id": guest.id(), "name": guest.name() }));
    let stayed = runtime.block_on(async {
        match &guest {
            Guest::Here(record) => stay((context, &engine), record, &ours, &output, &trust).await,
            Guest::Elsewhere(_) => stay_elsewhere((context, &engine), &guest.name(), &ours, &output, &trust).await,
        }
    });
    // A read of our terminal may still be pending; nobody waits for it.
    runtime.shutdown_background();
    output.end(context, stayed.map(|stayed| stayed.told()))
}

/// To the program's end, or ours.
pub async fn stay(
    (context, engine): (&Context, &Engine),
    record: &BoxRecord,
    ours: &Ours,
    output: &Output,
    trust: &MustProve,
) -> Result<Stayed, CliError> {
    let mut events = engine.events().map_err(error::of)?;
    let request = AttachRequest { shown: Shown::FromNow, terminal: ours.terminal.then(size) };
    let session = engine.attach(record.id.as_str(), request, trust).await.map_err(error::of)?;
    context.taken();
    let attended = attend(session, ours, output).await;
    let mut recorded = async || tokio::time::timeout(GONE, until_it_ends(&mut events, record)).await;
    let end = match attended {
        Ok(end @ End::Exited(_)) => {
            // Whoever waits for us finds it ended.
            let _ = recorded().await;
            end
        }
        Ok(end) => {
            say(end, ours);
            end
        }
        // The box may have been ended beneath the program, which then had no time to say how.
        Err(failure) => {
            return recorded().await.ok().and_then(Result::ok).map(Stayed::Ended).ok_or(failure);
        }
    };
    Ok(Stayed::Left(end))
}

/// At a program of which nothing is known here: how it ended is its guest's word, and where the line breaks off there is none.
async fn stay_elsewhere(
    (context, engine): (&Context, &Engine),
    name: &str,
    ours: &Ours,
    output: &Output,
    trust: &MustProve,
) -> Result<Stayed, CliError> {
    let request = AttachRequest { shown: Shown::FromNow, terminal: ours.terminal.then(size) };
    let session = engine.attach(name, request, trust).await.map_err(error::of)?;
    context.taken();
    let end = attend(session, ours, output).await?;
    say(end, ours);
    Ok(Stayed::Left(end))
}

/// Of an end that is ours, and not the program's.
fn say(end: End, ours: &Ours) {
    if ours.manner.proxied
        && !matches!(end, End::Exited(_))
        && let Some(said) = end.said("it goes on")
    {
        eprintln!("{said}");
    }
}

/// How long a box takes to be recorded as ended after its guest is gone.
const GONE: std::time::Duration = std::time::Duration::from_secs(5);
