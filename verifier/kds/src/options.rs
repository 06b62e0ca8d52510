//! What a client is told once.

use std::path::PathBuf;
use std::time::Duration;

use coffer_verifier::TrustAnchors;

use crate::address::Base;
use crate::budget::Rate;
use crate::check::Issuer;
use crate::error::FetchError;

/// Whom a client asks, what it believes, and its bounds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Whom it asks; nobody where none is named.
    pub base: Option<Base>,
    /// Whose certificates these are.
    pub issuer: Issuer,
    /// Where it keeps them over a restart; nowhere where none is named.
    pub folder: Option<PathBuf>,
    /// Longest for one request.
    pub timeout: Duration,
    /// Longest that a caller waits for one item, pauses of the service included.
    pub patience: Duration,
    /// Age at which a list that is still valid is asked for anew, beside its use.
    pub refresh: Duration,
    /// How long it is believed that the service has none.
    pub refused_for: Duration,
    /// First and longest rest after a failure: no item is asked for in a circle.
    pub rest: (Duration, Duration),
    /// Longest pause that a service may ask for.
    pub longest_pause: Duration,
    /// What reports of chips not seen before may make it ask, together.
    pub strangers: Rate,
    /// Of these, requests at once.
    pub strangers_at_once: usize,
    /// What reports of one chip that was seen before may make it ask: it has a new TCB now and then. Beyond that it is a stranger.
    pub each_chip: Rate,
    /// Leaves held in memory, and in the folder.
    pub max_leaves: usize,
    /// Bytes that one import takes in.
    pub max_import: usize,
}

impl Options {
    fn new(base: Option<Base>, issuer: Issuer) -> Self {
        Self {
            base,
            issuer,
            folder: None,
            timeout: Duration::from_secs(10),
            patience: Duration::from_secs(20),
            refresh: Duration::from_hours(12),
            refused_for: Duration::from_mins(10),
            rest: (Duration::from_millis(250), Duration::from_mins(1)),
            longest_pause: Duration::from_mins(10),
            strangers: Rate { burst: 64, every: Duration::from_secs(2) },
            strangers_at_once: 4,
            each_chip: Rate { burst: 4, every: Duration::from_mins(5) },
            max_leaves: 4096,
            max_import: 64 << 20,
        }
    }

    /// AMD's roots, AMD's service.
    pub fn amd() -> Self {
        Self::new(Some(Base::amd()), Issuer::Amd)
    }

    /// AMD's roots, a mirror of its service.
    pub fn mirror(base: Base) -> Self {
        Self::new(Some(base), Issuer::Amd)
    }

    /// A simulator's service, and these of its roots. What comes from it endorses nothing under AMD's.
    pub fn simulated(base: Base, anchors: TrustAnchors) -> Self {
        Self::new(Some(base), Issuer::Simulated(anchors))
    }

    /// What is said of an answer that did not come in time.
    pub(crate) const fn slow(&self) -> FetchError {
        FetchError::Slow { within: self.patience }
    }

    /// Asks nobody: what is in the folder is all there is.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.base = None;
        self
    }

    /// Keeps what it gets in this folder.
    #[must_use]
    pub fn kept_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }
}
