//! What the agent says among the workload's output: for whoever may read that, and nobody else.
//!
//! Never: says more than one line a second of one kind, however often something happens; what was left out is counted. Of what strangers
//! can make happen, each line is twice as far behind the one before it, up to an hour.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use coffer_guest_proto::Stream;

use crate::{log_ring::LogRing, workload::unix_nanos};

/// How far lines of one kind are apart.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest line, in characters.
pub const LONGEST: usize = 800;
/// How far lines about strangers come to be apart.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Lines of one kind.
pub struct Notices {
    logs: Arc<LogRing>,
    about: String,
    last: Mutex<Option<Last>>,
    /// Pauses grow.
    of_strangers: bool,
}

#[derive(Clone, Copy)]
struct Last {
    at: Instant,
    pause: Duration,
    /// What was not said since.
    silent: u64,
}

impl Notices {
    /// Lines about this.
    pub fn new(logs: &Arc<LogRing>, about: String) -> Self {
        Self { logs: logs.clone(), about, last: Mutex::new(None), of_strangers: false }
    }

    /// Lines about what anybody can make happen.
    pub fn of_strangers(logs: &Arc<LogRing>, about: String) -> Self {
        Self { of_strangers: true, ..Self::new(logs, about) }
    }

    /// Says it, or counts it where something was said a moment ago.
    pub async fn say(&self, what: &str) {
        if let Some(line) = self.line(what, Instant::now()) {
            self.logs.push(Stream::Stderr, unix_nanos(), line.as_bytes()).await;
        }
    }

    fn line(&self, what: &str, now: Instant) -> Option<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (silent, pause) = match &mut *last {
            Some(Last { at, pause, silent }) if now.saturating_duration_since(*at) < *pause => {
                *silent = silent.saturating_add(1);
                return None;
            }
            Some(Last { pause, silent, .. }) if self.of_strangers => (*silent, (*pause * 2).min(LONGEST_PAUSE)),
            Some(Last { silent, .. }) => (*silent, PAUSE),
            None => (0, PAUSE),
        };
        *last = Some(Last { at: now, pause, silent: 0 });
        let what: String = what.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        let before = if silent == 0 { String::new() } else { format!(" ({silent} before it)") };
        Some(format!("coffer: {}: {what}{before}\n", self.about))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_with_the_number_of_the_others() {
        let notices = Notices::new(&Arc::new(LogRing::new(1024)), "peer db".into());
        let start = Instant::now();
        assert_eq!(notices.line("refused\nby \u{1b}name", start).unwrap(), "coffer: peer db: refusedby name\n");
        for _ in 0..3 {
            assert_eq!(notices.line("refused", start), None);
        }
        assert_eq!(notices.line("again", start + PAUSE).unwrap(), "coffer: peer db: again (3 before it)\n");
        let long = notices.line(&"x".repeat(5000), start + 2 * PAUSE).unwrap();
        assert!(long.len() < 2 * LONGEST, "{}", long.len());
    }

    #[test]
    fn a_stranger_who_never_tires_gets_a_line_an_hour() {
        let notices = Notices::of_strangers(&Arc::new(LogRing::new(1024)), "port 1".into());
        let start = Instant::now();
        let day = (0..86_400).filter(|second| notices.line("no", start + Duration::from_secs(*second)).is_some());
        let lines = day.count();
        assert!((24..=40).contains(&lines), "{lines}");
    }
}
