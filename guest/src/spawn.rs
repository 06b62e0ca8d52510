//! Starts a program through a helper and learns whether it became the program.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
    process::Stdio,
};

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
    container::{Orders, Report, STATUS_OURS, helper::STAGE},
    reaper::Reaper,
    sys::process::spawn_helper,
};

/// A program that has started.
#[derive(Debug)]
pub struct Started {
    /// The program's process id, as the agent sees it.
    pub pid: i32,
    /// Its exit status, 128 plus the signal's number if killed.
    pub status: oneshot::Receiver<i32>,
}

/// Why a program did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {}", io::Error::from_raw_os_error(*errno))]
pub struct StartError {
    /// Docker's status: 125, 126 or 127.
    pub status: i32,
    /// What was being done.
    pub what: String,
    /// The kernel's error number.
    pub errno: i32,
}

/// Starts `orders` with these standard streams. `binary`: this program itself.
///
/// # Errors
/// [`StartError`]; nothing runs then.
pub async fn start(binary: &Path, reaper: &Reaper, orders: &Orders, stdio: [Stdio; 3]) -> Result<Started, StartError> {
    let ours = |what: &str, error: &io::Error| StartError {
        status: STATUS_OURS,
        what: what.into(),
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    };
    let memory = memory_file(orders).map_err(|error| ours("write orders", &error))?;
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
            Ok(Report::Forked { pid }) => program = Some(pid),
            Ok(Report::Failed { status, what, errno }) => return Err(StartError { status, what, errno }),
            Err(_) => break,
        }
    }
    match program {
        Some(pid) => Ok(Started { pid, status: helper.status }),
        None => Err(StartError { status: STATUS_OURS, what: "start a helper".into(), errno: libc::ECHILD }),
    }
}

fn memory_file(orders: &Orders) -> io::Result<OwnedFd> {
    let mut file: File = rustix::fs::memfd_create("orders", MemfdFlags::CLOEXEC)?.into();
    let text = zeroize::Zeroizing::new(serde_json::to_vec(orders)?);
    file.write_all(&text)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file.into())
}
