//! A long call on an attested connection: the server is challenged again before its last result is too old.
//!
//! A stream that began under one report must not go on under none. Whoever verifies asks again; silence and refusal both end
//! the call.
//! Source: docs/design/protocol.md §4.6.

use core::time::Duration;

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
                if let Err(error) = self.renew().await {
                    return Lapsed(error);
                }
            }
        };
        tokio::select! {
            output = call => Ok(output),
            lapsed = again => Err(lapsed),
        }
    }
}
