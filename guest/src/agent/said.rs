//! What would be said in the output over and over.
//!
//! The output is kept in a ring: what somebody can have said without an end would wash away all else.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// After so long the same is said again.
const AGAIN: Duration = Duration::from_mins(1);

/// What was said last of each thing, and when. As many things as a spec names.
#[derive(Default)]
pub struct Said(Mutex<HashMap<String, (String, Instant)>>);

impl Said {
    /// Whether `cause` is to be said of `about`: it is another one than last time, or a minute has passed.
    pub(super) fn is_due(&self, about: &str, cause: &str, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let again =
            said.get(about).is_none_or(|(last, at)| last != cause || now.saturating_duration_since(*at) >= AGAIN);
        if again {
            said.insert(about.to_owned(), (cause.to_owned(), now));
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_and_something_else_at_once() {
        let (said, start) = (Said::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(said.is_due("secret pw", "refused", start));
        assert!((1..60).all(|second| !said.is_due("secret pw", "refused", after(second))));
        assert!(said.is_due("secret token", "refused", after(1)), "of another it was not said yet");
        assert!(said.is_due("secret pw", "no room", after(2)));
        assert!(said.is_due("secret pw", "refused", after(3)));
        assert!(!said.is_due("secret pw", "refused", after(62)));
        assert!(said.is_due("secret pw", "refused", after(63)));
    }
}
