//! Whether anything that is listed admits an attested guest. Whoever is not admitted stays a stranger.

use std::sync::{Mutex, MutexGuard, PoisonError};

use coffer_verifier::CheckLine;

/// What was found when the ledger was last looked at, and when that was.
#[derive(Clone, Debug)]
pub struct Found {
    /// Last change of the ledger that was seen.
    pub changes: u64,
    /// Edition of the configured rules.
    pub edition: u64,
    /// When it was looked at.
    pub now: i64,
    /// What admits it, by name, or why nothing does.
    pub verdict: Result<Vec<String>, NotListed>,
}

/// Why nothing that is listed admits a guest.
#[derive(Clone, Debug)]
pub struct NotListed {
    /// Every reason.
    pub reasons: Vec<String>,
    /// Every check of the evidence.
    pub checks: Vec<CheckLine>,
}

/// What is known about one guest; nobody until it was looked for.
#[derive(Default)]
pub struct Standing(Mutex<Option<Found>>);

impl Standing {
    /// Keeps what was found.
    pub fn put(&self, found: Found) {
        *self.inner() = Some(found);
    }

    /// Forgets it: the ledger is asked again before anything is released.
    pub fn forget(&self) {
        *self.inner() = None;
    }

    /// What admits it, if anything does, and the last change of the ledger that was seen then.
    pub fn admitted(&self) -> Option<(u64, Vec<String>)> {
        self.inner().as_ref().and_then(|found| Some((found.changes, found.verdict.as_ref().ok()?.clone())))
    }

    /// Why it is a stranger, as long as neither ledger nor rules have changed since, nor the clock gone back.
    pub fn stranger(&self, changes: u64, edition: u64, now: i64) -> Option<NotListed> {
        let found = self.inner().clone()?;
        found.verdict.err().filter(|_| (found.changes, found.edition) == (changes, edition) && now >= found.now)
    }

    fn inner(&self) -> MutexGuard<'_, Option<Found>> {
        // Critical sections move one value.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
