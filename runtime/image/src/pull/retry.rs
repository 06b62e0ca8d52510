//! Once more, after a while, a bounded number of times.

use super::options::{Progress, ProgressFn, PullOptions};
use crate::error::{ImageError, Result};
use crate::registry::{Passing, Registry};
use std::time::Duration;

/// How often, how soon, and who is told.
pub(crate) struct Retry {
    retries: u32,
    backoff: Duration,
    patience: Duration,
    progress: Option<ProgressFn>,
}

impl Retry {
    pub(crate) fn new(options: &PullOptions) -> Self {
        let (retries, backoff, patience) = (options.retries, options.backoff, options.patience);
        Self { retries, backoff, patience, progress: options.progress.clone() }
    }

    pub(crate) fn report(&self, progress: &Progress) {
        if let Some(callback) = &self.progress {
            callback(progress);
        }
    }

    /// Waits before the next try, or gives up.
    pub(crate) async fn pause(
        &self,
        registry: &Registry,
        what: &str,
        attempt: &mut u32,
        passing: Passing,
    ) -> Result<()> {
        let Passing { reason, too_many, after } = passing;
        if *attempt >= self.retries || after.is_some_and(|after| after > self.patience) {
            let (registry, attempts) = (registry.name().to_owned(), *attempt + 1);
            let after = after.map(|after| after.as_secs());
            return Err(match (too_many, after) {
                (true, after) => ImageError::TooManyRequests { registry, attempts, reason, after },
                (false, None) => ImageError::Unreachable { registry, attempts, reason },
                (false, Some(after)) => {
                    let reason = format!("{reason}, and asks to be left alone for {after} s");
                    ImageError::Unreachable { registry, attempts, reason }
                }
            });
        }
        *attempt += 1;
        tracing::debug!(what, attempt = *attempt, reason, "retrying");
        let own = self.backoff.saturating_mul(1 << (*attempt - 1).min(16)).min(Duration::from_secs(5));
        let wait = own.max(after.unwrap_or_default());
        self.report(&Progress::Retrying { what: what.to_owned(), attempt: *attempt, reason, wait });
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
