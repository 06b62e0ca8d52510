//! What waits to be given to a guest beside passt's frames: what its port says itself, and what other boxes send.
//!
//! Each has room of its own, and the port's words come first: who floods a box from within a network keeps neither its names nor its
//! neighbours' addresses from it. Never: keeps more than was said; waits on behalf of the port.

use tokio::sync::mpsc;

/// Answers of the port that wait.
const ANSWERS: usize = 64;

/// The end that gives.
#[derive(Clone, Debug)]
pub struct ToGuest {
    answers: mpsc::Sender<Vec<u8>>,
    others: mpsc::Sender<Vec<u8>>,
}

/// The end that takes.
#[derive(Debug)]
pub struct ForGuest {
    answers: mpsc::Receiver<Vec<u8>>,
    others: mpsc::Receiver<Vec<u8>>,
}

/// Both ends. `others`: how many frames of other boxes wait.
pub fn for_guest(others: usize) -> (ToGuest, ForGuest) {
    let (answers, of_port) = mpsc::channel(ANSWERS);
    let (others, of_others) = mpsc::channel(others);
    (ToGuest { answers, others }, ForGuest { answers: of_port, others: of_others })
}

impl ToGuest {
    /// What the port itself says. A guest that takes no answers waits for none.
    pub fn answer(&self, frame: Vec<u8>) {
        let _ = self.answers.try_send(frame);
    }

    /// A frame of another box's, once there is room. False if nobody takes any more.
    pub async fn pass_on(&self, frame: Vec<u8>) -> bool {
        self.others.send(frame).await.is_ok()
    }
}

impl ForGuest {
    /// The next frame, once there is one; nothing where no more will come.
    pub async fn recv(&mut self) -> Option<Vec<u8>> {
        tokio::select! {
            biased;
            Some(answer) = self.answers.recv() => Some(answer),
            Some(frame) = self.others.recv() => Some(frame),
            else => None,
        }
    }

    /// The next frame, if it is there.
    pub fn try_recv(&mut self) -> Option<Vec<u8>> {
        self.answers.try_recv().or_else(|_| self.others.try_recv()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ports_answers_come_first_however_much_others_send() {
        let (to_guest, mut guest) = for_guest(2);
        assert!(to_guest.pass_on(vec![1]).await && to_guest.pass_on(vec![2]).await);
        let flood = to_guest.clone();
        let flooding = tokio::spawn(async move { while flood.pass_on(vec![3]).await {} });
        tokio::task::yield_now().await;
        for answer in 10..10 + ANSWERS as u8 {
            to_guest.answer(vec![answer]);
        }
        to_guest.answer(vec![9]);
        for answer in 10..10 + ANSWERS as u8 {
            assert_eq!(guest.recv().await, Some(vec![answer]));
        }
        assert_eq!((guest.recv().await, guest.try_recv()), (Some(vec![1]), Some(vec![2])), "what had no room is gone");
        to_guest.answer(vec![8]);
        assert_eq!(guest.try_recv(), Some(vec![8]));
        drop(guest);
        flooding.await.unwrap();
        assert!(!to_guest.pass_on(vec![4]).await);
    }

    #[tokio::test]
    async fn where_nobody_gives_any_more_it_ends() {
        let (to_guest, mut guest) = for_guest(1);
        to_guest.answer(vec![1]);
        drop(to_guest);
        assert_eq!((guest.recv().await, guest.recv().await, guest.try_recv()), (Some(vec![1]), None, None));
    }
}
