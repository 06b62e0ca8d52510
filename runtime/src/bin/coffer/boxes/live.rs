//! A box from start to end, as seen from the command that started it.

use std::io::Write as _;
use std::process::ExitCode;

use coffer_rim::foreign;
use coffer_runtime::attach::Attached;
use coffer_runtime::boxes::{Timings, files, last_line};
use coffer_runtime::supervisor::DEFAULT_GRACE;
use coffer_runtime::supervisor::control::{self, Command};
use coffer_runtime::supervisor::message::{Ended, LogPiece, Message};
use coffer_runtime::{BoxId, BoxRecord, BoxState, Home, State};
use coffer_spec::{Act, Document, Tee};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Context;
use crate::error::{Class, CliError};

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

/// What became of the box while we stayed.
#[derive(Debug)]
pub struct Stayed {
    ended: Option<Ended>,
    timings: Timings,
}

impl Stayed {
    /// The workload's exit code, or 0 if it runs.
    pub fn exit_code(&self) -> ExitCode {
        let code = self.ended.as_ref().map_or(0, |ended| ended.code);
        ExitCode::from(u8::try_from(code).unwrap_or(125))
    }
}

/// Starts a recorded box.
pub async fn start(context: &Context, home: &Home, record: &BoxRecord, stay: Stay) -> Result<Stayed, CliError> {
    let folder = home.box_folder(&record.id);
    let mut supervisor = Attached::start(&context.exe()?, home, &record.id, record.timings.origin_unix_us)?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut timings = record.timings.clone();
    let mut asked = 0;
    let mut owner_output = None;
    loop {
        let message = tokio::select! {
            message = supervisor.next() => message,
            _ = interrupts.recv() => { forward(&folder, &mut asked).await; continue }
            _ = terminations.recv() => { forward(&folder, &mut asked).await; continue }
        };
        match message {
            Some(Message::Phase(step)) => {
                let phase = step.phase.clone();
                timings.steps.push(step);
                if phase == "agent-ready"
                    && let Stay::ToTheEnd { allow_simulated } = stay
                    && owner_output.is_none()
                {
                    owner_output = owners_output(context, home, record, allow_simulated);
                }
                if phase == "running" && stay == Stay::UntilRunning {
                    supervisor.detach()?;
                    return Ok(Stayed { ended: None, timings });
                }
            }
            Some(Message::Log(piece)) => {
                if matches!(stay, Stay::ToTheEnd { .. }) {
                    print(&piece);
                }
            }
            Some(Message::Failed(failure)) => {
                supervisor.finished().await;
                return Err(failure);
            }
            Some(Message::Exited(ended)) => {
                supervisor.finished().await;
                if let Some(output) = owner_output {
                    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), output).await;
                }
                if let Some(error) = &ended.error {
                    eprintln!("coffer: {error}");
                }
                return Ok(Stayed { ended: Some(ended), timings });
            }
            None => {
                supervisor.finished().await;
                let words = last_line(&folder.join(files::SUPERVISOR_LOG)).map(|line| foreign(&line).into_owned());
                // It may have been killed: mend its record, so that what we say and what `ps` says agree.
                let _ = context.open_state();
                let said = words.map_or_else(String::new, |words| format!("; it last said {words:?}"));
                let message = format!("supervisor died; the box was stopped with it{said}");
                return Err(CliError::new(Class::Internal, message));
            }
        }
    }
}

/// The first interrupt asks the guest to end, a second one does not ask.
async fn forward(folder: &std::path::Path, asked: &mut u32) {
    *asked += 1;
    let command = if *asked == 1 { Command::Stop(DEFAULT_GRACE) } else { Command::Kill };
    if let Err(error) = control::send(folder, command).await {
        tracing::warn!(%error, "the supervisor takes no commands");
    }
}

/// Prints output to the stream it came from.
pub fn print(piece: &LogPiece) {
    let bytes = piece.bytes();
    if piece.is_stderr() {
        let _ = std::io::stderr().write_all(&bytes);
    } else {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(&bytes).and_then(|()| stdout.flush());
    }
}

/// Where the host may not see the output of a simulated box, the local owner may, over RA-TLS, if told to believe the
/// simulator.
fn owners_output(
    context: &Context,
    home: &Home,
    record: &BoxRecord,
    allow_simulated: bool,
) -> Option<tokio::task::JoinHandle<()>> {
    if record.options.tee != Tee::Simulated {
        return None;
    }
    let bytes = std::fs::read(home.box_folder(&record.id).join(coffer_runtime::boxes::files::SPEC)).ok()?;
    let document = Document::parse(bytes).ok()?;
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
    // The record was read before the start; the guest asks for nothing better than to be asked now.
    let record = BoxRecord { state: BoxState::Running, ..record.clone() };
    let (context, home) = (context.clone(), home.clone());
    Some(tokio::spawn(async move {
        if let Err(error) = crate::logs::follow_as_owner(&context, &home, &record).await {
            eprintln!("coffer: the output is not shown: {}", error.message);
        }
    }))
}

/// Prints what each phase took.
pub fn print_timings(context: &Context, state: &State, id: &BoxId, stayed: Option<&Stayed>) {
    // The record has the guest's own clock too, but a box made with --rm has no record any more.
    let recorded = state.box_of(id).ok().map(|record| record.timings);
    let Some(timings) = recorded.or_else(|| stayed.map(|stayed| stayed.timings.clone())) else { return };
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
