//! A box from start to end, as seen from the command that started it.

use std::io::Write as _;
use std::process::ExitCode;

use coffer_rim::{foreign, out};
use coffer_runtime::boxes::Timings;
use coffer_runtime::engine::{Engine, Fault as _, Happening, Live, LogsRequest, RUNNING, Trust};
use coffer_runtime::supervisor::DEFAULT_GRACE;
use coffer_runtime::supervisor::control::Command;
use coffer_runtime::supervisor::message::{Ended, LogPiece};
use coffer_spec::{Act, Tee};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::error::{self, CliError};

/// How long a command stays with the box it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Until the workload runs.
    UntilRunning,
    /// Until it has ended, showing its output.
    ToTheEnd {
        /// Where only the owner may have the output, believe a simulated guest of this installation.
        allow_simulated: bool,
    },
}

/// The workload's exit code, or 0 if it runs.
pub fn exit_code(ended: Option<&Ended>) -> ExitCode {
    ExitCode::from(u8::try_from(ended.map_or(0, |ended| ended.code)).unwrap_or(125))
}

/// Stays with a box, and hands it the signals we get. Gives how it ended, if it did.
pub async fn stay(engine: &Engine, live: &mut Live, stay: Stay) -> Result<Option<Ended>, CliError> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut asked = 0;
    let mut owner_output = None;
    loop {
        let happening = tokio::select! {
            happening = live.next() => happening.map_err(error::of)?,
            _ = interrupts.recv() => { forward(live, &mut asked).await; continue }
            _ = terminations.recv() => { forward(live, &mut asked).await; continue }
        };
        match (happening, stay) {
            (Some(Happening::Phase(phase)), Stay::UntilRunning) if phase == RUNNING => return Ok(None),
            (Some(Happening::Phase(phase)), Stay::ToTheEnd { allow_simulated })
                if phase == "agent-ready" && owner_output.is_none() =>
            {
                owner_output = owners_output(engine, live, allow_simulated);
            }
            (Some(Happening::Output(piece)), Stay::ToTheEnd { .. }) => print(&piece),
            (Some(Happening::Exited(ended)), _) => {
                if let Some(output) = owner_output {
                    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), output).await;
                }
                if let Some(error) = &ended.error {
                    eprintln!("coffer: {}", foreign(error));
                }
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
    let command = if *asked == 1 { Command::Stop(DEFAULT_GRACE) } else { Command::Kill };
    if let Err(error) = live.ask(command).await {
        tracing::warn!(%error, "the supervisor takes no commands");
    }
}

/// Prints output to the stream it came from, as it is: it is the workload's own.
pub fn print(piece: &LogPiece) {
    let bytes = piece.bytes();
    if piece.is_stderr() {
        let _ = std::io::stderr().write_all(&bytes);
    } else {
        out::write_bytes(&bytes);
    }
}

/// Where the host may not see the output of a simulated box, the local owner may, over RA-TLS, if told to believe the
/// simulator.
fn owners_output(engine: &Engine, live: &Live, allow_simulated: bool) -> Option<JoinHandle<()>> {
    let record = live.record().clone();
    if record.options.tee != Tee::Simulated {
        return None;
    }
    let document = engine.document(&record).ok()?;
    if document.spec().host_may.contains(Act::Logs) {
        return None;
    }
    if !allow_simulated {
        eprintln!(
            "coffer: the output of {} is its owner's, and this guest proves itself under a simulated root",
            record.name
        );
        eprintln!("hint: with --allow-simulated the simulator of this installation is believed, and the output shown");
        return None;
    }
    let engine = engine.clone();
    Some(tokio::spawn(async move {
        let request = LogsRequest { tail: None, follow: true };
        let shown = async {
            let mut output = engine.logs_as_owner(&record, request, &Trust::of_own_simulator(&record)).await?;
            while let Some(piece) = output.next().await? {
                print(&piece);
            }
            Ok::<_, coffer_runtime::engine::LogsError>(())
        };
        if let Err(error) = shown.await {
            tracing::debug!(class = error.class().word(), "output as owner");
            eprintln!("coffer: the output is not shown: as owner: {}", foreign(&error::of(error).message));
        }
    }))
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
