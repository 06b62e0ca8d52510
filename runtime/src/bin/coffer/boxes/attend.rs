//! Stays with a program in a box: our input and signals go in, what it writes comes out.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use coffer_runtime::engine::{ExecInput, ExecInputs, ExecOutput, ExecSession};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::error::{self, Class, CliError};
use crate::output::Output;
use crate::signals::{self, Manner, Signals, until};
use crate::terminal::detach_keys::{self, DetachKeys, Typed};
use crate::terminal::{Raw, is_there, reader_gone};

/// What of ours the program gets.
#[derive(Clone, Debug)]
pub struct Ours {
    /// Standard input.
    pub input: bool,
    /// Its output is a terminal's.
    pub terminal: bool,
    /// What leaves it to itself, where it has both.
    pub keys: DetachKeys,
    /// Our signals.
    pub manner: Manner,
}

impl Ours {
    /// Whoever types at a terminal does so at one.
    ///
    /// # Errors
    /// In Docker's words.
    pub fn check(&self) -> Result<(), CliError> {
        if self.input && self.terminal && !is_there() {
            return Err(CliError::new(Class::Usage, "the input device is not a TTY"));
        }
        Ok(())
    }
}

/// How somebody stays with a box's own program.
#[derive(Clone, Debug, clap::Args)]
pub struct Attended {
    /// Keys that leave a program with -it to itself.
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    detach_keys: DetachKeys,
    /// Hand our signals to the program; else the first one ends us, and it goes on.
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
}

impl Attended {
    /// With an input, or a terminal, of this program's.
    pub fn ours(&self, input: bool, terminal: bool, manner: Manner) -> Ours {
        Ours { input, terminal, keys: self.detach_keys.clone(), manner: manner.proxied(self.sig_proxy) }
    }
}

/// How it ended for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exited(i32),
    /// It goes on.
    Detached,
    /// Nobody reads what it writes any more; it was ended.
    ReaderGone,
    /// We were told to end by this signal, and it did not.
    Told(i32),
}

impl End {
    /// What somebody who waits for it is told of an end that is not the program's own. `then`: what becomes of one that did not end.
    pub fn said(self, then: &str) -> Option<String> {
        match self {
            Self::Told(libc::SIGINT) => Some(format!("coffer: the program did not end on SIGINT; {then}")),
            Self::Told(_) => Some(format!("coffer: the program did not end on SIGTERM; {then}")),
            // In Docker's words.
            Self::Detached => Some("read escape sequence".into()),
            Self::Exited(_) | Self::ReaderGone => None,
        }
    }

    /// What a script is told, and our exit code.
    pub fn told(self) -> (Value, ExitCode) {
        let code = match self {
            Self::Exited(code) => u8::try_from(code).unwrap_or(125),
            Self::Detached => return (json!({ "detached": true }), ExitCode::SUCCESS),
            Self::ReaderGone => of_signal(libc::SIGPIPE),
            Self::Told(number) => of_signal(number),
        };
        (json!({ "exit_code": code }), ExitCode::from(code))
    }
}

/// Exit code of whoever a signal ended.
pub fn of_signal(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(125)
}

/// How long the guest has to say that it let go.
const ANSWER: Duration = Duration::from_secs(5);

/// To the program's end, or ours.
///
/// # Errors
/// As of [`attend_with`], and `internal` if signals cannot be waited for.
pub async fn attend(session: ExecSession, ours: &Ours, output: &Output) -> Result<End, CliError> {
    let signals = signals::coming(ours.manner, false)?;
    attend_with(session, signals, ours, output).await
}

/// To the program's end, or ours, with signals that may have come already.
///
/// # Errors
/// The session's, and `internal` if the terminal cannot be had.
pub async fn attend_with(
    mut session: ExecSession,
    signals: Signals,
    ours: &Ours,
    output: &Output,
) -> Result<End, CliError> {
    let inputs = session.inputs();
    let keys = (ours.input && ours.terminal).then(|| ours.keys.clone());
    let mut told_to_end = signals::hand_on(inputs.clone(), signals, ours.manner, keys.is_none());
    let gone = reader_gone();
    let mut raw = keys.is_some().then(Raw::take).transpose()?;
    if ours.terminal {
        signals::hand_on_sizes(inputs.clone())?;
    }
    let mut continued = signal(SignalKind::from_raw(libc::SIGCONT))?;
    let leaving = forward_input(inputs, ours.input, keys);
    let mut deadline = None;
    loop {
        let next = tokio::select! {
            next = session.next() => next.map_err(error::of)?,
            number = &mut told_to_end => return Ok(number.map_or(End::ReaderGone, End::Told)),
            () = gone.notified() => return Ok(End::ReaderGone),
            () = leaving.notified() => {
                deadline = Some(tokio::time::Instant::now() + ANSWER);
                continue;
            }
            () = until(deadline) => {
                let message = "the guest does not answer: whether the program goes on is not known";
                return Err(CliError::new(Class::Unreachable, message));
            }
            _ = continued.recv() => {
                raw.iter().for_each(Raw::again);
                continue;
            }
        };
        let shown = match next {
            ExecOutput::Stdout(bytes) => output.show_bytes(false, bytes),
            ExecOutput::Stderr(bytes) => {
                // Where there is a terminal, the program writes there; this is why there is no program.
                raw = None;
                output.show_bytes(true, bytes)
            }
            ExecOutput::Exited(code) => return Ok(End::Exited(code)),
            ExecOutput::Detached => return Ok(End::Detached),
            ExecOutput::Lost(bytes) => {
                say(raw.is_some(), lost(bytes));
                continue;
            }
            ExecOutput::SignalRefused(number) => {
                say(
                    raw.is_some(),
                    format_args!("signal {number} was not sent: that takes the right to exec, or to stop"),
                );
                continue;
            }
        };
        if !shown {
            return Ok(End::ReaderGone);
        }
    }
}

/// Says that output is missing where it is shown.
pub fn say_lost(bytes: u64) {
    say(false, lost(bytes));
}

fn lost(bytes: u64) -> impl Display {
    format!("{bytes} bytes of the output are not shown: they came faster than they were read")
}

/// Says something on a line of its own, also where the terminal takes each byte as it is.
fn say(raw: bool, words: impl Display) {
    let (before, after) = if raw { ("\r\n", "\r") } else { ("", "") };
    eprintln!("{before}coffer: {words}{after}");
}

/// Our standard input, to its end, or to the keys; none where it is not `ours` to give. Comes when the keys were typed.
fn forward_input(inputs: ExecInputs, ours: bool, keys: Option<DetachKeys>) -> Arc<Notify> {
    let leaving = Arc::new(Notify::new());
    let leave = leaving.clone();
    // Room for what is typed at a program that does not read, so that the keys behind it are seen.
    let (sender, mut receiver) = mpsc::channel(1024);
    let past = inputs.clone();
    let mut sending = tokio::spawn(async move {
        while let Some(input) = receiver.recv().await {
            if !inputs.send(input).await {
                return;
            }
        }
    });
    if !ours {
        return leaving;
    }
    tokio::spawn(async move {
        let mut typed = keys.map(Typed::new);
        let mut stdin = tokio::io::stdin();
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = stdin.read(&mut bytes).await {
            let (passed, leaves) = match &mut typed {
                Some(typed) => typed.take(&bytes[..count]),
                None => (bytes[..count].to_vec(), false),
            };
            if !passed.is_empty() && sender.send(ExecInput::Stdin(passed)).await.is_err() {
                return;
            }
            if leaves {
                leave.notify_one();
                drop(sender);
                // What was typed before goes first, where the program reads it.
                let _ = tokio::time::timeout(Duration::from_secs(1), &mut sending).await;
                past.send(ExecInput::Detach).await;
                return;
            }
        }
        let _ = sender.send(ExecInput::StdinClosed).await;
    });
    leaving
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_exit_code() {
        for (end, told, code) in [
            (End::Exited(7), json!({ "exit_code": 7 }), 7),
            (End::Exited(-1), json!({ "exit_code": 125 }), 125),
            (End::Detached, json!({ "detached": true }), 0),
            (End::ReaderGone, json!({ "exit_code": 141 }), 141),
            (End::Told(15), json!({ "exit_code": 143 }), 143),
        ] {
            assert_eq!(end.told(), (told, ExitCode::from(code)), "{end:?}");
        }
    }
}
