//! A program beside the workload while it runs: what its caller sends goes in, what it writes comes out, its status last.
//!
//! It ends with its caller, unless that let go of it first; then what it writes is read and dropped, so that it goes on.

use std::time::Duration;

use coffer_guest_proto::{
    ExecRequest, ExecResponse, Stream, exec_request::Message as Ask, exec_response::Message as Tell,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    task::JoinSet,
};
use tonic::{Status, Streaming};

use super::request;
use crate::{
    lines::{Lines, Output, Ways},
    spawn::Started,
    sys::process::{kill_group, signal},
};

/// How long output may still come after the program has ended; something may hold its streams open.
const AFTERMATH: Duration = Duration::from_secs(1);

/// To whoever called.
#[derive(Clone)]
pub(super) struct Answers(pub(super) mpsc::Sender<Result<ExecResponse, Status>>);

impl Answers {
    /// What a program wrote.
    pub(super) async fn show(&self, stream: Stream, bytes: Vec<u8>) -> Result<(), Gone> {
        self.tell(if stream == Stream::Stderr { Tell::Stderr(bytes) } else { Tell::Stdout(bytes) }).await
    }

    /// Nobody is there any more, if it fails.
    pub(super) async fn tell(&self, message: Tell) -> Result<(), Gone> {
        self.0.send(Ok(ExecResponse { message: Some(message) })).await.map_err(|_| Gone)
    }
}

/// Whoever called is gone.
#[derive(Debug)]
pub(super) struct Gone;

pub(super) struct Running {
    pub(super) started: Started,
    pub(super) lines: Lines,
    /// Its place among those that may run.
    pub(super) place: OwnedSemaphorePermit,
}

impl Running {
    /// To its end. Without `asks` nobody attends to it from the beginning.
    pub(super) async fn attend(self, asks: Option<Streaming<ExecRequest>>, answers: Answers) {
        let Self { started: Started { pid, mut status }, lines, place: _place } = self;
        let (let_go, alone) = watch::channel(asks.is_none());
        // Held to the end: a caller that breaks off is no end of input for whoever reads it together with the program.
        let (outputs, ways) = lines.split(pid);
        let mut forwarding = JoinSet::new();
        for output in outputs {
            forwarding.spawn(forward(output, answers.clone(), alone.clone()));
        }
        if asks.is_none() {
            let _ = answers.tell(Tell::Detached(true)).await;
        }
        let asking = asks.map(|asks| tokio::spawn(hand_on(asks, ways.clone(), let_go, answers.clone())));
        let status = tokio::select! {
            status = &mut status => status,
            () = answers.0.closed() => {
                if !*alone.borrow() {
                    // Nobody is there to see it end.
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

async fn forward((stream, mut output): (Stream, Output), answers: Answers, alone: watch::Receiver<bool>) {
    // vsock on 6.12 stalls on packets above 32 KiB with some devices; these are below.
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = output.read(&mut buffer).await else { return };
        let attended = !*alone.borrow();
        if attended && answers.show(stream, buffer[..count].to_vec()).await.is_err() && !*alone.borrow() {
            return;
        }
    }
}

/// Hands on what the caller sends: input, signals, sizes, and that it goes.
pub(super) async fn hand_on(
    mut asks: Streaming<ExecRequest>,
    ways: Ways,
    let_go: watch::Sender<bool>,
    answers: Answers,
) {
    while let Ok(Some(ask)) = asks.message().await {
        match ask.message {
            Some(Ask::Stdin(bytes)) => ways.input.lock().await.write(&bytes).await,
            Some(Ask::StdinClosed(true)) => ways.input.lock().await.end(),
            Some(Ask::Signal(number)) => {
                let _ = request::exec_signal(number).map(|number| signal(ways.pid, number));
            }
            Some(Ask::Resize(size)) => {
                if let (Some(terminal), Ok(size)) = (&ways.terminal, request::terminal_size("resize", size)) {
                    let _ = terminal.resize(size);
                }
            }
            Some(Ask::Detach(true)) => {
                let_go.send_replace(true);
                let _ = answers.tell(Tell::Detached(true)).await;
                return;
            }
            // A second beginning, an end that is none, or nothing: no version of the protocol sends it.
            Some(Ask::Start(_) | Ask::Attach(_) | Ask::StdinClosed(false) | Ask::Detach(false)) | None => return,
        }
    }
}
