//! A box from start to end, as seen from the command that started it.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use coffer_rim::foreign;
use coffer_runtime::BoxRecord;
use coffer_runtime::boxes::Timings;
use coffer_runtime::engine::{
    AttachRequest, Engine, Events, Fault as _, Happening, Live, LogStream, LogsError, LogsRequest, RUNNING, Shown,
    Trust,
};
use coffer_runtime::supervisor::DEFAULT_GRACE;
use coffer_runtime::supervisor::control::Command;
use coffer_runtime::supervisor::message::Ended;
use coffer_spec::{Act, Tee};
use serde_json::Value;
use tokio::sync::Notify;

use crate::boxes::attend::{End, Ours, attend_with, say_lost};
use crate::boxes::way::{AFTERMATH, Way, ask};
use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::output::Output;
use crate::signals::{self, Heard, Manner, Patience, Signals, Then, until};
use crate::terminal;

/// The phase in which the agent answers.
const AGENT_READY: &str = "agent-ready";

/// How long a command stays with the box it starts.
#[derive(Clone, Debug)]
pub enum Stay {
    /// Until the workload runs.
    UntilRunning,
    /// Until it has ended, showing its output.
    ToTheEnd(Foreground),
}

/// What of ours a box gets that runs in the foreground.
#[derive(Clone, Debug)]
pub struct Foreground {
    /// Where its output goes.
    pub output: Output,
    /// Where only the owner may have the output, believe a simulated guest of this installation.
    pub allow_simulated: bool,
    /// Standard input, terminal and signals.
    pub ours: Ours,
}

/// How staying ended.
#[derive(Clone, Debug)]
pub enum Stayed {
    /// The workload runs.
    Running,
    /// It has ended.
    Ended(Ended),
    /// It goes on without us.
    Left(End),
}

impl Stayed {
    /// What a script is told, and our exit code: the workload's, or 0 if it runs.
    pub fn told(&self) -> (Value, ExitCode) {
        match self {
            Self::Running => ended(None),
            Self::Ended(how) => ended(Some(how)),
            Self::Left(end) => end.told(),
        }
    }
}

/// How we stand to the program of a box that we started.
pub const MANNER: Manner = Manner {
    proxied: true,
    interrupts: 2,
    goes_on: "coffer: the program has ^C and goes on; another one ends the box, and so does `coffer stop`",
};

/// What a script is told of an end, and the workload's exit code, or 0 if it runs.
fn ended(ended: Option<&Ended>) -> (Value, ExitCode) {
    let code = ended.map_or(0, |ended| ended.code);
    let told = serde_json::json!({ "exit_code": code, "why": ended.and_then(|ended| ended.error.as_deref()) });
    (told, ExitCode::from(u8::try_from(code).unwrap_or(125)))
}

impl Stay {
    /// The signals that we get from now on, for [`stay_with`].
    ///
    /// # Errors
    /// `internal` if they cannot be waited for.
    pub fn signals(&self) -> Result<Signals, CliError> {
        Ok(match self {
            Self::UntilRunning => signals::coming(MANNER.proxied(false), false)?,
            Self::ToTheEnd(stay) => signals::coming(stay.ours.manner, !stay.ours.terminal)?,
        })
    }
}

/// Stays with a box, and hands it the signals we get.
pub async fn stay(engine: &Engine, live: &mut Live, stay: &Stay) -> Result<Stayed, CliError> {
    let signals = stay.signals()?;
    stay_with(engine, live, stay, signals).await
}

/// Stays with a box, and hands it the signals we get, and those that came before it was there.
pub async fn stay_with(engine: &Engine, live: &mut Live, stay: &Stay, signals: Signals) -> Result<Stayed, CliError> {
    match stay {
        Stay::UntilRunning => until_running(live, signals).await,
        Stay::ToTheEnd(ours) => Box::pin(to_the_end(engine, live, ours, signals)).await,
    }
}

/// A signal before it runs ends it.
async fn until_running(live: &mut Live, mut signals: Signals) -> Result<Stayed, CliError> {
    let mut asked = false;
    loop {
        let happening = tokio::select! {
            happening = live.next() => happening.map_err(error::of)?,
            Some(_) = signals.recv() => {
                ask(live, if asked { Command::Kill } else { Command::Stop(DEFAULT_GRACE) }).await;
                asked = true;
                continue;
            }
        };
        match happening {
            Some(Happening::Phase(phase)) if phase == RUNNING => return Ok(Stayed::Running),
            Some(Happening::Exited(ended)) => return Ok(finish(None, ended).await),
            Some(_) => {}
            None => return Ok(Stayed::Running),
        }
    }
}

async fn to_the_end(
    engine: &Engine,
    live: &mut Live,
    stay: &Foreground,
    mut signals: Signals,
) -> Result<Stayed, CliError> {
    let manner = stay.ours.manner;
    let (mut heard, mut patience, mut deadline) = (Heard::nothing(manner), Patience::new(manner.goes_on), None);
    let mut way = Way::new(engine, live.record(), stay.allow_simulated);
    let reader_gone = terminal::reader_gone();
    let (mut unread, mut owner_output) = (false, None);
    let owners = only_its_owner_sees(engine, live.record());
    loop {
        let happening = tokio::select! {
            happening = live.next() => happening.map_err(error::of)?,
            Some(number) = signals.recv() => {
                match heard.hear(number) {
                    Then::End if !manner.proxied => return Ok(Stayed::Left(End::Told(number))),
                    Then::End => {
                        ask(live, Command::Kill).await;
                        continue;
                    }
                    Then::Go => {}
                    Then::Grace => deadline = Some(tokio::time::Instant::now() + signals::GRACE),
                }
                if way.hand_on(live, number).await && heard.is_last_but_one(number) {
                    patience.begin();
                }
                continue;
            }
            () = until(deadline) => {
                deadline = None;
                said(End::Told(libc::SIGTERM));
                ask(live, Command::Kill).await;
                continue;
            }
            () = patience.say() => continue,
            () = reader_gone.notified() => {
                unread = true;
                ask(live, Command::Kill).await;
                continue;
            }
        };
        match happening {
            Some(Happening::Phase(phase)) if phase == AGENT_READY && (stay.ours.input || stay.ours.terminal) => {
                return Box::pin(attached(engine, live, stay, signals)).await;
            }
            Some(Happening::Phase(phase)) => {
                way.runs |= phase == RUNNING;
                if owners && phase == AGENT_READY && stay.allow_simulated && owner_output.is_none() {
                    owner_output = Some(show_as_owner(engine, live.record(), stay.output.clone()));
                } else if owners && phase == RUNNING && !stay.allow_simulated {
                    // Not before: of a box that is refused on its way, the refusal is all there is to say.
                    say_that_output_is_hidden(live.record());
                }
            }
            Some(Happening::Output(piece)) => {
                // Word that it runs may come behind.
                way.runs = true;
                if !stay.output.show(&piece) && !unread {
                    unread = true;
                    ask(live, Command::Kill).await;
                }
            }
            Some(Happening::Lost(bytes)) => say_lost(bytes),
            Some(Happening::Exited(_)) if unread => return Ok(Stayed::Ended(unread_end())),
            Some(Happening::Exited(ended)) => return Ok(finish(owner_output, ended).await),
            None => return Ok(Stayed::Running),
        }
    }
}

/// With our input, or our terminal, at the program; what it writes comes from there.
async fn attached(engine: &Engine, live: &mut Live, stay: &Foreground, signals: Signals) -> Result<Stayed, CliError> {
    let record = live.record().clone();
    let trust = trust_to_attach(engine, &record, stay.allow_simulated)?;
    let terminal = stay.ours.terminal.then(terminal::size);
    let request = AttachRequest { shown: Shown::FromBeginning, terminal };
    let session = engine.attach_started(&record, request, &trust).await.map_err(error::of)?;
    let attending = attend_with(session, signals, &stay.ours, &stay.output);
    tokio::pin!(attending);
    let (mut unread, mut left, mut deadline) = (false, None, None);
    loop {
        tokio::select! {
            end = &mut attending, if left.is_none() => {
                match &end {
                    Ok(end @ End::Detached) => {
                        said(*end);
                        return Ok(Stayed::Left(*end));
                    }
                    Ok(End::Told(number)) if !stay.ours.manner.proxied => return Ok(Stayed::Left(End::Told(*number))),
                    Ok(end @ End::Told(_)) => {
                        said(*end);
                        ask(live, Command::Kill).await;
                    }
                    Ok(End::ReaderGone) => {
                        unread = true;
                        ask(live, Command::Kill).await;
                    }
                    // The box says how it ended, and if it does not end, this is why we leave.
                    Ok(End::Exited(_)) => {}
                    Err(_) => deadline = Some(tokio::time::Instant::now() + AFTERMATH),
                }
                left = Some(end);
            }
            happening = live.next() => match happening.map_err(error::of)? {
                Some(Happening::Exited(_)) if unread => return Ok(Stayed::Ended(unread_end())),
                Some(Happening::Exited(ended)) => {
                    if left.is_none() {
                        // What it wrote last may still be on its way.
                        let _ = tokio::time::timeout(AFTERMATH, &mut attending).await;
                    }
                    return Ok(finish(None, ended).await);
                }
                Some(_) => {}
                None => return Ok(Stayed::Running),
            },
            () = until(deadline) => match left {
                Some(Err(error)) => return Err(error),
                _ => deadline = None,
            },
        }
    }
}

/// What a guest must prove before we attach to it.
pub fn trust_to_attach(engine: &Engine, record: &BoxRecord, allow_simulated: bool) -> Result<Trust, CliError> {
    let document = engine.document(record).map_err(error::of)?;
    Trust::to_attach(&document, record, allow_simulated).ok_or_else(|| {
        let (message, hint) = match record.options.tee {
            Tee::Simulated => ("is its owner's, and this guest proves itself under a simulated root", BELIEVE),
            _ => ("is its owner's, and this guest has to prove itself first", LEAVE),
        };
        CliError::new(Class::Refused, format!("the input and the terminal of {} {message}", record.name)).hint(hint)
    })
}

const BELIEVE: &str = "with --allow-simulated the simulator of this installation is believed";
const LEAVE: &str = "leave it running with -d, then `coffer attach BOX` says what it must prove";

fn said(end: End) {
    if let Some(said) = end.said("it is killed") {
        eprintln!("{said}");
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
) -> Result<Stayed, CliError> {
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
            () = gone.notified() => return Ok(Stayed::Ended(unread_end())),
        }
    } else {
        Ended { code: found.exit_code.unwrap_or(0), error: found.error }
    };
    Ok(finish(showing, ended).await)
}

/// How a box ended that we did not start, whose events are heard since before it was looked at.
pub async fn until_it_ends(events: &mut Events, record: &BoxRecord) -> Result<Ended, CliError> {
    loop {
        let line = events.next().await.map_err(error::of)?;
        if !line.boxes.iter().any(|found| found.id == record.id.as_str()) {
            continue;
        }
        match line.action.as_str() {
            "box.die" => {
                let code = line.details.get("exit_code").and_then(Value::as_i64).unwrap_or(0);
                let error = line.details.get("error").and_then(Value::as_str).map(str::to_owned);
                return Ok(Ended { code: i32::try_from(code).unwrap_or(125), error });
            }
            "box.destroy" => {
                let message = format!("{} has ended and was removed, and its exit code with it", record.name);
                return Err(CliError::new(Class::Config, message).hint("without --rm, `coffer inspect` shows it later"));
            }
            _ => {}
        }
    }
}

/// Waits a moment for output that is still on its way, and says why a box ended, where that was not the workload's own doing.
async fn finish(showing: Option<Showing>, ended: Ended) -> Stayed {
    let hidden = match showing {
        Some(showing) => showing.end().await,
        None => None,
    };
    if let Some(words) = last_words(&ended, hidden) {
        eprintln!("coffer: {words}");
    }
    Stayed::Ended(ended)
}

/// Why a box ended or, where it does not say, why its output was not shown: of one that ends at its start its end is the reason for both.
fn last_words(ended: &Ended, hidden: Option<String>) -> Option<String> {
    ended.error.as_ref().map(|error| foreign(error).into_owned()).or(hidden)
}

/// The host may not see the output of this simulated box. Its owner may, over RA-TLS, if told to believe the simulator.
fn only_its_owner_sees(engine: &Engine, record: &BoxRecord) -> bool {
    let host_may = || engine.document(record).map(|document| document.spec().host_may.contains(Act::Logs));
    record.options.tee == Tee::Simulated && matches!(host_may(), Ok(false))
}

fn say_that_output_is_hidden(record: &BoxRecord) {
    eprintln!(
        "coffer: the output of {} is its owner's, and this guest proves itself under a simulated root; what it \
         wrote, it waits for 5 seconds at its end to have read",
        record.name
    );
    eprintln!("hint: with --allow-simulated the simulator of this installation is believed, and the output shown");
}

/// Output that is shown while something else is waited for.
struct Showing {
    /// Why it is not, until that is said.
    hidden: Arc<Mutex<Option<String>>>,
    ended: Arc<Notify>,
}

impl Showing {
    fn of(shown: impl Future<Output = Result<(), LogsError>> + Send + 'static) -> Self {
        let showing = Self { hidden: Arc::default(), ended: Arc::default() };
        let (hidden, ended) = (Arc::clone(&showing.hidden), Arc::clone(&showing.ended));
        tokio::spawn(async move {
            let Err(error) = shown.await else { return ended.notify_one() };
            tracing::debug!(class = error.class().word(), "output");
            let words = format!("the output is not shown: {}", foreign(&error::of(error).message));
            *hidden.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
            ended.notify_one();
            // A box that ends takes its lines with it, and says a moment later why.
            tokio::time::sleep(AFTERMATH).await;
            let unsaid = hidden.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(words) = unsaid {
                eprintln!("coffer: {words}");
            }
        });
        showing
    }

    /// Waits a moment for what is still on its way; gives why it was not shown, if that was not said.
    async fn end(self) -> Option<String> {
        let _ = tokio::time::timeout(AFTERMATH, self.ended.notified()).await;
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn show_as_owner(engine: &Engine, record: &BoxRecord, output: Output) -> Showing {
    let (engine, record) = (engine.clone(), record.clone());
    Showing::of(async move {
        let request = LogsRequest { follow: true, ..LogsRequest::default() };
        let stream = engine.logs_as_owner(&record, request, &Trust::of_own_simulator(&record)).await?;
        show_all(stream, 0, &output).await
    })
}

fn show_from_now(engine: &Engine, record: &BoxRecord, output: Output) -> Showing {
    let (engine, record) = (engine.clone(), record.clone());
    Showing::of(async move {
        let request = LogsRequest { tail: Some(0), follow: true, ..LogsRequest::default() };
        let stream = engine.logs(record.id.as_str(), request, &Trust::default()).await?;
        let before = stream.dropped();
        show_all(stream, before, &output).await
    })
}

/// `known`: bytes that are missing before what is to be shown.
async fn show_all(mut stream: LogStream, mut known: u64, output: &Output) -> Result<(), LogsError> {
    while let Some(piece) = stream.next().await? {
        let lost = stream.dropped() - std::mem::replace(&mut known, stream.dropped());
        if lost > 0 {
            say_lost(lost);
        }
        output.show(&piece);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_box_that_did_not_run_the_reason_alone_is_said() {
        let gone = || {
            Showing::of(async { Err(LogsError::Other(CliError::new(Class::Unreachable, "its vsock does not answer"))) })
        };
        let ended = |error: Option<&str>| Ended { code: 127, error: error.map(str::to_owned) };
        let hidden = gone().end().await;
        assert_eq!(hidden.as_deref(), Some("the output is not shown: its vsock does not answer"));
        let why = "cannot run \"/nope\": executable file not found in the image";
        assert_eq!(last_words(&ended(Some(why)), hidden.clone()).as_deref(), Some(why));
        // Where the box says nothing, that is what there is to say.
        assert_eq!(last_words(&ended(None), hidden.clone()), hidden);
        let shown = Showing::of(async { Ok(()) }).end().await;
        assert_eq!(last_words(&ended(None), shown), None);
    }
}
