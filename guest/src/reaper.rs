//! PID 1's duty: every child is waited for, and whoever started one learns its status.

use std::{
    collections::HashMap,
    io,
    process::Child,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::{WaitOptions, wait};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::container::exit_status;

/// Waits for all children of this process; there is one per process.
#[derive(Debug, Default)]
pub struct Reaper {
    waiting: Mutex<HashMap<i32, oneshot::Sender<i32>>>,
}

/// A child that will be waited for.
#[derive(Debug)]
pub struct Reaped {
    /// Process id.
    pub pid: i32,
    /// Its exit status, 128 plus the signal's number if killed.
    pub status: oneshot::Receiver<i32>,
}

impl Reaper {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<i32>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a child. No status is taken between its start and its entry in the table.
    ///
    /// # Errors
    /// What `start` gives.
    pub fn start(&self, start: impl FnOnce() -> io::Result<Child>) -> io::Result<Reaped> {
        let mut waiting = self.lock();
        let child = start()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let (sender, status) = oneshot::channel();
        waiting.insert(pid, sender);
        Ok(Reaped { pid, status })
    }

    /// Takes the status of every child that has ended.
    pub fn reap(&self) {
        let mut waiting = self.lock();
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Some(sender) = waiting.remove(&pid.as_raw_nonzero().get()) {
                        let _ = sender.send(exit_status(status));
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Reaps whenever a child ends; never returns.
    ///
    /// # Errors
    /// If no signal handler can be installed.
    pub async fn run(&self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            self.reap();
            if ended.recv().await.is_none() {
                return Ok(());
            }
        }
    }
}
