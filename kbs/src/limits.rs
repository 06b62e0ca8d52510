//! What strangers and guests may cost: as configured, and token buckets per source or guest. Bounded memory, whoever comes.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};

/// Limits, as they are configured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsEntry {
    /// Connections at once, all told.
    pub connections: usize,
    /// Connections at once that have not attested.
    pub unattested: usize,
    /// Seconds a connection may go without attesting.
    pub unattested_seconds: u64,
    /// Connections at once from one address; all boxes of a host share one.
    pub connections_per_source: usize,
    /// New connections per second from one address.
    pub new_per_second_per_source: u32,
    /// Requests per second of one guest.
    pub requests_per_second_per_guest: u32,
}

impl Default for LimitsEntry {
    fn default() -> Self {
        Self {
            connections: 1024,
            unattested: 64,
            unattested_seconds: 60,
            connections_per_source: 256,
            new_per_second_per_source: 50,
            requests_per_second_per_guest: 20,
        }
    }
}

impl LimitsEntry {
    /// What means nothing, or contradicts itself.
    pub(crate) fn mistakes(&self, mistakes: &mut Vec<String>) {
        for (name, value) in [
            ("connections", self.connections),
            ("unattested", self.unattested),
            ("connections_per_source", self.connections_per_source),
            ("new_per_second_per_source", self.new_per_second_per_source as usize),
            ("requests_per_second_per_guest", self.requests_per_second_per_guest as usize),
            ("unattested_seconds", self.unattested_seconds as usize),
        ] {
            if value == 0 || value > 1_000_000 {
                mistakes.push(format!("limits.{name} is {value}, expected 1 to 1000000"));
            }
        }
        if self.connections > 0 && self.unattested > self.connections {
            let (unattested, connections) = (self.unattested, self.connections);
            mistakes.push(format!(
                "limits.unattested is {unattested}, expected no more than limits.connections, {connections}"
            ));
        }
    }
}

/// How much at once, and how much per second after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens in a full bucket.
    pub burst: u32,
    /// Tokens that come back per second.
    pub per_second: u32,
}

/// One bucket per key.
pub struct Buckets<K> {
    rate: Rate,
    of_key: Mutex<HashMap<K, Bucket>>,
    refused: AtomicU64,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Keys remembered at once. When full, those that are at rest are forgotten; when none is, strangers are refused.
const KEYS: usize = 8192;

impl<K: Eq + Hash> Buckets<K> {
    /// Full buckets for everybody.
    pub fn new(rate: Rate) -> Self {
        Self { rate, of_key: Mutex::new(HashMap::new()), refused: AtomicU64::new(0) }
    }

    /// How often there was none.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes one token of `key`; false if there is none.
    pub fn take(&self, key: K, now: Instant) -> bool {
        let granted = self.granted(key, now);
        self.refused.fetch_add(u64::from(!granted), Ordering::Relaxed);
        granted
    }

    fn granted(&self, key: K, now: Instant) -> bool {
        // Critical sections leave whole buckets.
        let mut buckets = self.of_key.lock().unwrap_or_else(PoisonError::into_inner);
        let (burst, per_second) = (f64::from(self.rate.burst), f64::from(self.rate.per_second));
        let filled = |bucket: &Bucket| {
            let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
            seconds.mul_add(per_second, bucket.tokens).min(burst)
        };
        if buckets.len() >= KEYS && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| filled(bucket) < burst);
            if buckets.len() >= KEYS {
                return false;
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: burst, at: now });
        bucket.tokens = filled(bucket);
        bucket.at = now;
        let granted = bucket.tokens >= 1.0;
        if granted {
            bucket.tokens -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn grants_a_burst_and_then_the_rate() {
        let buckets = Buckets::new(Rate { burst: 3, per_second: 2 });
        let start = Instant::now();
        assert_eq!((0..5).filter(|_| buckets.take("a", start)).count(), 3);
        assert_eq!(buckets.refused(), 2);
        assert!(buckets.take("b", start), "another key has its own bucket");
        assert_eq!((0..5).filter(|_| buckets.take("a", start + Duration::from_secs(1))).count(), 2);
        assert_eq!((0..9).filter(|_| buckets.take("a", start + Duration::from_secs(100))).count(), 3);
    }

    #[test]
    fn forgets_the_resting_and_refuses_strangers_when_all_are_busy() {
        let buckets = Buckets::new(Rate { burst: 1, per_second: 1 });
        let start = Instant::now();
        for key in 0..KEYS {
            assert!(buckets.take(key, start));
        }
        assert!(!buckets.take(KEYS, start));
        assert!(buckets.take(KEYS, start + Duration::from_secs(2)));
    }
}
