//! A command's end of the supervisor it started.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use coffer_rim::{Class, Failure};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::boxes::files;
use crate::home::Home;
use crate::id::BoxId;
use crate::supervisor::lifeline::DETACH;
use crate::supervisor::message::Message;

/// A supervisor that reports to us, and stops the box if we die.
#[derive(Debug)]
pub struct Attached {
    supervisor: Child,
    messages: Lines<BufReader<ChildStdout>>,
    lifeline: OwnedFd,
}

impl Attached {
    /// Starts the supervisor of a box: `exe supervise <id> <origin>` in a session of its own. The start counts from
    /// `origin_unix_us`.
    ///
    /// # Errors
    /// Class `internal` if it does not start.
    pub fn start(exe: &Path, home: &Home, id: &BoxId, origin_unix_us: i64) -> Result<Self, Failure> {
        let start = || -> io::Result<Self> {
            let (reading, lifeline) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            let words = home.box_folder(id).join(files::SUPERVISOR_LOG);
            let words = std::fs::OpenOptions::new().append(true).create(true).open(words)?;
            let mut supervisor = Command::new(exe)
                .arg("--home")
                .arg(home.root())
                .args(["supervise", id.as_str(), &origin_unix_us.to_string()])
                .current_dir("/")
                .stdin(Stdio::from(reading))
                .stdout(Stdio::piped())
                .stderr(Stdio::from(words))
                .spawn()?;
            let stdout = supervisor.stdout.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(Self { supervisor, messages: BufReader::new(stdout).lines(), lifeline })
        };
        start()
            .map_err(|error| Failure::caused(Class::Internal, &error).while_doing("cannot start the box's supervisor"))
    }

    /// The next message; nothing once the supervisor is gone.
    pub async fn next(&mut self) -> Option<Message> {
        while let Ok(Some(line)) = self.messages.next_line().await {
            if let Ok(message) = serde_json::from_str(&line) {
                return Some(message);
            }
        }
        None
    }

    /// Lets the box live on without us. A supervisor that has begun another run has let go of us before.
    ///
    /// # Errors
    /// Class `internal` if the supervisor is gone already.
    pub fn detach(mut self) -> Result<(), Failure> {
        match rustix::io::write(&self.lifeline, &[DETACH]) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::PIPE) if matches!(self.supervisor.try_wait(), Ok(None)) => Ok(()),
            Err(error) => Err(Failure::caused(Class::Internal, &io::Error::from(error)).while_doing("cannot detach")),
        }
    }

    /// Whether it has.
    pub fn is_gone(&mut self) -> bool {
        !matches!(self.supervisor.try_wait(), Ok(None))
    }

    /// Waits until the supervisor has ended, and with it every trace of the run.
    pub async fn finished(&mut self) {
        let _ = self.supervisor.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// One that does this, and then says nothing more.
    async fn supervisor(home: &Home, script: &str) -> Attached {
        let (id, exe) = (BoxId::random(), home.root().join("supervisor"));
        std::fs::create_dir_all(home.box_folder(&id)).unwrap();
        std::fs::write(&exe, format!("#!/bin/sh\nexec <&- >&-\n{script}\n")).unwrap();
        std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut attached = Attached::start(&exe, home, &id, 0).unwrap();
        assert!(attached.next().await.is_none());
        attached
    }

    #[tokio::test]
    async fn a_supervisor_that_has_let_go_is_no_failure_and_one_that_is_gone_is() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(&folder.path().join("home")).unwrap();
        let next_run = supervisor(&home, "exec sleep 2").await;
        assert!(next_run.detach().is_ok());
        let mut gone = supervisor(&home, "exit 0").await;
        gone.finished().await;
        assert!(gone.detach().unwrap_err().to_string().contains("cannot detach"));
    }
}
