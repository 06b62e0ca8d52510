//! One question as it is put, and its answer.

use std::path::PathBuf;
use std::time::Duration;

/// Evidence of a case, as files and as it is posted.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Folder of all files.
    pub folder: PathBuf,
    /// The record (CMW).
    pub record: Vec<u8>,
    /// SHA-256 of the simulator root's public key, in hexadecimal.
    pub anchor: String,
    /// What the verifier asked for, in hexadecimal.
    pub report_data: String,
}

/// What a verifier answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Exit 0, or a status 2xx.
    Accepted,
    /// Exit 5.
    NotAuthentic,
    /// Exit 6.
    Refused,
    /// Any other exit status, or a status that says no.
    NotAccepted,
    /// It died by this signal.
    Killed(i32),
    /// It did not answer in time, and was killed with all it had started.
    TimedOut,
}

/// An answer, and how it was given.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The answer.
    pub answer: Answer,
    /// The end of what it printed: foreign text.
    pub output: String,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// Behind what had to be answered.
    pub fn clause(self) -> String {
        match self {
            Self::Killed(_) | Self::TimedOut => self.word(),
            _ => format!("was {}", self.word()),
        }
    }

    /// As it is printed.
    pub fn word(self) -> String {
        match self {
            Self::Accepted => "accepted".to_owned(),
            Self::NotAuthentic => "not-authentic".to_owned(),
            Self::Refused => "refused".to_owned(),
            Self::NotAccepted => "not accepted".to_owned(),
            Self::Killed(signal) => format!("died by signal {signal}"),
            Self::TimedOut => "timed out".to_owned(),
        }
    }
}
