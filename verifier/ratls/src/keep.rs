//! A long call on an attested connection: the server is challenged again before its last result is too old.
//!
//! A stream that began under one report must not go on under none. Whoever verifies asks again; silence and refusal both end
//! the call.
//! Source: docs/design/protocol.md §4.6.

use core::time::Duration;
use std::{sync::Arc, time::Instant};

use crate::{appraisal::RESULT_LIFETIME, client::AttestedConnection, lapse::Lapsed, state::CHALLENGE_LIFETIME};

/// When a verifying client asks again: early enough that an answer in time comes before the last result is too old.
pub const CHALLENGE_AGAIN_AFTER: Duration = RESULT_LIFETIME.saturating_sub(CHALLENGE_LIFETIME);

impl<T: Send + Sync + 'static> AttestedConnection<T> {
    /// Runs `call`, and challenges the server again each [`CHALLENGE_AGAIN_AFTER`] for as long as it takes.
    ///
    /// # Errors
    /// [`Lapsed`] if the server does not answer in time, or its evidence is refused; `call` is dropped then.
    pub async fn kept<F: Future>(&self, call: F) -> Result<F::Output, Lapsed> {
        self.kept_each(CHALLENGE_AGAIN_AFTER, call).await
    }

    /// As [`Self::kept`], with another interval.
    ///
    /// # Errors
    /// As [`Self::kept`].
    pub async fn kept_each<F: Future>(&self, interval: Duration, call: F) -> Result<F::Output, Lapsed> {
        let again = async {
            loop {
                if let Err(lapsed) = self.renewed_after(interval).await {
                    return lapsed;
                }
                let due = self.attested().at() + interval;
                tokio::time::sleep_until(due.into()).await;
            }
        };
        let mut heard = self.keeping().lapsed.subscribe();
        let lapsed_for_all = async move {
            loop {
                if let Some(lapsed) = heard.borrow_and_update().clone() {
                    return lapsed;
                }
                if heard.changed().await.is_err() {
                    core::future::pending::<()>().await;
                }
            }
        };
        // What the server says once it has lapsed is not asked for any more, ready or not.
        tokio::select! {
            biased;
            lapsed = lapsed_for_all => Err(lapsed),
            lapsed = again => Err(lapsed),
            output = call => Ok(output),
        }
    }

    /// Challenges the server again if its last result is older than [`CHALLENGE_AGAIN_AFTER`].
    ///
    /// # Errors
    /// [`Lapsed`].
    pub async fn renewed_in_time(&self) -> Result<(), Lapsed> {
        self.renewed_after(CHALLENGE_AGAIN_AFTER).await
    }

    /// The long calls of one connection fall due together: one of them asks for all, and what it hears they all hear.
    async fn renewed_after(&self, interval: Duration) -> Result<(), Lapsed> {
        let keeping = self.keeping();
        let _turn = keeping.turn.lock().await;
        if let Some(lapsed) = keeping.lapsed.borrow().clone() {
            return Err(lapsed);
        }
        if Instant::now() < self.attested().at() + interval {
            return Ok(());
        }
        match self.renew().await {
            Ok(()) => Ok(()),
            Err(error) => {
                let lapsed = Lapsed(Arc::new(error));
                keeping.lapsed.send_replace(Some(lapsed.clone()));
                Err(lapsed)
            }
        }
    }
}
