//! When a box that ended is started again by itself, in Docker's words, and after how long. Pure.
//!
//! Source: moby 26.1, restartmanager and container.RestartPolicy.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What becomes of a box that ended, other than by hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RestartPolicy {
    /// It stays as it is.
    #[default]
    No,
    /// It is started again if its status is not 0; at most so often, if there is a number.
    OnFailure(Option<u32>),
    /// It is started again; at boot also one that was stopped by hand.
    Always,
    /// It is started again, unless it was stopped by hand.
    UnlessStopped,
}

/// Why a word is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It is none of the four.
    #[error("invalid restart policy: unknown policy {0:?}; use one of no, always, on-failure or unless-stopped")]
    Unknown(String),
    /// Behind the colon.
    #[error("invalid restart policy: {0:?} is no count of at least 1, and only on-failure has one")]
    Count(String),
}

impl FromStr for RestartPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let (word, count) = text.split_once(':').map_or((text, None), |(word, count)| (word, Some(count)));
        let bad_count = || PolicyError::Count(count.unwrap_or_default().into());
        match (word, count) {
            ("on-failure", None) => Ok(Self::OnFailure(None)),
            ("on-failure", Some(count)) => {
                let most = count.parse().ok().filter(|most| *most > 0).ok_or_else(bad_count)?;
                Ok(Self::OnFailure(Some(most)))
            }
            ("no" | "always" | "unless-stopped", Some(_)) => Err(bad_count()),
            ("no" | "", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            _ => Err(PolicyError::Unknown(text.into())),
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        text.parse()
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> Self {
        policy.to_string()
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::OnFailure(Some(most)) => write!(f, ":{most}"),
            _ => Ok(()),
        }
    }
}

impl RestartPolicy {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// How often at most; 0 where there is no bound.
    pub const fn most(self) -> u32 {
        match self {
            Self::OnFailure(Some(most)) => most,
            _ => 0,
        }
    }

    /// A box that nobody stopped, and that ended with this code after so many restarts, is started again.
    pub fn restarts(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(most) => code != 0 && most.is_none_or(|most| restarts < most),
            Self::Always | Self::UnlessStopped => true,
        }
    }

    /// A box that once ran, and does not now that the machine has booted, is started.
    pub fn resumes(self, code: i32, restarts: u32, stopped_by_hand: bool) -> bool {
        match self {
            Self::Always => true,
            _ => !stopped_by_hand && self.restarts(code, restarts),
        }
    }
}

/// How long to wait before a start, after the wait before and the run since: 100 ms, twice as long each time up to a minute, and
/// from the beginning after a run of 10 s.
pub fn wait_after(before: Option<Duration>, ran: Duration) -> Duration {
    match before {
        Some(before) if ran < LONG_RUN => (before * 2).clamp(SHORTEST, LONGEST),
        _ => SHORTEST,
    }
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_mins(1);
const LONG_RUN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written_and_nothing_else_is_one() {
        for text in ["no", "always", "unless-stopped", "on-failure", "on-failure:3"] {
            let policy: RestartPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
            let json = serde_json::to_string(&policy).unwrap();
            assert_eq!(serde_json::from_str::<RestartPolicy>(&json).unwrap(), policy);
        }
        for bad in
            ["bad", "Always", "on-failure:", "on-failure:0", "on-failure:-1", "on-failure:x", "always:3", "no:1", ":3"]
        {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad}");
        }
        assert!(
            "bad"
                .parse::<RestartPolicy>()
                .unwrap_err()
                .to_string()
                .contains("no, always, on-failure or unless-stopped")
        );
    }

    #[test]
    fn who_restarts_and_who_resumes() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        for (policy, code, count, restarts, resumes, resumes_by_hand) in [
            (No, 1, 0, false, false, false),
            (Always, 0, 9, true, true, true),
            (UnlessStopped, 0, 9, true, true, false),
            (OnFailure(None), 0, 0, false, false, false),
            (OnFailure(None), 1, 99, true, true, false),
            (OnFailure(Some(2)), 1, 1, true, true, false),
            (OnFailure(Some(2)), 1, 2, false, false, false),
        ] {
            assert_eq!(policy.restarts(code, count), restarts, "{policy} {code} {count}");
            assert_eq!(policy.resumes(code, count, false), resumes, "{policy} {code} {count}");
            assert_eq!(policy.resumes(code, count, true), resumes_by_hand, "{policy} {code} {count}");
        }
    }

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_begins_anew_after_a_long_run() {
        let mut waits = vec![wait_after(None, Duration::ZERO)];
        for _ in 0..12 {
            waits.push(wait_after(waits.last().copied(), Duration::from_secs(1)));
        }
        assert_eq!(waits[..4], [100, 200, 400, 800].map(Duration::from_millis));
        assert_eq!(waits.last(), Some(&Duration::from_mins(1)));
        assert_eq!(wait_after(waits.last().copied(), Duration::from_secs(10)), Duration::from_millis(100));
    }
}
