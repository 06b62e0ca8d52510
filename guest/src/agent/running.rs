//! A program beside the workload while it runs: what its caller sends goes in, what it writes comes out, its status last.
//!
//! It ends with its caller, unless that let go of it first; then what it writes is read and dropped, so that it goes on.

use std::time::Duration;

use coffer_guest_proto::{ExecRequest, Stream, exec_request::Message as Ask, exec_response::Message as Tell};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    task::JoinSet,
};
use tonic::Streaming;

use super::{
    answers::Answers,
    request::{self, Sendable},
    room::{Room, Taken},
    shares::Share,
    typing::Typing,
};
use crate::{
    lines::{Lines, Outflow, Ways},
    spawn::Started,
};

/// What the caller sends.
pub(super) struct Asks {
    pub(super) coming: Streaming<ExecRequest>,
    /// Of its signals.
    pub(super) signals: Sendable,
    /// For its input.
    pub(super) room: Room,
}

/// How long what a caller sent before it let go may take to go in.
const IN: Duration = Duration::from_secs(2);

pub(super) struct Running {
    pub(super) started: Started,
    pub(super) lines: Lines,
    /// Its places among those that may run.
    pub(super) places: (OwnedSemaphorePermit, Option<Share>),
    /// For its output.
    pub(super) taken: Taken,
}

impl Running {
    /// To its end. Without `asks` nobody attends to it from the beginning.
    pub(super) async fn attend(self, asks: Option<Asks>, answers: Answers) {
        let Self { started: Started { process, mut status }, lines, places: _places, taken } = self;
        let (let_go, alone) = watch::channel(asks.is_none());
        // Held to the end: a caller that breaks off is no end of input for whoever reads it together with the program.
        let (outputs, ways) = lines.split(process);
        let (end, ended) = watch::channel(false);
        let mut forwarding = JoinSet::new();
        for (stream, output) in outputs {
            let outflow = Outflow::new(output, ended.clone());
            forwarding.spawn(forward((stream, outflow), answers.clone(), alone.clone(), taken.room.piece));
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
                    let _ = process.kill_group();
                }
                status.await
            }
        };
        end.send_replace(true);
        // However long its caller takes to read, as while it ran.
        while forwarding.join_next().await.is_some() {}
        if let Some(asking) = asking {
            asking.abort();
        }
        if !*alone.borrow() {
            let status = status.unwrap_or(crate::container::STATUS_OURS);
            let _ = answers.tell(Tell::ExitStatus(status)).await;
        }
    }
}

async fn forward(
    (stream, mut outflow): (Stream, Outflow),
    answers: Answers,
    alone: watch::Receiver<bool>,
    piece: usize,
) {
    let mut buffer = vec![0; piece];
    loop {
        let Ok(count @ 1..) = outflow.read(&mut buffer).await else { return };
        let attended = !*alone.borrow();
        if attended && answers.show(stream, buffer[..count].to_vec()).await.is_err() && !*alone.borrow() {
            return;
        }
    }
}

/// Hands on what the caller sends: input, signals, sizes, and that it goes. Input that the program does not read keeps none of the rest up.
pub(super) async fn hand_on(asks: Asks, ways: Ways, let_go: watch::Sender<bool>, answers: Answers) {
    let Asks { mut coming, signals, room } = asks;
    let mut typing = Typing::new(ways.input.clone(), answers.clone(), room);
    while let Ok(Some(ask)) = coming.message().await {
        match ask.message {
            Some(Ask::Stdin(bytes)) => typing.take(&bytes).await,
            Some(Ask::StdinClosed(true)) => typing.end().await,
            Some(Ask::Signal(number)) => match request::exec_signal(number) {
                Ok(number) if signals.admits(number) => drop(ways.process.signal(number)),
                Ok(number) => answers.mention(Tell::RefusedSignal(number)),
                Err(_) => {}
            },
            Some(Ask::Resize(size)) => {
                if let (Some(terminal), Ok(size)) = (&ways.terminal, request::terminal_size("resize", size)) {
                    let _ = terminal.resize(size);
                }
            }
            Some(Ask::Detach(true)) => {
                let_go.send_replace(true);
                let _ = answers.tell(Tell::Detached(true)).await;
                let _ = tokio::time::timeout(IN, typing.finish()).await;
                return;
            }
            // A second beginning, an end that is none, or nothing: no version of the protocol sends it.
            Some(Ask::Start(_) | Ask::Attach(_) | Ask::StdinClosed(false) | Ask::Detach(false)) | None => return,
        }
    }
    // Its caller sends nothing more, and may still be there for what comes.
    typing.finish().await;
}
