//! Places for connections of known keys, so that no key has them all, and those that must get in do.
//!
//! Trusts: the handshake to have shown who has the key. Never: lets other keys take a place of a kept one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use coffer_verifier::abi::SpkiDigest;
use tracing::warn;

use crate::{load::Load, state::ConnectionState};

/// How the connections of a server are shared between keys.
#[derive(Clone, Debug)]
pub struct KeyShares {
    /// Connections of one key at once.
    pub each: usize,
    /// Where all places are taken, a key gets one of a key that has more: one that asks for nothing; or any, for its first [`FEW`].
    pub give_way: bool,
    /// Keys whose connections count against their own share alone: they get in however many others there are.
    pub kept: BTreeSet<SpkiDigest>,
}

/// Connections that a key gets though others are busy with theirs.
pub const FEW: usize = 2;

impl Default for KeyShares {
    fn default() -> Self {
        Self { each: 16, give_way: false, kept: BTreeSet::new() }
    }
}

/// Who has how many.
#[derive(Clone)]
pub(crate) struct KeyPlaces(Arc<Shared>);

struct Shared {
    shares: KeyShares,
    /// For all keys that are not kept.
    all: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    next: u64,
    /// Of each key, the oldest first.
    of: HashMap<SpkiDigest, Vec<(u64, Arc<ConnectionState>)>>,
}

/// One connection of one key, given back when dropped.
pub(crate) struct KeyPlace {
    key: SpkiDigest,
    number: u64,
    shared: Arc<Shared>,
}

impl KeyPlaces {
    pub(crate) fn new(all: usize, shares: KeyShares) -> Self {
        Self(Arc::new(Shared { shares, all, held: Mutex::default() }))
    }

    /// One more, unless the key, or all of those that are not kept, have what they may. Whoever gives way for it is hung up on.
    pub(crate) fn take(&self, key: SpkiDigest, state: &Arc<ConnectionState>) -> Option<KeyPlace> {
        let shares = &self.0.shares;
        let mut held = self.0.held();
        let own = held.of.get(&key).map_or(0, Vec::len);
        if own >= shares.each {
            return None;
        }
        let others = held.of.iter().filter(|(key, _)| !shares.kept.contains(*key));
        let others: usize = others.map(|(_, connections)| connections.len()).sum();
        if !shares.kept.contains(&key) && others >= self.0.all {
            let (of, at) = held.gives_way_to(own).filter(|_| shares.give_way)?;
            let (_, connection) = held.of.get_mut(&of)?.remove(at);
            connection.hang_up();
        }
        let number = held.next;
        held.next += 1;
        held.of.entry(key).or_default().push((number, state.clone()));
        Some(KeyPlace { key, number, shared: self.0.clone() })
    }
}

impl Held {
    /// Which connection gives way to a key that has `own`: of a key that has more even then. Who has most first.
    fn gives_way_to(&self, own: usize) -> Option<(SpkiDigest, usize)> {
        let mut richer: Vec<_> = self.of.iter().filter(|(_, connections)| connections.len() > own + 1).collect();
        richer.sort_by_key(|(_, connections)| std::cmp::Reverse(connections.len()));
        let idle = richer.iter().find_map(|(key, connections)| {
            connections.iter().position(|(_, state)| state.is_idle()).map(|at| (**key, at))
        });
        idle.or_else(|| richer.first().filter(|_| own < FEW).map(|(key, _)| (**key, 0)))
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Every critical section leaves the lists whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeyPlace {
    fn drop(&mut self) {
        let mut held = self.shared.held();
        if let Some(connections) = held.of.get_mut(&self.key) {
            connections.retain(|(number, _)| *number != self.number);
            if connections.is_empty() {
                held.of.remove(&self.key);
            }
        }
    }
}

/// Connections that were closed because no place was left, told of at most once in a while.
#[derive(Clone, Default)]
pub(crate) struct Closed {
    told: Arc<Mutex<Told>>,
    load: Load,
}

#[derive(Default)]
struct Told {
    at: Option<Instant>,
    since: u64,
}

const WHILE: Duration = Duration::from_secs(10);

impl Closed {
    pub(crate) fn new(load: Load) -> Self {
        Self { told: Arc::default(), load }
    }

    pub(crate) fn one_more(&self) {
        self.load.one_closed();
        if let Some(closed) = self.count(Instant::now()) {
            warn!(closed, "all connections are taken, or all of one key: what came was closed");
        }
    }

    /// How many there were, when it is time to say so.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.since += 1;
        if told.at.is_some_and(|at| now.saturating_duration_since(at) < WHILE) {
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{facts::TlsFacts, places::Places};

    fn connected() -> Arc<ConnectionState> {
        let place = Places::new(1).take(0, Instant::now()).unwrap();
        Arc::new(ConnectionState::new(TlsFacts::for_tests(), (0, Instant::now()), Duration::from_mins(1), place))
    }

    fn is_hung_up_on(state: &ConnectionState) -> bool {
        state.lives_until().is_some_and(|end| end <= Instant::now())
    }

    /// Places that a key takes for as long as it gets some, and what has them.
    fn all_of(places: &KeyPlaces, key: SpkiDigest) -> Vec<(KeyPlace, Arc<ConnectionState>)> {
        std::iter::from_fn(|| {
            let state = connected();
            places.take(key, &state).map(|place| (place, state))
        })
        .take(100)
        .collect()
    }

    #[test]
    fn a_key_has_its_share_and_what_is_kept_is_nobody_elses() {
        let [owner, first, second, third] = [1, 2, 3, 4].map(|byte| SpkiDigest::new([byte; 32]));
        let places = KeyPlaces::new(4, KeyShares { each: 2, kept: BTreeSet::from([owner]), ..KeyShares::default() });
        let take = |key| places.take(key, &connected());
        let held = [take(first).unwrap(), take(first).unwrap()];
        assert!(take(first).is_none(), "its share");
        let others = [take(second).unwrap(), take(second).unwrap()];
        assert!(take(third).is_none(), "all there are");
        let kept = [take(owner).unwrap(), take(owner).unwrap()];
        assert!(take(owner).is_none(), "its share, too");
        drop(held);
        assert!(take(third).is_some());
        drop((others, kept));
        assert!(places.0.held().of.is_empty());
    }

    #[test]
    fn whoever_only_sits_there_gives_way_to_keys_that_have_less() {
        let [greedy, other, third] = [1, 2, 3].map(|byte| SpkiDigest::new([byte; 32]));
        let places = KeyPlaces::new(6, KeyShares { each: 6, give_way: true, ..KeyShares::default() });
        let held = all_of(&places, greedy);
        assert_eq!(held.len(), 6, "nobody else is there");
        let others = all_of(&places, other);
        assert_eq!(others.len(), 3, "as many as the other is left");
        let (gone, left): (Vec<_>, Vec<_>) = held.into_iter().partition(|(_, state)| is_hung_up_on(state));
        assert_eq!((gone.len(), left.len()), (3, 3));
        // What was hung up on had given its place back already.
        drop(gone);
        assert_eq!(all_of(&places, third).len(), 2);
        drop((left, others));
        assert!(places.0.held().of.is_empty());
    }

    #[test]
    fn whoever_is_busy_gives_way_to_the_first_of_a_key_alone_and_the_idle_go_first() {
        let [greedy, other] = [1, 2].map(|byte| SpkiDigest::new([byte; 32]));
        let places = KeyPlaces::new(8, KeyShares { each: 8, give_way: true, ..KeyShares::default() });
        let held = all_of(&places, greedy);
        let _busy: Vec<_> = held[..7].iter().map(|(_, state)| state.begin()).collect();
        let others = all_of(&places, other);
        assert!(is_hung_up_on(&held[7].1), "it asked for nothing");
        assert_eq!(others.len(), FEW);
        assert!(is_hung_up_on(&held[0].1), "the oldest of the busy ones");
        assert_eq!(held.iter().filter(|(_, state)| is_hung_up_on(state)).count(), 2);
    }

    #[test]
    fn a_thousand_that_are_closed_are_one_line() {
        let (closed, now) = (Closed::default(), Instant::now());
        assert_eq!(closed.count(now), Some(1));
        assert!((0..1000).all(|_| closed.count(now).is_none()));
        assert_eq!(closed.count(now + WHILE), Some(1001));
    }
}
