//! Starts a program through a helper and learns whether it became the program.

use std::{fs::File, io, os::fd::OwnedFd, path::Path, process::Stdio, time::Duration};

use rustix::{
    fs::MemfdFlags,
    pipe::{PipeFlags, pipe_with},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    sync::oneshot,
    time::timeout,
};

use crate::{
    container::{
        Cause, Orders, Report,
        helper::{STAGE, write_orders},
    },
    reaper::{Reaped, Reaper},
    secret_env::SecretEnv,
    sys::{process::spawn_helper, process_id::ProcessId},
};

/// A program that has started.
#[derive(Debug)]
pub struct Started {
    /// The program's process, as the agent sees it.
    pub process: ProcessId,
    /// Its exit status, 128 plus the signal's number if killed.
    pub status: oneshot::Receiver<i32>,
}

/// Why a program did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {}", io::Error::from_raw_os_error(*errno))]
pub struct StartError {
    /// Whose fault it is.
    pub cause: Cause,
    /// What was being done.
    pub what: String,
    /// The kernel's error number.
    pub errno: i32,
}

impl StartError {
    /// A failure of ours.
    pub fn ours(what: &str, error: &io::Error) -> Self {
        Self { cause: Cause::Ours, what: what.into(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

/// How long a helper may take to become the program. Whoever may signal a program beside it can stop it until then.
const PATIENCE: Duration = Duration::from_secs(15);

/// A program that starts, whether or not anybody waits for it. Where nobody does once it has started, it is killed.
pub struct Starting(oneshot::Receiver<Result<Unattended, StartError>>);

/// A program that nobody has taken yet: dropped, it is killed.
struct Unattended(Option<Started>);

impl Drop for Unattended {
    fn drop(&mut self) {
        if let Some(started) = &self.0 {
            let _ = started.process.kill_group();
        }
    }
}

impl Starting {
    /// Waits until it runs.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn started(self) -> Result<Started, StartError> {
        let broke = || StartError { cause: Cause::Ours, what: "start".into(), errno: libc::EIO };
        self.0.await.map_err(|_| broke())??.0.take().ok_or_else(broke)
    }
}

/// Begins to start `orders` with these standard streams, `secrets` in the environment. `binary`: this program itself.
///
/// # Errors
/// [`StartError`]; nothing runs then.
pub fn start(
    binary: &Path,
    reaper: &Reaper,
    orders: &Orders,
    secrets: &SecretEnv,
    stdio: [Stdio; 3],
) -> Result<Starting, StartError> {
    let ours = StartError::ours;
    let memory = memory_file(orders, secrets).map_err(|error| ours("write orders", &error))?;
    let (ours_end, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| ours("make a pipe", &error.into()))?;
    let reports = pipe::Receiver::from_owned_fd(ours_end).map_err(|error| ours("read a pipe", &error))?;
    let helper = reaper
        .start(|| spawn_helper(binary, STAGE, &memory, &theirs, stdio))
        .map_err(|error| ours("start a helper", &error))?;
    let (sender, answer) = oneshot::channel();
    tokio::spawn(async move {
        let begun = begun(reports, helper, PATIENCE).await;
        let _ = sender.send(begun.map(|started| Unattended(Some(started))));
    });
    Ok(Starting(answer))
}

/// Waits until the helper has become the program, or was not to.
async fn begun(reports: pipe::Receiver, helper: Reaped, patience: Duration) -> Result<Started, StartError> {
    let mut lines = BufReader::new(reports).lines();
    let mut program = None;
    // The pipe ends when the program has replaced the last process that had it.
    let told = timeout(patience, async {
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Report::Forked { pid }) => program = Some(ProcessId::of_child(pid, helper.pid)),
                Ok(Report::Failed { cause, what, errno }) => return Err(StartError { cause, what, errno }),
                Err(_) => break,
            }
        }
        Ok(())
    })
    .await;
    let Ok(told) = told else {
        // Its helper ends with it.
        let own = std::process::id().cast_signed();
        let _ = program.unwrap_or_else(|| ProcessId::of_child(helper.pid, own)).signal(libc::SIGKILL);
        return Err(StartError { cause: Cause::Ours, what: "wait for the program".into(), errno: libc::ETIMEDOUT });
    };
    told?;
    match program {
        Some(process) => Ok(Started { process, status: helper.status }),
        None => Err(StartError { cause: Cause::Ours, what: "start a helper".into(), errno: libc::ECHILD }),
    }
}

fn memory_file(orders: &Orders, secrets: &SecretEnv) -> io::Result<OwnedFd> {
    let mut file: File = rustix::fs::memfd_create("orders", MemfdFlags::CLOEXEC)?.into();
    write_orders(&mut file, orders, secrets)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeping() -> (Child, Reaped) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().try_into().unwrap();
        (child, Reaped { pid, status: oneshot::channel().1 })
    }

    #[tokio::test]
    async fn a_program_that_does_not_begin_in_time_is_killed() {
        let (reports, _says_nothing) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (mut helper, reaped) = sleeping();
        let reports = pipe::Receiver::from_owned_fd(reports).unwrap();
        // Stopped before it was a program.
        let late = begun(reports, reaped, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!((late.cause, late.errno), (Cause::Ours, libc::ETIMEDOUT));
        assert!(!helper.wait().unwrap().success());
    }
}
