//! A long call on an attested connection: the server is challenged again before its last result is too old.
//!
//! A stream that began under one report must not go on under none. Whoever verifies asks again; silence and refusal both end
//! the call.
//! Source: docs/design/protocol.md §4.6.

use core::time::Duration;
use std::time::Instant;

use crate::{
    appraisal::RESULT_LIFETIME,
    client::{AttestedConnection, ConnectError},
    state::CHALLENGE_LIFETIME,
};

/// When a verifying client asks again: early enough that an answer in time comes before the last result is too old.
pub const CHALLENGE_AGAIN_AFTER: Duration = RESULT_LIFETIME.saturating_sub(CHALLENGE_LIFETIME);

/// Why a long call ended before its end: the server did not show once more what it showed at first.
#[derive(Debug, thiserror::Error)]
#[error("the peer was challenged again and did not prove itself")]
pub struct Lapsed(#[source] pub ConnectError);

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
                let due = self.attested().at() + interval;
                tokio::time::sleep_until(due.into()).await;
                if let Err(lapsed) = self.renewed_after(interval).await {
                    return lapsed;
                }
            }
        };
        tokio::select! {
            output = call => Ok(output),
            lapsed = again => Err(lapsed),
        }
    }

    /// Challenges the server again if its last result is older than [`CHALLENGE_AGAIN_AFTER`].
    ///
    /// # Errors
    /// [`Lapsed`].
    pub async fn renewed_in_time(&self) -> Result<(), Lapsed> {
        self.renewed_after(CHALLENGE_AGAIN_AFTER).await
    }

    /// The long calls of one connection fall due together, and one of them asks for all.
    async fn renewed_after(&self, interval: Duration) -> Result<(), Lapsed> {
        let _turn = self.renewing().lock().await;
        if Instant::now() < self.attested().at() + interval { Ok(()) } else { self.renew().await.map_err(Lapsed) }
    }
}
