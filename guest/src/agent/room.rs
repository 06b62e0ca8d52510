//! Room for what callers leave unread, and for input that no program reads.
//!
//! A few have much of it, so that what one program writes and reads goes fast; all others, as many as there may be, have little. All of
//! it together fits into what a spec leaves the agent, beside the log and those who read that, what requests hold while they come
//! ([`gate`]), and the connections, to which [`super::serve`] adds it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{MOST_AT_IT, MOST_ATTENDED, MOST_READERS, control, gate};
use crate::log_ring;

/// Bytes of the largest piece of output.
pub(super) const PIECE: usize = log_ring::PIECE;
/// What a pipe holds goes out as one piece, and with its head as one frame of HTTP/2 where the caller takes frames of that length: on a
/// line out of a guest each frame costs as much as many bytes.
const PIPE: usize = 64 << 10;
/// Bytes of input that a caller sends at one time, and waits for room for.
const INPUT: usize = 16 << 10;
/// Bytes of input that go in at one turn: a pipe takes them whole.
pub(super) const TURN: usize = 4096;
/// Bytes for those who have much room: two programs, or more who are at the workload.
const WIDE: usize = 2 * Rooms::BESIDE.0[0].most();
/// And what the kernel keeps of the same.
const KERNEL: usize = 3 << 20;

/// What is said to a caller before it can read: that it was heard, why nothing runs, and a status.
const FIRST: usize = 3;

/// Of one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes of a piece of output.
    pub(super) piece: usize,
    /// Pieces that wait for whoever reads.
    pub(super) waiting: usize,
    /// Bytes of input on their way.
    pub(super) input: usize,
    /// Pieces beside those that wait: what is read into, and what is to be handed on.
    in_hand: usize,
}

/// Those of one kind: with much room, and with little.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rooms([Room; 2]);

impl Rooms {
    /// Of a program's two outputs.
    pub(super) const BESIDE: Self = Self([
        Room { piece: PIPE - 64, waiting: FIRST, input: 128 << 10, in_hand: 4 },
        Room { piece: PIECE / 8, waiting: FIRST, input: 24 << 10, in_hand: 4 },
    ]);
    /// Of the workload's, which comes in the log's pieces.
    pub(super) const AT_IT: Self = Self([
        Room { piece: PIECE, waiting: 4, input: 128 << 10, in_hand: 1 },
        Room { piece: PIECE, waiting: 1, input: 24 << 10, in_hand: 1 },
    ]);
}

impl Room {
    /// Bytes at most.
    const fn most(self) -> usize {
        (self.waiting + self.in_hand) * self.piece + self.input + TURN
    }

    /// Of what has gone in a caller is told when it is as much.
    pub(super) const fn told(self) -> usize {
        self.input / 4
    }

    /// Whoever waits for room for a piece of input gets it, though the last of what has gone was not told.
    const fn takes_input(self) -> bool {
        self.input - self.told() >= INPUT
    }
}

/// All that may be there at one time but for connections, with [`CALLERS`] on them.
pub(super) const ALL: usize = WIDE
    + MOST_ATTENDED * Rooms::BESIDE.0[1].most()
    + MOST_AT_IT * Rooms::AT_IT.0[1].most()
    + MOST_READERS * (control::WAITING + 1) * PIECE
    + log_ring::CAPACITY
    + KERNEL
    // Pieces of input as they come and as they were read.
    + (MOST_ATTENDED + MOST_AT_IT) * 2 * gate::SENT
    // At both doors; and a value as it comes, as it was read, and what becomes of it.
    + 2 * gate::STARTING * gate::START
    + 3 * gate::VALUE
    // An owner's other requests, as they come and as they were read, and what is answered.
    + gate::ASKING * (2 * gate::ASKED + 2 * gate::ANSWERED);
/// Who may leave an answer unread.
pub(super) const CALLERS: usize = MOST_ATTENDED + MOST_AT_IT + MOST_READERS;
const _: () = assert!(
    Rooms::BESIDE.0[0].takes_input()
        && Rooms::BESIDE.0[1].takes_input()
        && Rooms::AT_IT.0[0].takes_input()
        && Rooms::AT_IT.0[1].takes_input()
);

/// What there is for those who have much.
#[derive(Debug, Clone)]
pub struct Wide(Arc<Semaphore>);

/// Somebody's room, for as long as this is held.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) room: Room,
    _wide: Option<OwnedSemaphorePermit>,
}

impl Default for Wide {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WIDE)))
    }
}

impl Wide {
    /// Much, as long as there is; else little.
    pub(super) fn take(&self, rooms: Rooms) -> Taken {
        let [much, little] = rooms.0;
        let wide = u32::try_from(much.most()).ok().and_then(|bytes| self.0.clone().try_acquire_many_owned(bytes).ok());
        Taken { room: if wide.is_some() { much } else { little }, _wide: wide }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_have_much_room_until_they_go() {
        let wide = Wide::default();
        let [much, little] = Rooms::BESIDE.0;
        let mut all: Vec<_> = (0..MOST_ATTENDED).map(|_| wide.take(Rooms::BESIDE)).collect();
        let bytes = |all: &[Taken]| all.iter().map(|taken| taken.room.most()).sum::<usize>();
        assert_eq!((all[0].room, all[MOST_ATTENDED - 1].room), (much, little));
        assert!(bytes(&all) <= WIDE + MOST_ATTENDED * little.most());
        all.remove(0);
        assert_eq!(wide.take(Rooms::BESIDE).room, much);
    }
}
