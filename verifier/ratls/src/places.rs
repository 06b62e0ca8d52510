//! Places for strangers: connections that have shown nothing yet. Shared fairly between the sources they come from.
//!
//! Who comes while all places are taken gets one from the source that has the most, if it has fewer itself, or that of somebody
//! who sat silently for a while. Nobody who is known holds a place, and nobody who is known loses anything here.
//! Trusts: nobody. Never: lets one source keep another out for longer than [`PATIENCE`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::load::{Counts, Load};

/// Where connections come from; streams of one source have one number.
pub type Source = u64;

/// All places of one listener.
#[derive(Clone)]
pub(crate) struct Places(Arc<Shared>);

struct Shared {
    limit: usize,
    inner: Mutex<Inner>,
    /// A place became free.
    freed: Notify,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// By number: the oldest first.
    taken: BTreeMap<u64, Taken>,
    sources: HashMap<Source, usize>,
    waiting: HashMap<Source, usize>,
}

struct Taken {
    source: Source,
    since: Instant,
    eviction: Arc<Eviction>,
}

/// Whether somebody else has got this place.
#[derive(Default)]
pub(crate) struct Eviction {
    done: AtomicBool,
    told: Notify,
}

/// One place, given back when dropped.
pub(crate) struct Place {
    shared: Arc<Shared>,
    number: u64,
    eviction: Arc<Eviction>,
    #[allow(dead_code, reason = "held")]
    counts: Option<Counts>,
}

/// How long somebody who shows nothing keeps a place that others wait for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

impl Eviction {
    /// True once the place is somebody else's.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Ends when the place is somebody else's.
    pub(crate) async fn happens(&self) {
        loop {
            let told = self.told.notified();
            if self.is_done() {
                return;
            }
            told.await;
        }
    }
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, inner: Mutex::default(), freed: Notify::new() }))
    }

    /// A place, or nothing if all are taken by others with no more than this source has.
    pub(crate) fn take(&self, source: Source, now: Instant) -> Option<Place> {
        let mut inner = self.0.inner();
        if inner.taken.len() >= self.0.limit {
            let victim = inner.victim(source, now)?;
            if let Some(taken) = inner.give_back(victim) {
                taken.eviction.done.store(true, Ordering::Release);
                taken.eviction.told.notify_waiters();
            }
        }
        let number = inner.next;
        inner.next += 1;
        let eviction = Arc::<Eviction>::default();
        inner.taken.insert(number, Taken { source, since: now, eviction: eviction.clone() });
        *inner.sources.entry(source).or_default() += 1;
        Some(Place { shared: self.0.clone(), number, eviction, counts: None })
    }

    /// Waits for a place; nothing where too many of this source wait already.
    pub(crate) async fn wait(&self, source: Source) -> Option<Place> {
        let _waiting = self.begin_to_wait(source)?;
        loop {
            let freed = self.0.freed.notified();
            if let Some(place) = self.take(source, Instant::now()) {
                return Some(place);
            }
            // Others grow old meanwhile.
            let _ = tokio::time::timeout(PATIENCE / 4, freed).await;
        }
    }

    fn begin_to_wait(&self, source: Source) -> Option<Waiting> {
        let mut inner = self.0.inner();
        let waiting = inner.waiting.entry(source).or_default();
        if *waiting >= self.0.limit {
            return None;
        }
        *waiting += 1;
        Some(Waiting { shared: self.0.clone(), source })
    }

    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.0.inner().taken.len()
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves the counts whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whose place a newcomer gets.
    fn victim(&self, newcomer: Source, now: Instant) -> Option<u64> {
        let own = self.sources.get(&newcomer).copied().unwrap_or(0);
        let (greedy, most) = self.sources.iter().max_by_key(|(_, count)| **count)?;
        if *most > own + 1 {
            return self.taken.iter().find(|(_, taken)| taken.source == *greedy).map(|(number, _)| *number);
        }
        let (oldest, taken) = self.taken.first_key_value()?;
        (taken.source != newcomer && now.saturating_duration_since(taken.since) >= PATIENCE).then_some(*oldest)
    }

    fn give_back(&mut self, number: u64) -> Option<Taken> {
        let taken = self.taken.remove(&number)?;
        if let Some(count) = self.sources.get_mut(&taken.source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&taken.source);
            }
        }
        Some(taken)
    }
}

impl Place {
    /// Counts as a stranger from now on.
    pub(crate) fn counted(self, load: &Load) -> Self {
        let mut place = self;
        place.counts = Some(load.stranger());
        place
    }

    pub(crate) fn eviction(&self) -> Arc<Eviction> {
        self.eviction.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.inner().give_back(self.number);
        self.shared.freed.notify_waiters();
    }
}

struct Waiting {
    shared: Arc<Shared>,
    source: Source,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut inner = self.shared.inner();
        if let Some(waiting) = inner.waiting.get_mut(&self.source) {
            *waiting -= 1;
            if *waiting == 0 {
                inner.waiting.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_with_fewer_gets_the_oldest_place_of_the_one_with_most() {
        let (places, now) = (Places::new(4), Instant::now());
        let greedy: Vec<_> = (0..4).map(|_| places.take(1, now).unwrap()).collect();
        assert!(places.take(1, now).is_none(), "its share is all there is");
        let other = places.take(2, now).unwrap();
        assert!(greedy[0].eviction.is_done() && !greedy[1].eviction.is_done());
        let _second = places.take(2, now).unwrap();
        assert!(greedy[1].eviction.is_done());
        assert!(places.take(2, now).is_none(), "two and two: nobody has more than the other");
        let third = places.take(3, now);
        assert!(third.is_some(), "and somebody new is still let in");
        assert_eq!(places.taken(), 4);
        drop((greedy, other, third));
    }

    #[test]
    fn one_place_each_is_kept_for_a_while_and_no_longer() {
        let (places, now) = (Places::new(8), Instant::now());
        let held: Vec<_> = (0..8).map(|source| places.take(source, now).unwrap()).collect();
        assert!(places.take(99, now).is_none());
        let late = places.take(99, now + PATIENCE);
        assert!(late.is_some());
        assert!(held[0].eviction.is_done() && !held[1].eviction.is_done());
        // The oldest place is now that of source 1.
        assert!(places.take(1, now + PATIENCE).is_none(), "nobody pushes himself out");
        drop((held, late));
    }

    #[test]
    fn counts_come_back_to_nothing() {
        let (places, now) = (Places::new(2), Instant::now());
        for round in 0..100 {
            drop((places.take(round, now), places.take(round + 1, now), places.take(round + 2, now)));
        }
        assert_eq!(places.taken(), 0);
        assert!(places.0.inner().sources.is_empty());
    }
}
