//! Turns of calls that hold much memory, or last: as many at one time as there is room for, and of each caller one.
//!
//! Who is slow, or wants it so, holds up what he asks for himself, and one of all turns.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use coffer_verifier::abi::SpkiDigest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns of one kind of call.
#[derive(Clone)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// One of each caller who has one, or waits.
    callers: Arc<Mutex<HashMap<SpkiDigest, Weak<Semaphore>>>>,
}

/// A turn, until it is dropped.
pub(super) struct Turn {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new(places: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(places)), callers: Arc::default() }
    }

    /// Waits for a turn. Whoever is known by no key is nobody in particular, and has no turn of his own to wait for.
    pub(super) async fn take(&self, caller: Option<SpkiDigest>) -> Option<Turn> {
        let own = match caller {
            Some(key) => Some(self.of(key).acquire_owned().await.ok()?),
            None => None,
        };
        Some(Turn { _all: self.all.clone().acquire_owned().await.ok()?, _own: own })
    }

    fn of(&self, key: SpkiDigest) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.retain(|_, one| one.strong_count() > 0);
        if let Some(one) = callers.get(&key).and_then(Weak::upgrade) {
            return one;
        }
        let one = Arc::new(Semaphore::new(1));
        callers.insert(key, Arc::downgrade(&one));
        one
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_caller_has_one_turn_and_leaves_the_others_to_others() {
        let turns = Turns::new(2);
        let [alice, bob, carol] = [b"alice".as_slice(), b"bob", b"carol"].map(SpkiDigest::of);
        let first = turns.take(Some(alice)).await.unwrap();
        assert!(timeout(SHORT, turns.take(Some(alice))).await.is_err(), "her first is not over");
        let second = timeout(LONG, turns.take(Some(bob))).await.expect("his is free");
        assert!(timeout(SHORT, turns.take(Some(carol))).await.is_err(), "there are two");
        drop(first);
        drop(timeout(LONG, turns.take(Some(carol))).await.expect("a free one"));
        drop(timeout(LONG, turns.take(Some(alice))).await.expect("her next"));
        drop(second);
        let _ = turns.of(carol);
        assert_eq!(turns.callers.lock().unwrap().len(), 1, "whoever went is forgotten");
    }
}
