//! How many streams may be open at once, and that no port takes those of another.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Streams of all ports together.
pub(super) const STREAMS: usize = 64;

/// Streams of one port: some that are its own, so that others cannot take them all, and what is left of all.
pub struct Room {
    own: Arc<Semaphore>,
    each: usize,
    common: Arc<Semaphore>,
}

impl Room {
    /// Half of all streams are shared out between so many ports; the other half is everybody's.
    pub(super) fn common(ports: usize) -> Self {
        let each = (STREAMS / 2 / ports.max(1)).max(1);
        let common = Arc::new(Semaphore::new(STREAMS.saturating_sub(each * ports)));
        Self { own: Arc::new(Semaphore::new(0)), each, common }
    }

    /// Of one more port.
    pub(super) fn with_own(&self) -> Self {
        Self { own: Arc::new(Semaphore::new(self.each)), each: self.each, common: self.common.clone() }
    }

    /// A place, if there is one.
    pub fn take(&self) -> Option<OwnedSemaphorePermit> {
        [&self.own, &self.common].into_iter().find_map(|room| room.clone().try_acquire_owned().ok())
    }
}

#[cfg(test)]
mod tests {
    use coffer_spec::Ingress;

    use super::*;

    #[test]
    fn a_port_that_takes_all_it_can_leaves_the_others_theirs() {
        for ports in 1..=Ingress::MOST {
            let common = Room::common(ports);
            let rooms: Vec<Room> = (0..ports).map(|_| common.with_own()).collect();
            let greedy: Vec<_> = std::iter::from_fn(|| rooms[0].take()).collect();
            let left: Vec<_> = rooms[1..].iter().flat_map(|room| std::iter::from_fn(|| room.take())).collect();
            assert_eq!(greedy.len() + left.len(), STREAMS, "{ports}");
            assert!(left.len() >= ports - 1, "{ports}");
            drop(left);
            assert!(rooms[1..].iter().all(|room| room.take().is_some()), "{ports}");
        }
    }
}
