//! What the agent says among the workload's output: for whoever may read that, and nobody else.
//!
//! Never: says more than one line a second of one kind, however often something happens; what was left out is counted.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use coffer_guest_proto::Stream;

use crate::{log_ring::LogRing, workload::unix_nanos};

/// How far lines of one kind are apart.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest line, in characters.
const LONGEST: usize = 400;

/// Lines of one kind.
pub struct Notices {
    logs: Arc<LogRing>,
    about: String,
    last: Mutex<Option<(Instant, u64)>>,
}

impl Notices {
    /// Lines about this.
    pub fn new(logs: &Arc<LogRing>, about: String) -> Self {
        Self { logs: logs.clone(), about, last: Mutex::new(None) }
    }

    /// Says it, or counts it where something was said a moment ago.
    pub async fn say(&self, what: &str) {
        if let Some(line) = self.line(what, Instant::now()) {
            self.logs.push(Stream::Stderr, unix_nanos(), line.as_bytes()).await;
        }
    }

    fn line(&self, what: &str, now: Instant) -> Option<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = match *last {
            Some((at, silent)) if now.saturating_duration_since(at) < PAUSE => {
                *last = Some((at, silent.saturating_add(1)));
                return None;
            }
            Some((_, silent)) => silent,
            None => 0,
        };
        *last = Some((now, 0));
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
}
