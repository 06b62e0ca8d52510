//! What a caller sends to a program's input: in a queue of its own, and in turns with other callers. Nothing but more of its own input
//! waits for a program that does not read.
//!
//! Never: holds more of a caller's than its [`Room`], or cuts what was taken short because the caller is done.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use coffer_guest_proto::exec_response::Message as Tell;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::Mutex,
    task::JoinSet,
};

use super::{
    answers::Answers,
    room::{Room, TURN},
};
use crate::lines::Input;

/// A caller's input on its way.
pub(super) struct Typing {
    queue: DuplexStream,
    ended: Arc<AtomicBool>,
    /// Ends with this, whatever is on its way.
    task: JoinSet<()>,
}

impl Typing {
    /// To `input`; its caller hears by `answers` how much has gone.
    pub(super) fn new(input: Arc<Mutex<Input>>, answers: Answers, room: Room) -> Self {
        let (queue, from) = duplex(room.input);
        let ended = Arc::new(AtomicBool::new(false));
        let mut task = JoinSet::new();
        task.spawn(type_in(from, ended.clone(), input, (answers, room.told())));
        Self { queue, ended, task }
    }

    /// Takes more. Waits where a caller sends more than it was told there is room for.
    pub(super) async fn take(&mut self, bytes: &[u8]) {
        // Behind its end there is nobody.
        let _ = self.queue.write_all(bytes).await;
    }

    /// The input is at its end, once all that was taken has gone in.
    pub(super) async fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.queue.shutdown().await;
    }

    /// Nothing more comes; waits until all that was taken has gone in.
    pub(super) async fn finish(mut self) {
        let _ = self.queue.shutdown().await;
        while self.task.join_next().await.is_some() {}
    }
}

async fn type_in(
    mut from: DuplexStream,
    ended: Arc<AtomicBool>,
    input: Arc<Mutex<Input>>,
    (answers, told): (Answers, usize),
) {
    let (mut turn, mut gone) = (vec![0; TURN], 0);
    while let Ok(count @ 1..) = from.read(&mut turn).await {
        // Let go of after each turn: the others who wait come first then.
        input.lock().await.write(&turn[..count]).await;
        gone += count;
        if gone >= told {
            let _ = answers.tell(Tell::StdinRoom(gone as u64)).await;
            gone = 0;
        }
    }
    if ended.load(Ordering::Relaxed) {
        input.lock().await.end();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::unix::pipe, sync::mpsc};

    use super::*;
    use crate::agent::{Wide, room::Rooms};

    #[tokio::test]
    async fn who_sends_more_than_is_read_takes_turns_with_the_others() {
        let (theirs, ours) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let input = Input::Pipe(pipe::Sender::from_owned_fd(ours).unwrap());
        let input = Arc::new(Mutex::new(input));
        let mut program = pipe::Receiver::from_owned_fd(theirs).unwrap();
        let (sender, _told) = mpsc::channel(16);
        let room = Wide::default().take(Rooms::AT_IT).room;
        let [mut floods, mut types] = [(); 2].map(|()| Typing::new(input.clone(), Answers(sender.clone()), room));
        floods.take(&vec![b'f'; room.input]).await;
        types.take(b"o").await;
        // One thread: both have come as far as they can.
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        let mut before = 0;
        while program.read_u8().await.unwrap() == b'f' {
            before += 1;
        }
        // What the pipe had taken, and a turn: not all of what was sent first.
        assert!(before <= room.input / 2 + 2 * TURN, "{before}");
        drop((floods, types));
        assert!(matches!(*input.lock().await, Input::Pipe(_)), "nobody ended it");
    }
}
