//! How much a stranger may make us ask, and what was refused lately. Bounded, whatever comes.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// So many at once, then one each `every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once, after a rest.
    pub burst: u32,
    /// Then one each.
    pub every: Duration,
}

/// What is left of a [`Rate`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    left: u32,
    since: Instant,
}

impl Bucket {
    pub(crate) fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.burst, since: now }
    }

    /// Takes one; or says when there will be one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let every = self.rate.every.max(Duration::from_millis(1));
        let passed = now.saturating_duration_since(self.since);
        let earned = u32::try_from(passed.as_nanos() / every.as_nanos()).unwrap_or(u32::MAX);
        if earned >= self.rate.burst.saturating_sub(self.left) {
            (self.left, self.since) = (self.rate.burst, now);
        } else {
            self.left += earned;
            self.since += every * earned;
        }
        if self.left == 0 {
            return Err((self.since + every).saturating_duration_since(now));
        }
        self.left -= 1;
        Ok(())
    }
}

/// Values that are of use until a moment; of too many, those whose moment is nearest go.
#[derive(Debug)]
pub(crate) struct Until<K, V> {
    most: usize,
    all: HashMap<K, (Instant, V)>,
}

impl<K: Copy + Eq + Hash, V> Until<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, all: HashMap::new() }
    }

    /// The value and its moment, also if that is past.
    pub(crate) fn get(&self, key: &K) -> Option<&(Instant, V)> {
        self.all.get(key)
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.all.remove(key);
    }

    pub(crate) fn put(&mut self, key: K, until: Instant, value: V) {
        if self.all.len() >= self.most && !self.all.contains_key(&key) {
            let mut moments: Vec<_> = self.all.iter().map(|(key, (until, _))| (*until, *key)).collect();
            moments.sort_by_key(|(until, _)| *until);
            for (_, old) in moments.iter().take((self.most / 8).max(1)) {
                self.all.remove(old);
            }
        }
        self.all.insert(key, (until, value));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_gives_its_burst_then_one_at_a_time() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::full(Rate { burst: 3, every: second }, start);
        for _ in 0..3 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(second));
        assert_eq!(bucket.take(start + second / 2), Err(second / 2));
        assert_eq!(bucket.take(start + second), Ok(()));
        assert!(bucket.take(start + second).is_err());
        // A rest earns the burst and no more.
        let later = start + second * 1000;
        assert_eq!((0..10).filter(|_| bucket.take(later).is_ok()).count(), 3);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_nearest_moment_goes_first() {
        let now = Instant::now();
        let mut all = Until::new(16);
        for key in 0..1000_u64 {
            all.put(key, now + Duration::from_secs(key), ());
            assert!(all.len() <= 16);
        }
        assert!(all.get(&999).is_some() && all.get(&0).is_none());
    }
}
