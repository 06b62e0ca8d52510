//! How much input a guest takes, so that what it does not take waits on our side, where nothing else stands behind it.
//!
//! Trusts: nothing. A guest that gives no room keeps its own input waiting, and one that gives too much is sent no more than its line takes.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Bytes that go in one piece; less than any agent's room.
pub(super) const PIECE: usize = 16 * 1024;
/// No room is larger, whatever a guest says.
const MOST: usize = 1 << 30;

/// What there is of it. An agent of an older release says nothing, and reads as its program does.
#[derive(Clone, Debug)]
pub(super) struct Room(Option<Arc<Semaphore>>);

impl Room {
    /// With so many bytes at first.
    pub(super) fn of(bytes: Option<usize>) -> Self {
        Self(bytes.map(|bytes| Arc::new(Semaphore::new(bytes.min(MOST)))))
    }

    /// More has gone in.
    pub(super) fn give(&self, more: u64) {
        if let Some(room) = &self.0 {
            let most = MOST.saturating_sub(room.available_permits());
            room.add_permits(usize::try_from(more).unwrap_or(MOST).min(most));
        }
    }

    /// Takes it, once there is so much. False once the session has ended.
    pub(super) async fn take(&self, bytes: usize) -> bool {
        let (Some(room), Ok(bytes)) = (&self.0, u32::try_from(bytes)) else { return true };
        room.acquire_many(bytes).await.map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    /// Nobody waits any more.
    pub(super) fn end(&self) {
        if let Some(room) = &self.0 {
            room.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn input_waits_for_room_and_not_beyond_the_end() {
        let room = Room::of(Some(3));
        assert_eq!(room.take(2).now_or_never(), Some(true));
        assert_eq!(room.take(2).now_or_never(), None);
        room.give(1);
        assert_eq!(room.take(2).now_or_never(), Some(true));
        for _ in 0..3 {
            room.give(u64::MAX); // and does not panic
        }
        assert_eq!(room.take(PIECE).now_or_never(), Some(true));
        let waits = Room::of(Some(0));
        waits.end();
        assert_eq!(waits.take(1).now_or_never(), Some(false));
        assert_eq!(Room::of(None).take(PIECE).now_or_never(), Some(true), "an older agent");
    }
}
