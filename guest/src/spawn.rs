//! Starts a program through a helper and learns whether it became the program.

use std::{fs::File, io, os::fd::OwnedFd, path::Path, process::Stdio};

use rustix::{
    fs::MemfdFlags,
    pipe::{PipeFlags, pipe_with},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    sync::oneshot,
};

use crate::{
    container::{
        Cause, Orders, Report,
        helper::{STAGE, write_orders},
    },
    reaper::Reaper,
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

/// Starts `orders` with these standard streams, `secrets` in the environment. `binary`: this program itself.
///
/// # Errors
/// [`StartError`]; nothing runs then.
pub async fn start(
    binary: &Path,
    reaper: &Reaper,
    orders: &Orders,
    secrets: &SecretEnv,
    stdio: [Stdio; 3],
) -> Result<Started, StartError> {
    let ours = StartError::ours;
    let memory = memory_file(orders, secrets).map_err(|error| ours("write orders", &error))?;
    let (ours_end, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| ours("make a pipe", &error.into()))?;
    let helper = reaper
        .start(|| spawn_helper(binary, STAGE, &memory, &theirs, stdio))
        .map_err(|error| ours("start a helper", &error))?;
    drop(theirs);
    let reports = pipe::Receiver::from_owned_fd(ours_end).map_err(|error| ours("read a pipe", &error))?;
    let mut lines = BufReader::new(reports).lines();
    let mut program = None;
    // The pipe ends when the program has replaced the last process that had it.
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Report::Forked { pid }) => program = Some(ProcessId::of_child(pid, helper.pid)),
            Ok(Report::Failed { cause, what, errno }) => return Err(StartError { cause, what, errno }),
            Err(_) => break,
        }
    }
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
