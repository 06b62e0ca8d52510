//! A program beside the workload while it runs: what its caller sends goes in, what it writes comes out, its status last.
//!
//! It ends with its caller, unless that let go of it first; then what it writes is read and dropped, so that it goes on.

use std::{sync::Arc, time::Duration};

use coffer_guest_proto::{ExecRequest, ExecResponse, exec_request::Message as Ask, exec_response::Message as Tell};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::{OwnedSemaphorePermit, mpsc, watch},
    task::JoinSet,
};
use tonic::{Status, Streaming};

use super::{request, terminal::Terminal};
use crate::{
    spawn::Started,
    sys::process::{kill_group, signal},
};

/// How long output may still come after the program has ended; something may hold its streams open.
const AFTERMATH: Duration = Duration::from_secs(1);

/// To whoever called.
#[derive(Clone)]
pub(super) struct Answers(pub(super) mpsc::Sender<Result<ExecResponse, Status>>);

impl Answers {
    /// Nobody is there any more, if it fails.
    pub(super) async fn tell(&self, message: Tell) -> Result<(), Gone> {
        self.0.send(Ok(ExecResponse { message: Some(message) })).await.map_err(|_| Gone)
    }
}

/// Whoever called is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// How a program's streams reach the agent.
pub(super) enum Lines {
    /// A pipe for each.
    Pipes { stdin: pipe::Sender, stdout: pipe::Receiver, stderr: pipe::Receiver },
    /// One terminal.
    Terminal(Arc<Terminal>),
    /// Not at all.
    None,
}

pub(super) struct Running {
    pub(super) started: Started,
    pub(super) lines: Lines,
    /// Its place among those that may run.
    pub(super) place: OwnedSemaphorePermit,
}

/// Where input goes.
enum Input {
    Pipe(pipe::Sender),
    Terminal(Arc<Terminal>),
    Closed,
}

/// Where output comes from.
enum Output {
    Pipe(pipe::Receiver, fn(Vec<u8>) -> Tell),
    Terminal(Arc<Terminal>),
}

impl Running {
    /// To its end. Without `asks` nobody attends to it from the beginning.
    pub(super) async fn attend(self, asks: Option<Streaming<ExecRequest>>, answers: Answers) {
        let Self { started: Started { pid, mut status }, lines, place: _place } = self;
        let (let_go, alone) = watch::channel(asks.is_none());
        let (input, outputs) = match lines {
            Lines::Pipes { stdin, stdout, stderr } => {
                let outputs = vec![Output::Pipe(stdout, Tell::Stdout), Output::Pipe(stderr, Tell::Stderr)];
                (Input::Pipe(stdin), outputs)
            }
            Lines::Terminal(terminal) => (Input::Terminal(terminal.clone()), vec![Output::Terminal(terminal)]),
            Lines::None => (Input::Closed, vec![]),
        };
        let mut forwarding = JoinSet::new();
        for output in outputs {
            forwarding.spawn(forward(output, answers.clone(), alone.clone()));
        }
        if asks.is_none() {
            let _ = answers.tell(Tell::Detached(true)).await;
        }
        let asking = asks.map(|asks| tokio::spawn(take_input(asks, input, pid, let_go, answers.clone())));
        let status = tokio::select! {
            status = &mut status => status,
            () = answers.0.closed() => {
                if !*alone.borrow() {
                    // Nobody is there to see it end. Its input, which `asking` still holds, is closed after that: whoever reads it
                    // together with the program takes no break for an end.
                    let _ = kill_group(pid);
                }
                status.await
            }
        };
        let all = async { while forwarding.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(AFTERMATH, all).await;
        forwarding.shutdown().await;
        if let Some(asking) = asking {
            asking.abort();
        }
        if !*alone.borrow() {
            let status = status.unwrap_or(crate::container::STATUS_OURS);
            let _ = answers.tell(Tell::ExitStatus(status)).await;
        }
    }
}

async fn forward(mut output: Output, answers: Answers, alone: watch::Receiver<bool>) {
    // vsock on 6.12 stalls on packets above 32 KiB with some devices; these are below.
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let (read, wrap) = match &mut output {
            Output::Pipe(pipe, wrap) => (pipe.read(&mut buffer).await, *wrap),
            Output::Terminal(terminal) => (terminal.read(&mut buffer).await, Tell::Stdout as fn(Vec<u8>) -> Tell),
        };
        let Ok(count @ 1..) = read else { return };
        let attended = !*alone.borrow();
        if attended && answers.tell(wrap(buffer[..count].to_vec())).await.is_err() && !*alone.borrow() {
            return;
        }
    }
}

/// Hands on what the caller sends: input, signals, sizes, and that it goes. Gives the input back as it is when the caller breaks off.
async fn take_input(
    mut asks: Streaming<ExecRequest>,
    mut input: Input,
    pid: i32,
    let_go: watch::Sender<bool>,
    answers: Answers,
) -> Input {
    while let Ok(Some(ask)) = asks.message().await {
        match ask.message {
            Some(Ask::Stdin(bytes)) => input.write(&bytes).await,
            // A terminal has no end of input of its own; what is typed says so.
            Some(Ask::StdinClosed(true)) => {
                if let Input::Pipe(_) = input {
                    input = Input::Closed;
                }
            }
            Some(Ask::Signal(number)) => {
                let _ = request::exec_signal(number).map(|number| signal(pid, number));
            }
            Some(Ask::Resize(size)) => {
                if let (Input::Terminal(terminal), Ok(size)) = (&input, request::terminal_size("resize", size)) {
                    let _ = terminal.resize(size);
                }
            }
            Some(Ask::Detach(true)) => {
                let_go.send_replace(true);
                let _ = answers.tell(Tell::Detached(true)).await;
                return Input::Closed;
            }
            // A second start, an end that is none, or nothing: no version of the protocol sends it.
            Some(Ask::Start(_) | Ask::StdinClosed(false) | Ask::Detach(false)) | None => return input,
        }
    }
    input
}

impl Input {
    async fn write(&mut self, bytes: &[u8]) {
        let written = match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Terminal(terminal) => terminal.write_all(bytes).await,
            Self::Closed => return,
        };
        if written.is_err() {
            *self = Self::Closed; // the program closed its end
        }
    }
}
