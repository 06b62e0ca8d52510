//! What time it is: what the key broker said on an attested connection, or, without a broker, what the host said at launch.
//!
//! Trusts: the broker behind the pinned key, and this kernel's monotonic clock since its word. Never: takes the host's clock where
//! the spec names a broker, or lets one that has not spoken yet stand for it.
//! Source: docs/design/guest.md §8; docs/design/protocol.md §4.7.

use std::{
    sync::{Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use coffer_ratls::ToldTime;
use coffer_spec::WorkloadSpec;
use coffer_verifier::UnixTime;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::host::Host;

/// Seconds that the system's clock may differ before it is set: what a reply takes is no reason to let it jump.
const DRIFT: u64 = 2;

/// The last that a broker said, to this process.
static TOLD: Mutex<Option<ToldTime>> = Mutex::new(None);

/// Takes a broker's word. In a machine the system's clock follows it; in namespaces that one is the host's own.
pub fn told(word: ToldTime, host: Host) {
    *TOLD.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
    if host != Host::Vsock {
        return;
    }
    let (now, system) = (since(word, Instant::now()), clock_gettime(ClockId::Realtime).tv_sec);
    if u64::try_from(system).is_ok_and(|system| system.abs_diff(now) < DRIFT) {
        return;
    }
    if let Ok(tv_sec) = i64::try_from(now) {
        let _ = clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec: 0 });
    }
}

/// The time that decisions are made by. Of the host's clock, what is needed of it is no more than the spec's floor.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    has_broker: bool,
    not_before: u64,
}

impl Clock {
    /// Of the guest of this spec.
    pub fn of(spec: &WorkloadSpec) -> Self {
        Self { has_broker: spec.kbs.is_some(), not_before: spec.floors.not_before }
    }

    /// Now; nothing while the broker that the spec names has not said what time it is.
    pub fn now(self) -> Option<UnixTime> {
        self.at(*TOLD.lock().unwrap_or_else(PoisonError::into_inner), Instant::now(), SystemTime::now().into())
    }

    fn at(self, told: Option<ToldTime>, instant: Instant, system: UnixTime) -> Option<UnixTime> {
        let now = if self.has_broker { seconds(since(told?, instant)) } else { system };
        Some(now.max(seconds(self.not_before)))
    }
}

fn since(word: ToldTime, now: Instant) -> u64 {
    word.unix_seconds.saturating_add(now.saturating_duration_since(word.at).as_secs())
}

fn seconds(unix: u64) -> UnixTime {
    UnixTime::from_secs(i64::try_from(unix).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn with_a_broker_nothing_but_its_word_is_the_time() {
        let (system, now) = (UnixTime::from_secs(5_000_000_000), Instant::now());
        let with = Clock { has_broker: true, not_before: 1_000 };
        assert_eq!(with.at(None, now, system), None);
        let word = Some(ToldTime { unix_seconds: 2_000, at: now });
        assert_eq!(with.at(word, now + Duration::from_secs(90), system), Some(UnixTime::from_secs(2_090)));
        // One that is behind the spec's floor does not undo it.
        let early = Some(ToldTime { unix_seconds: 5, at: now });
        assert_eq!(with.at(early, now, system), Some(UnixTime::from_secs(1_000)));
    }

    #[test]
    fn without_a_broker_it_is_the_systems_and_never_before_the_floor() {
        let without = Clock { has_broker: false, not_before: 1_000 };
        let (now, word) = (Instant::now(), Some(ToldTime { unix_seconds: 7, at: Instant::now() }));
        assert_eq!(without.at(word, now, UnixTime::from_secs(3_000)), Some(UnixTime::from_secs(3_000)));
        assert_eq!(without.at(word, now, UnixTime::from_secs(3)), Some(UnixTime::from_secs(1_000)));
    }

    #[test]
    fn a_word_without_end_is_no_overflow() {
        let word = ToldTime { unix_seconds: u64::MAX, at: Instant::now() };
        let clock = Clock { has_broker: true, not_before: 0 };
        assert_eq!(clock.at(Some(word), Instant::now(), UnixTime::from_secs(0)), Some(UnixTime::from_secs(i64::MAX)));
    }
}
