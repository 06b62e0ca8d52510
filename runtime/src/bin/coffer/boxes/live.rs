//! A box from start to end, as seen from the command that started it.

use std::process::ExitCode;

use coffer_rim::foreign;
use coffer_runtime::BoxRecord;
use coffer_runtime::boxes::Timings;
use coffer_runtime::engine::{
    Change, Engine, Events, Fault as _, Happening, Live, LogStream, LogsError, LogsRequest, RUNNING, Trust,
};
use coffer_runtime::supervisor::DEFAULT_GRACE;
use coffer_runtime::supervisor::control::Command;
use coffer_runtime::supervisor::message::Ended;
use coffer_spec::{Act, Tee};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::output::Output;
use crate::terminal;

/// How long a command stays with the box it starts.
#[derive(Clone, Debug)]
pub enum Stay {
    /// Until the workload runs.
    UntilRunning,
    /// Until it has ended, showing its output.
    ToTheEnd {
        /// Where.
        output: Output,
        /// Where only the owner may have the output, believe a simulated guest of this installation.
        allow_simulated: bool,
    },
}

/// What a script is told of an end, and the workload's exit code, or 0 if it runs.
pub fn ended(ended: Option<&Ended>) -> (Value, ExitCode) {
    let code = ended.map_or(0, |ended| ended.code);
    let told = serde_json::json!({ "exit_code": code, "why": ended.and_then(|ended| ended.error.as_deref()) });
    (told, ExitCode::from(u8::try_from(code).unwrap_or(125)))
}

/// Stays with a box, and hands it the signals we get. Gives how it ended, if it did.
pub async fn stay(engine: &Engine, live: &mut Live, stay: &Stay) -> Result<Option<Ended>, CliError> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut asked = 0;
    let mut owner_output = None;
    let reader_gone = matches!(stay, Stay::ToTheEnd { .. }).then(terminal::reader_gone);
    let mut unread = false;
    loop {
        let gone = async {
            match &reader_gone {
                Some(gone) => gone.notified().await,
                None => std::future::pending().await,
            }
        };
        let happening = tokio::select! {
            happening = live.next() => happening.map_err(error::of)?,
            _ = interrupts.recv() => { forward(live, &mut asked).await; continue }
            _ = terminations.recv() => { forward(live, &mut asked).await; continue }
            () = gone => {
                unread = true;
                kill(live).await;
                continue;
            }
        };
        match (happening, stay) {
            (Some(Happening::Phase(phase)), Stay::UntilRunning) if phase == RUNNING => return Ok(None),
            (Some(Happening::Phase(phase)), Stay::ToTheEnd { output, allow_simulated })
                if only_its_owner_sees(engine, live.record()) =>
            {
                if phase == "agent-ready" && *allow_simulated && owner_output.is_none() {
                    owner_output = Some(show_as_owner(engine, live.record(), output.clone()));
                } else if phase == RUNNING && !allow_simulated {
                    // Not before: of a box that is refused on its way, the refusal is all there is to say.
                    say_that_output_is_hidden(live.record());
                }
            }
            (Some(Happening::Output(piece)), Stay::ToTheEnd { output, .. }) => {
                output.show(&piece);
            }
            (Some(Happening::Exited(_)), _) if unread => return Ok(Some(unread_end())),
            (Some(Happening::Exited(ended)), _) => {
                finish(owner_output, &ended).await;
                return Ok(Some(ended));
            }
            (Some(_), _) => {}
            (None, _) => return Ok(None),
        }
    }
}

/// The first interrupt asks the guest to end, a second one does not ask.
async fn forward(live: &Live, asked: &mut u32) {
    *asked += 1;
    if *asked > 1 {
        kill(live).await;
    } else if let Err(error) = live.ask(Command::Stop(DEFAULT_GRACE)).await {
        tracing::warn!(%error, "the supervisor takes no commands");
    }
}

async fn kill(live: &Live) {
    if let Err(error) = live.ask(Command::Kill).await {
        tracing::warn!(%error, "the supervisor takes no commands");
    }
}

/// Of a command whose output nobody reads any more: as of a program that SIGPIPE ends.
fn unread_end() -> Ended {
    Ended { code: 128 + libc::SIGPIPE, error: None }
}

/// Stays with a box that was started before and elsewhere: shows what it writes from now on, and gives how it ended. It lives on
/// without us.
pub async fn join(
    engine: &Engine,
    record: &BoxRecord,
    output: &Output,
    allow_simulated: bool,
) -> Result<Ended, CliError> {
    let mut events = engine.events().map_err(error::of)?;
    // It may have ended before we looked.
    let found = engine.find(record.id.as_str()).map_err(error::of)?;
    let mut showing = None;
    if found.state.is_up() {
        if !only_its_owner_sees(engine, record) {
            showing = Some(show_from_now(engine, record, output.clone()));
        } else if allow_simulated {
            showing = Some(show_as_owner(engine, record, output.clone()));
        } else {
            say_that_output_is_hidden(record);
        }
    }
    let ended = if found.state.is_up() {
        let gone = terminal::reader_gone();
        tokio::select! {
            ended = until_it_ends(&mut events, record) => ended?,
            () = gone.notified() => return Ok(unread_end()),
        }
    } else {
        Ended { code: found.exit_code.unwrap_or(0), error: found.error }
    };
    finish(showing, &ended).await;
    Ok(ended)
}

async fn until_it_ends(events: &mut Events, record: &BoxRecord) -> Result<Ended, CliError> {
    loop {
        let event = events.next().await.map_err(error::of)?;
        match event.change {
            _ if event.id != record.id => {}
            Change::Exited { code, error } => return Ok(Ended { code, error }),
            Change::Removed => {
                let message = format!("{} has ended and was removed, and its exit code with it", record.name);
                return Err(CliError::new(Class::Config, message).hint("without --rm, `coffer inspect` shows it later"));
            }
            _ => {}
        }
    }
}

/// Waits a moment for output that is still on its way, and says why a box ended, where that was not the workload's own doing.
async fn finish(showing: Option<JoinHandle<()>>, ended: &Ended) {
    if let Some(showing) = showing {
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), showing).await;
    }
    if let Some(error) = &ended.error {
        eprintln!("coffer: {}", foreign(error));
    }
}

/// The host may not see the output of this simulated box. Its owner may, over RA-TLS, if told to believe the simulator.
fn only_its_owner_sees(engine: &Engine, record: &BoxRecord) -> bool {
    let host_may = || engine.document(record).map(|document| document.spec().host_may.contains(Act::Logs));
    record.options.tee == Tee::Simulated && matches!(host_may(), Ok(false))
}

fn say_that_output_is_hidden(record: &BoxRecord) {
    eprintln!(
        "coffer: the output of {} is its owner's, and this guest proves itself under a simulated root",
        record.name
    );
    eprintln!("hint: with --allow-simulated the simulator of this installation is believed, and the output shown");
}

fn show_as_owner(engine: &Engine, record: &BoxRecord, output: Output) -> JoinHandle<()> {
    let (engine, record) = (engine.clone(), record.clone());
    tokio::spawn(async move {
        let request = LogsRequest { tail: None, follow: true };
        let stream = engine.logs_as_owner(&record, request, &Trust::of_own_simulator(&record)).await;
        show_all(stream, &output).await;
    })
}

fn show_from_now(engine: &Engine, record: &BoxRecord, output: Output) -> JoinHandle<()> {
    let (engine, record) = (engine.clone(), record.clone());
    tokio::spawn(async move {
        let request = LogsRequest { tail: Some(0), follow: true };
        let stream = engine.logs(record.id.as_str(), request, &Trust::default()).await;
        show_all(stream, &output).await;
    })
}

async fn show_all(stream: Result<LogStream, LogsError>, output: &Output) {
    let shown = async {
        let mut stream = stream?;
        while let Some(piece) = stream.next().await? {
            output.show(&piece);
        }
        Ok::<_, LogsError>(())
    };
    if let Err(error) = shown.await {
        tracing::debug!(class = error.class().word(), "output");
        eprintln!("coffer: the output is not shown: {}", foreign(&error::of(error).message));
    }
}

/// Prints what each phase took.
pub fn print_timings(context: &Context, engine: &Engine, live: &Live) {
    // The record has the guest's own clock too, but a box made with --rm has no record any more.
    let recorded = engine.find(live.record().id.as_str()).ok().map(|record| record.timings);
    let timings = recorded.unwrap_or_else(|| live.timings().clone());
    if context.json {
        eprintln!("{}", serde_json::json!({ "timings": timings_json(&timings) }));
        return;
    }
    eprintln!("{:<16} {:>10} {:>10}", "PHASE", "TOOK", "AT");
    for (phase, took, at) in timings.durations() {
        eprintln!("{phase:<16} {:>7} ms {:>7} ms", took / 1000, at / 1000);
    }
}

/// Timings as `inspect` shows them.
pub fn timings_json(timings: &Timings) -> serde_json::Value {
    let steps = timings.steps.iter().zip(timings.durations()).map(|(step, (_, took, _))| {
        serde_json::json!({ "phase": step.phase, "took_us": took, "at_us": step.at_us, "guest_us": step.guest_us })
    });
    steps.collect()
}
