//! From one run of a box to the next, which its policy wants and nobody asked for by hand.
//!
//! The supervisor replaces itself by a new one (execve), which keeps its process id and the box's lock and nothing else: no line,
//! port or task of the run before is left. The lock goes over on standard input. Whether it dies before, between or after, the
//! lock goes with it, and the record is mended.

use std::io;
use std::path::Path;
use std::time::Duration;

use coffer_rim::{Class, Classify as _, Failure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::control::{self, Asked, Command};
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
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        self.lock.hand_over()
    }
}

/// Waits before a run. False once somebody wants no further one.
pub async fn wait(folder: &Path, wait: Duration, signals: bool) -> Result<bool, Failure> {
    let _ = std::fs::remove_file(folder.join(files::CONTROL));
    let listener = bind_socket(folder, files::CONTROL).class_while(Class::Config, "cannot take commands")?;
    let (commands, mut asked) = mpsc::channel(4);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let serving = tokio::spawn(control::serve(listener, commands));
    let until = Instant::now() + wait;
    let goes_on = loop {
        tokio::select! {
            biased;
            Some(Asked { command, answer }) = asked.recv() => match command {
                Command::Stop(_) | Command::Kill => break false,
                Command::Pause | Command::Resume => {
                    let _ = answer.send(Err(Failure::new(Class::Config, "the box waits to be started again")));
                }
            },
            _ = terminated.recv(), if signals => break false,
            _ = interrupted.recv(), if signals => break false,
            () = tokio::time::sleep_until(until) => break true,
        }
    };
    // Whoever reached the socket until here has recorded before what they want; later they reach the next run's.
    serving.abort();
    let _ = serving.await;
    Ok(goes_on)
}
