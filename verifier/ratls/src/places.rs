//! Places for strangers: connections that have shown nothing yet. Shared fairly between the sources they come from.
//!
//! Who comes while all places are taken gets one from the source that has the most, if it has fewer itself, or that of somebody
//! who sat silently for a while, though he be of the same source: from the network everybody comes as one. Those who wait get theirs in
//! the order in which they came. Nobody who is known holds a place, and nobody who is known loses anything here.
//! Trusts: nobody. Never: lets one source keep another out for longer than [`PATIENCE`], lets whoever sits there keep his own source out for
//! longer than that.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    /// By number: whoever came first.
    waiting: HashMap<Source, BTreeSet<u64>>,
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

/// How many of one source may wait, where there are fewer places than these.
const WAITING: usize = 128;
/// What whoever shows nothing keeps his place for however many wait: a handshake on a long way.
const LEAST: Duration = Duration::from_millis(250);
/// How often whoever is next looks.
const LOOK: Duration = Duration::from_millis(50);

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

    /// A place, or nothing if all are taken by others with no more than this source has, none of whom has sat there for a while.
    pub(crate) fn take(&self, source: Source, now: Instant) -> Option<Place> {
        let mut inner = self.0.inner();
        if inner.taken.len() >= self.0.limit {
            let victim = inner.victim(source, now)?;
            if let Some(taken) = inner.give_back(victim) {
                taken.eviction.done.store(true, Ordering::Release);
                taken.eviction.told.notify_waiters();
            }
        }
        let number = inner.number();
        let eviction = Arc::<Eviction>::default();
        inner.taken.insert(number, Taken { source, since: now, eviction: eviction.clone() });
        *inner.sources.entry(source).or_default() += 1;
        Some(Place { shared: self.0.clone(), number, eviction, counts: None })
    }

    /// Waits for a place; nothing where too many of this source wait already.
    pub(crate) async fn wait(&self, source: Source) -> Option<Place> {
        let waiting = self.begin_to_wait(source)?;
        loop {
            let freed = self.0.freed.notified();
            if waiting.is_next()
                && let Some(place) = self.take(source, Instant::now())
            {
                return Some(place);
            }
            // Others grow old meanwhile.
            let pause = if waiting.is_next() { LOOK } else { PATIENCE };
            let _ = tokio::time::timeout(pause, freed).await;
        }
    }

    fn begin_to_wait(&self, source: Source) -> Option<Waiting> {
        let mut inner = self.0.inner();
        let number = inner.number();
        let waiting = inner.waiting.entry(source).or_default();
        if waiting.len() >= self.0.limit.max(WAITING) {
            return None;
        }
        waiting.insert(number);
        Some(Waiting { shared: self.0.clone(), source, number })
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
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How long whoever shows nothing keeps his place: less, the more there are who wait.
    fn patience(&self) -> Duration {
        let waiting: usize = self.waiting.values().map(BTreeSet::len).sum();
        let rounds = waiting / self.taken.len().max(1);
        (PATIENCE / u32::try_from(rounds.max(1)).unwrap_or(u32::MAX)).max(LEAST)
    }

    /// Whose place a newcomer gets: never that of a source which has fewer than his own.
    fn victim(&self, newcomer: Source, now: Instant) -> Option<u64> {
        let own = self.sources.get(&newcomer).copied().unwrap_or(0);
        let most = self.sources.values().max().copied()?;
        let (least, sat) = if most > own + 1 { (most, Duration::ZERO) } else { (own, self.patience()) };
        let has_enough = |taken: &Taken| self.sources.get(&taken.source).is_some_and(|count| *count >= least);
        let (oldest, taken) = self.taken.iter().find(|(_, taken)| has_enough(taken))?;
        (now.saturating_duration_since(taken.since) >= sat).then_some(*oldest)
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

/// Somebody who waits, until it is dropped.
struct Waiting {
    shared: Arc<Shared>,
    source: Source,
    number: u64,
}

impl Waiting {
    /// Nobody of its source came before.
    fn is_next(&self) -> bool {
        self.shared.inner().waiting.get(&self.source).and_then(BTreeSet::first) == Some(&self.number)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut inner = self.shared.inner();
        if let Some(waiting) = inner.waiting.get_mut(&self.source) {
            waiting.remove(&self.number);
            if waiting.is_empty() {
                inner.waiting.remove(&self.source);
            }
        }
        drop(inner);
        // There may be more places than one.
        self.shared.freed.notify_waiters();
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
        let own = places.take(1, now + PATIENCE);
        assert!(own.is_some() && held[1].eviction.is_done(), "nor does anybody keep his own source out");
        drop((held, late, own));
    }

    #[test]
    fn a_source_that_has_many_pushes_out_its_own_and_nobody_who_has_fewer() {
        let (places, now) = (Places::new(4), Instant::now());
        let other = places.take(2, now).unwrap();
        let many: Vec<_> = (0..3).map(|_| places.take(1, now).unwrap()).collect();
        let next = places.take(1, now + PATIENCE).unwrap();
        assert!(many[0].eviction.is_done() && !other.eviction.is_done());
        drop((many, next));
    }

    #[test]
    fn the_more_wait_the_shorter_whoever_shows_nothing_stays() {
        let places = Places::new(8);
        let now = Instant::now();
        let held: Vec<_> = (0..8).map(|_| places.take(1, now).unwrap()).collect();
        let waiting: Vec<_> = (0..64).map(|_| places.begin_to_wait(1).unwrap()).collect();
        assert!(places.take(1, now + LEAST / 2).is_none(), "a handshake has its time");
        let next = places.take(1, now + LEAST).unwrap();
        assert!(held[0].eviction.is_done() && !held[1].eviction.is_done());
        drop(waiting);
        assert!(places.take(1, now + PATIENCE / 2).is_none(), "nobody waits any more");
        assert!(places.take(1, now + PATIENCE).is_some());
        drop(next);
    }

    #[tokio::test]
    async fn those_of_one_source_get_theirs_in_the_order_in_which_they_came() {
        let places = Places::new(2);
        let silent = [places.take(1, Instant::now()).unwrap(), places.take(1, Instant::now()).unwrap()];
        let mut all = tokio::task::JoinSet::new();
        for number in 0..WAITING {
            let own = places.clone();
            all.spawn(async move { (number, own.wait(1).await) });
            while places.0.inner().waiting.get(&1).map_or(0, BTreeSet::len) <= number {
                tokio::task::yield_now().await;
            }
        }
        assert!(places.wait(1).await.is_none(), "so many wait, and no more");
        let mut order = Vec::new();
        while let Some(Ok((number, place))) = all.join_next().await {
            assert!(place.is_some());
            order.push(number);
        }
        assert_eq!(order, (0..WAITING).collect::<Vec<_>>());
        assert!(silent.iter().all(|place| place.eviction.is_done()));
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
