//! A program's streams as the agent has them: pipes, or one terminal; and the ways to it while it runs.
//!
//! Trusts: nothing that comes out of them; it is handed on as it is.

mod outflow;
mod terminal;

use std::{io, os::fd::OwnedFd, path::Path, process::Stdio, sync::Arc};

use coffer_guest_proto::Stream;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::Mutex,
};

pub use outflow::Outflow;
pub use terminal::Terminal;

use crate::{
    container::Orders,
    reaper::Reaper,
    secret_env::SecretEnv,
    spawn::{StartError, Started, Starting, start},
    sys::process_id::ProcessId,
};

/// Which streams a program gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    None,
    /// What it writes is read.
    Outputs,
    /// And it has an input.
    All,
}

/// They.
#[derive(Debug, Default)]
pub struct Lines {
    /// Where input goes.
    pub input: Input,
    /// Where output comes from.
    pub outputs: Vec<(Stream, Output)>,
    /// Both, where it is one.
    pub terminal: Option<Arc<Terminal>>,
}

/// Where input goes.
#[derive(Debug, Default)]
pub enum Input {
    /// To a pipe.
    Pipe(pipe::Sender),
    /// To a terminal.
    Terminal(Arc<Terminal>),
    /// Nowhere: it is at its end, or nobody reads it.
    #[default]
    Closed,
}

/// Where output comes from.
#[derive(Debug)]
pub enum Output {
    /// From a pipe.
    Pipe(pipe::Receiver),
    /// From a terminal.
    Terminal(Arc<Terminal>),
}

/// The ways to a program that runs.
#[derive(Debug, Clone)]
pub struct Ways {
    /// Its process, as the agent sees it.
    pub process: ProcessId,
    /// Its input. Whoever holds this keeps it open.
    pub input: Arc<Mutex<Input>>,
    /// Its terminal, if it has one.
    pub terminal: Option<Arc<Terminal>>,
}

/// Starts `orders` with the streams that are wanted; with a terminal, where the program is to have one. `secrets` are read before this
/// returns.
///
/// # Errors
/// [`StartError`].
pub fn start_with_lines(
    binary: &Path,
    reaper: &Reaper,
    orders: &Orders,
    secrets: &SecretEnv,
    wanted: Wanted,
) -> impl Future<Output = Result<(Started, Lines), StartError>> + Send + use<> {
    let begun = begin(binary, reaper, orders, secrets, wanted);
    async move {
        let (starting, mut lines, awaited) = begun?;
        let started = starting.started().await?;
        if let Some(awaited) = awaited {
            match awaited.come() {
                Ok(terminal) => lines = Lines::of_terminal(Arc::new(terminal), wanted),
                Err(error) => {
                    let _ = started.process.signal(libc::SIGKILL);
                    return Err(StartError::ours("take the terminal", &error));
                }
            }
        }
        Ok((started, lines))
    }
}

type Begun = (Starting, Lines, Option<terminal::Awaited>);

fn begin(
    binary: &Path,
    reaper: &Reaper,
    orders: &Orders,
    secrets: &SecretEnv,
    wanted: Wanted,
) -> Result<Begun, StartError> {
    let failed = |error: io::Error| StartError::ours("make a pipe", &error);
    if orders.program.terminal.is_some() {
        let (awaited, theirs) = terminal::Awaited::new().map_err(failed)?;
        let stdio = [theirs.into(), Stdio::null(), Stdio::null()];
        return Ok((start(binary, reaper, orders, secrets, stdio)?, Lines::default(), Some(awaited)));
    }
    let (mut lines, mut stdio) = (Lines::default(), [Stdio::null(), Stdio::null(), Stdio::null()]);
    if wanted == Wanted::All {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        lines.input = Input::Pipe(pipe::Sender::from_owned_fd(ours).map_err(failed)?);
        stdio[0] = theirs.into();
    }
    if wanted != Wanted::None {
        for (at, stream) in [(1, Stream::Stdout), (2, Stream::Stderr)] {
            let (ours, theirs) = output_pipe().map_err(failed)?;
            lines.outputs.push((stream, Output::Pipe(ours)));
            stdio[at] = theirs.into();
        }
    }
    Ok((start(binary, reaper, orders, secrets, stdio)?, lines, None))
}

/// A pipe whose reading end is the agent's.
///
/// # Errors
/// The kernel's.
pub fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

impl Lines {
    fn of_terminal(terminal: Arc<Terminal>, wanted: Wanted) -> Self {
        let input = if wanted == Wanted::All { Input::Terminal(terminal.clone()) } else { Input::Closed };
        let outputs = vec![(Stream::Stdout, Output::Terminal(terminal.clone()))];
        Self { input, outputs, terminal: Some(terminal) }
    }

    /// What it writes, and the ways to it.
    pub fn split(self, process: ProcessId) -> (Vec<(Stream, Output)>, Ways) {
        let Self { input, outputs, terminal } = self;
        (outputs, Ways { process, input: Arc::new(Mutex::new(input)), terminal })
    }
}

impl Input {
    /// Hands on, however long its reader takes; closes itself when there is none any more.
    pub async fn write(&mut self, bytes: &[u8]) {
        let written = match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Terminal(terminal) => terminal.write_all(bytes).await,
            Self::Closed => return,
        };
        if written.is_err() {
            *self = Self::Closed; // the program closed its end
        }
    }

    /// Its writer is at its end. A terminal has none of its own; what is typed says so.
    pub fn end(&mut self) {
        if let Self::Pipe(_) = self {
            *self = Self::Closed;
        }
    }
}

impl Output {
    /// What the program writes next; nothing, or an error, at its end.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.read(buffer).await,
            Self::Terminal(terminal) => terminal.read(buffer).await,
        }
    }
}
