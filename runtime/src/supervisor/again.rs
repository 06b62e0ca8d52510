//! From one run of a box to the next, which its policy wants and nobody asked for by hand.
//!
//! The supervisor replaces itself by a new one (execve), which keeps its process id and the box's lock and nothing else: no line,
//! port or task of the run before is left. The lock goes over on standard input. Whether it dies before, between or after, the
//! lock goes with it, and the record is mended.

use std::io;
use std::path::Path;
use std::time::Duration;

use coffer_rim::{Class, Classify as _, Failure};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::control::{self, Command};
use crate::boxes::files;
use crate::lock::BoxLock;
use crate::socket::bind_socket;

/// A run that is to follow.
#[derive(Debug)]
pub struct Again {
    /// Held from the run before.
    pub(super) lock: BoxLock,
    /// How long to wait before it.
    pub wait: Duration,
}

impl Again {
    /// What the supervisor that we were left us.
    ///
    /// # Errors
    /// If that is not the box's lock.
    pub fn taken_over(folder: &Path, wait: Duration) -> io::Result<Self> {
        Ok(Self { lock: BoxLock::handed_over(folder)?, wait })
    }

    /// Leaves it to the supervisor that we become; the command that started us is let go of.
    ///
    /// # Errors
    /// The kernel's.
    pub fn hand_over(&self) -> io::Result<()> {
        wait_for_children();
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        self.lock.hand_over()
    }
}

/// Waits for what the run started and has killed: the process stays, and whatever it does not wait for would stay with it, as a zombie
/// for each run. Gives up where a child does not end: the next supervisor waits for that.
fn wait_for_children() {
    let late = std::time::Instant::now() + Duration::from_secs(2);
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) if std::time::Instant::now() < late => std::thread::sleep(Duration::from_millis(2)),
            // None is left, or it does not end.
            Err(_) | Ok(None) => return,
        }
    }
}

/// How a wait before a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// In its time.
    Whole,
    /// Somebody wants no further run.
    Ended {
        /// Over the box's socket.
        by_hand: bool,
    },
}

/// Waits before a run.
pub async fn wait(folder: &Path, wait: Duration, signals: bool) -> Result<Waited, Failure> {
    let _ = std::fs::remove_file(folder.join(files::CONTROL));
    let listener = bind_socket(folder, files::CONTROL).class_while(Class::Config, "cannot take commands")?;
    let (commands, mut asked) = mpsc::channel(4);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let serving = tokio::spawn(control::serve(listener, commands));
    let until = Instant::now() + wait;
    let waited = loop {
        tokio::select! {
            biased;
            Some(asked) = asked.recv() => match asked.command {
                Command::Stop(_) | Command::Kill => break Waited::Ended { by_hand: asked.by_hand },
                // The next run looks when it starts.
                Command::Networks => drop(asked.answer.send(Ok(()))),
                Command::Pause | Command::Resume => {
                    let _ = asked.answer.send(Err(Failure::new(Class::Config, "the box waits to be started again")));
                }
            },
            _ = terminated.recv(), if signals => break Waited::Ended { by_hand: false },
            _ = interrupted.recv(), if signals => break Waited::Ended { by_hand: false },
            () = tokio::time::sleep_until(until) => break Waited::Whole,
        }
    };
    // Whoever reached the socket until here has recorded before what they want; later they reach the next run's.
    serving.abort();
    let _ = serving.await;
    Ok(waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_run_is_left_to_the_next_as_a_zombie() {
        #[allow(clippy::zombie_processes, reason = "what is tried waits for it")]
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let of_child = std::path::PathBuf::from(format!("/proc/{}", child.id()));
        child.kill().unwrap();
        wait_for_children();
        assert!(!of_child.exists());
    }
}
