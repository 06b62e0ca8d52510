//! A monitor's own processes: how they start, and what becomes of what they say.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use coffer_rim::{Class, Failure};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Console;
use crate::bounded::BoundedLog;
use crate::boxes::files;
use crate::sys::child::dies_with_parent;

/// Starts a child with an empty environment, nothing of ours open, and no longer life than ours.
pub fn spawn(folder: &Path, program: &Path, arguments: &[String], input: Stdio) -> Result<Child, Failure> {
    let mut command = std::process::Command::new(program);
    command.args(arguments).current_dir(folder).env_clear();
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    dies_with_parent(&mut command);
    Command::from(command).kill_on_drop(true).spawn().map_err(|error| {
        Failure::caused(Class::Platform, &error).while_doing(format!("cannot start {}", program.display()))
    })
}

/// Hands the serial line on, to its end.
pub fn keep_console(output: Option<impl AsyncRead + Unpin + Send + 'static>, mut console: Console) {
    let Some(mut output) = output else { return };
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut bytes).await {
            console.take(&bytes[..count]);
        }
    });
}

/// The processes' own words keep this much, twice.
const WORDS_LIMIT: u64 = 256 << 10;

/// Copies what a child says about itself into the supervisor's log, and remembers the last of it.
pub fn keep_words(output: Option<impl AsyncRead + Unpin + Send + 'static>, folder: &Path) -> JoinHandle<LastWords> {
    keep_words_and_look(output, folder, |_| ())
}

/// The same, with a look at the last of it each time something came.
pub fn keep_words_and_look(
    output: Option<impl AsyncRead + Unpin + Send + 'static>,
    folder: &Path,
    look: impl Fn(&LastWords) + Send + 'static,
) -> JoinHandle<LastWords> {
    let file = BoundedLog::open(&folder.join(files::SUPERVISOR_LOG), WORDS_LIMIT);
    tokio::spawn(async move {
        let mut last = LastWords::default();
        let (Some(mut output), mut file) = (output, file) else { return last };
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut bytes).await {
            // A full disk loses words, and must not stop the guest by a full pipe.
            if let Ok(file) = &mut file {
                let _ = file.write(&bytes[..count]);
            }
            last.push(&bytes[..count]);
            look(&last);
        }
        last
    })
}

/// The end of what a process said.
#[derive(Debug, Default)]
pub struct LastWords(VecDeque<u8>);

const PANICKED: &[u8] = b" panicked at ";
const LAST_BYTES: usize = 1024;
const LAST_LINES: usize = 3;

impl LastWords {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let beyond = self.0.len().saturating_sub(LAST_BYTES);
        self.0.drain(..beyond);
    }

    /// A thread of a program in Rust broke, and its others go on without what it did.
    pub fn tell_of_a_panic(&self) -> bool {
        let (first, second) = self.0.as_slices();
        let text = [first, second].concat();
        text.windows(PANICKED.len()).any(|words| words == PANICKED)
    }

    /// The last whole lines, on one.
    fn text(mut self) -> Option<String> {
        let text = String::from_utf8_lossy(self.0.make_contiguous()).into_owned();
        let mut lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.drain(..lines.len().saturating_sub(LAST_LINES));
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

/// What a process that is gone said last. Whoever inherited its output may keep it open: nobody waits for that.
pub async fn last_words(task: &mut JoinHandle<LastWords>) -> Option<String> {
    timeout(Duration::from_millis(500), task).await.ok()?.ok()?.text()
}

/// A failure with them.
pub fn with_words(failure: Failure, words: Option<&str>) -> Failure {
    match words {
        Some(words) => Failure { message: format!("{}: {words}", failure.message), ..failure },
        None => failure,
    }
}
