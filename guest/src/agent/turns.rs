//! Turns of calls that hold much memory, or last: as many at one time as there is room for, and of each caller one.
//!
//! Who is slow, or wants it so, holds up what he asks for himself, and one of all turns. The next turn is of whoever had his last one
//! the longest ago: several who are slow by turns keep nobody out who is not one of them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coffer_verifier::abi::SpkiDigest;
use tokio::sync::Notify;

/// Of so many callers it is known when they had their last turn: more than a list of owners has who use it at one time.
const REMEMBERED: usize = 64;

/// The turns of one kind of call.
#[derive(Clone)]
pub(super) struct Turns(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    /// One became free, or whoever waited went.
    changed: Notify,
}

struct Inner {
    free: usize,
    next: u64,
    /// By number: whoever came first.
    waiting: BTreeMap<u64, Option<SpkiDigest>>,
    /// Callers who have a turn.
    busy: HashSet<SpkiDigest>,
    /// When the last turn of a caller ended, in the numbers of those who came.
    last: HashMap<SpkiDigest, u64>,
}

/// A turn, until it is dropped.
pub(super) struct Turn {
    shared: Arc<Shared>,
    caller: Option<SpkiDigest>,
}

/// Somebody who waits for one, until it is dropped.
struct Waiting {
    shared: Arc<Shared>,
    number: u64,
}

impl Turns {
    pub(super) fn new(places: usize) -> Self {
        let (waiting, busy, last) = (BTreeMap::new(), HashSet::new(), HashMap::new());
        let inner = Inner { free: places, next: 0, waiting, busy, last };
        Self(Arc::new(Shared { inner: Mutex::new(inner), changed: Notify::new() }))
    }

    /// Waits for a turn. Whoever is known by no key is nobody in particular, and has no turn of his own to wait for.
    pub(super) async fn take(&self, caller: Option<SpkiDigest>) -> Turn {
        let number = {
            let mut inner = self.0.inner();
            let number = inner.number();
            inner.waiting.insert(number, caller);
            number
        };
        let waiting = Waiting { shared: self.0.clone(), number };
        loop {
            let changed = self.0.changed.notified();
            if let Some(turn) = waiting.turn() {
                return turn;
            }
            changed.await;
        }
    }
}

impl Waiting {
    /// Its turn, if that has come.
    fn turn(&self) -> Option<Turn> {
        let mut inner = self.shared.inner();
        if inner.free == 0 || inner.next_up() != Some(self.number) {
            return None;
        }
        let caller = inner.waiting.remove(&self.number)?;
        inner.free -= 1;
        inner.busy.extend(caller);
        Some(Turn { shared: self.shared.clone(), caller })
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whose turn is next, of those who have none.
    fn next_up(&self) -> Option<u64> {
        let since = |caller: &Option<SpkiDigest>| caller.and_then(|key| self.last.get(&key).copied()).unwrap_or(0);
        let idle = self.waiting.iter().filter(|(_, caller)| caller.is_none_or(|key| !self.busy.contains(&key)));
        idle.min_by_key(|(number, caller)| (since(caller), **number)).map(|(number, _)| *number)
    }

    fn remember(&mut self, caller: SpkiDigest) {
        let now = self.number();
        self.last.insert(caller, now);
        if self.last.len() > REMEMBERED
            && let Some(longest_ago) = self.last.iter().min_by_key(|(_, ended)| **ended).map(|(key, _)| *key)
        {
            self.last.remove(&longest_ago);
        }
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = self.shared.inner();
        inner.free += 1;
        if let Some(caller) = self.caller {
            inner.busy.remove(&caller);
            inner.remember(caller);
        }
        drop(inner);
        self.shared.changed.notify_waiters();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.inner().waiting.remove(&self.number);
        // There may be more turns than one, or whoever would have been next is gone.
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_mins(1);

    fn callers<const N: usize>() -> [SpkiDigest; N] {
        std::array::from_fn(|number| SpkiDigest::of(&[number as u8]))
    }

    async fn in_time(turns: &Turns, caller: SpkiDigest) -> Turn {
        timeout(LONG, turns.take(Some(caller))).await.expect("a turn")
    }

    #[tokio::test]
    async fn a_caller_has_one_turn_and_leaves_the_others_to_others() {
        let turns = Turns::new(2);
        let [alice, bob, carol] = callers();
        let first = in_time(&turns, alice).await;
        assert!(timeout(SHORT, turns.take(Some(alice))).await.is_err(), "her first is not over");
        let second = in_time(&turns, bob).await;
        assert!(timeout(SHORT, turns.take(Some(carol))).await.is_err(), "there are two");
        drop(first);
        drop(in_time(&turns, carol).await);
        drop(in_time(&turns, alice).await);
        drop(second);
        // Whoever nobody knows has as many as there are.
        let both = [timeout(LONG, turns.take(None)).await.unwrap(), timeout(LONG, turns.take(None)).await.unwrap()];
        assert!(timeout(SHORT, turns.take(None)).await.is_err());
        drop(both);
        let inner = turns.0.inner();
        assert_eq!((inner.free, inner.waiting.len(), inner.busy.len()), (2, 0, 0));
    }

    #[tokio::test]
    async fn whoever_had_his_last_turn_the_longest_ago_is_next() {
        let turns = Turns::new(1);
        let [alice, bob, carol, dave] = callers();
        for slow in [alice, bob, carol] {
            drop(in_time(&turns, slow).await);
        }
        let held = in_time(&turns, alice).await;
        let (ended, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (waiting, caller) in [carol, bob, alice, dave].into_iter().enumerate() {
            let (turns, ended) = (turns.clone(), ended.clone());
            let waits = turns.clone();
            tokio::spawn(async move {
                let turn = turns.take(Some(caller)).await;
                ended.send(caller).unwrap();
                drop(turn);
            });
            while waits.0.inner().waiting.len() <= waiting {
                tokio::task::yield_now().await;
            }
        }
        drop(held);
        for next in [dave, bob, carol, alice] {
            assert_eq!(timeout(LONG, order.recv()).await.unwrap(), Some(next));
        }
    }

    #[tokio::test]
    async fn one_who_goes_keeps_nobody_waiting_and_few_are_remembered() {
        let turns = Turns::new(1);
        let [alice, bob, carol] = callers();
        let held = in_time(&turns, alice).await;
        assert!(timeout(SHORT, turns.take(Some(bob))).await.is_err());
        drop(held);
        drop(in_time(&turns, carol).await);
        for number in 0..2 * REMEMBERED {
            drop(in_time(&turns, SpkiDigest::of(&number.to_le_bytes())).await);
        }
        assert_eq!(turns.0.inner().last.len(), REMEMBERED);
    }
}
