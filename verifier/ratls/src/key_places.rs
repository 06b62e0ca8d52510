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

use crate::load::Load;

/// How the connections of a server are shared between keys.
#[derive(Clone, Debug)]
pub struct KeyShares {
    /// Connections of one key at once.
    pub each: usize,
    /// Places that are left to keys with fewer than [`FEW`].
    pub left_to_others: usize,
    /// Keys whose connections count against their own share alone: they get in however many others there are.
    pub kept: BTreeSet<SpkiDigest>,
}

/// Connections of a key that has few.
pub const FEW: usize = 2;

impl Default for KeyShares {
    fn default() -> Self {
        Self { each: 16, left_to_others: 0, kept: BTreeSet::new() }
    }
}

/// Who has how many.
#[derive(Clone)]
pub(crate) struct KeyPlaces(Arc<Shared>);

struct Shared {
    shares: KeyShares,
    /// For all keys that are not kept.
    all: usize,
    held: Mutex<HashMap<SpkiDigest, usize>>,
}

/// One connection of one key, given back when dropped.
pub(crate) struct KeyPlace {
    key: SpkiDigest,
    shared: Arc<Shared>,
}

impl KeyPlaces {
    pub(crate) fn new(all: usize, shares: KeyShares) -> Self {
        Self(Arc::new(Shared { shares, all, held: Mutex::default() }))
    }

    /// One more, unless the key, or all of those that are not kept, have what they may.
    pub(crate) fn take(&self, key: SpkiDigest) -> Option<KeyPlace> {
        let shares = &self.0.shares;
        let mut held = self.0.held();
        let own = held.get(&key).copied().unwrap_or(0);
        let others =
            || held.iter().filter(|(key, _)| !shares.kept.contains(*key)).map(|(_, count)| count).sum::<usize>();
        let left = if own < FEW { 0 } else { shares.left_to_others };
        let has_room = shares.kept.contains(&key) || self.0.all > others() + left;
        if own >= shares.each || !has_room {
            return None;
        }
        held.insert(key, own + 1);
        Some(KeyPlace { key, shared: self.0.clone() })
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, HashMap<SpkiDigest, usize>> {
        // Whole numbers in a map: nothing is left half done by a panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeyPlace {
    fn drop(&mut self) {
        let mut held = self.shared.held();
        if let Some(count) = held.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.key);
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

    #[test]
    fn a_key_has_its_share_and_what_is_kept_is_nobody_elses() {
        let [owner, first, second, third] = [1, 2, 3, 4].map(|byte| SpkiDigest::new([byte; 32]));
        let places = KeyPlaces::new(4, KeyShares { each: 2, kept: BTreeSet::from([owner]), ..KeyShares::default() });
        let take = |key| places.take(key);
        let held = [take(first).unwrap(), take(first).unwrap()];
        assert!(take(first).is_none(), "its share");
        let others = [take(second).unwrap(), take(second).unwrap()];
        assert!(take(third).is_none(), "all there are");
        let kept = [take(owner).unwrap(), take(owner).unwrap()];
        assert!(take(owner).is_none(), "its share, too");
        drop(held);
        assert!(take(third).is_some());
        drop((others, kept));
        assert!(places.0.held().is_empty());
    }

    #[test]
    fn the_last_places_are_for_keys_that_have_few() {
        let [greedy, other, third] = [1, 2, 3].map(|byte| SpkiDigest::new([byte; 32]));
        let places = KeyPlaces::new(6, KeyShares { each: 6, left_to_others: 3, ..KeyShares::default() });
        let held: Vec<_> = std::iter::from_fn(|| places.take(greedy)).collect();
        assert_eq!(held.len(), 3);
        let others: Vec<_> = std::iter::from_fn(|| places.take(other)).collect();
        assert_eq!(others.len(), FEW);
        assert!(places.take(third).is_some());
    }

    #[test]
    fn a_thousand_that_are_closed_are_one_line() {
        let (closed, now) = (Closed::default(), Instant::now());
        assert_eq!(closed.count(now), Some(1));
        assert!((0..1000).all(|_| closed.count(now).is_none()));
        assert_eq!(closed.count(now + WHILE), Some(1001));
    }
}
