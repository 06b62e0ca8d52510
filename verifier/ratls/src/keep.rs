//! A long call on an attested connection: the server is challenged again before its last result is too old.
//!
//! A stream that began under one report must not go on under none. Whoever verifies asks again; refusal ends the call, and silence does
//! once the last result is too old: until then it is asked for again.
//! Source: docs/design/protocol.md §4.6.

use core::time::Duration;
use std::{sync::Arc, time::Instant};

use crate::{
    appraisal::RESULT_LIFETIME, client::AttestedConnection, connect_error::ConnectError, lapse::Lapsed,
    state::CHALLENGE_LIFETIME,
};

/// When a verifying client asks again: early enough that a second and a third time come before the last result is too old.
pub const CHALLENGE_AGAIN_AFTER: Duration = RESULT_LIFETIME.saturating_sub(CHALLENGE_LIFETIME.saturating_mul(3));

/// How often a server is challenged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How old a result is when the next is asked for.
    pub every: Duration,
    /// How long after a failure it is asked for once more.
    pub again: Duration,
    /// How old a result may be at the most.
    pub most: Duration,
}

impl Pace {
    /// That of the protocol.
    pub const USUAL: Self = Self { every: CHALLENGE_AGAIN_AFTER, again: Duration::from_secs(5), most: RESULT_LIFETIME };
}

impl<T: Send + Sync + 'static> AttestedConnection<T> {
    /// Runs `call`, and challenges the server again each [`CHALLENGE_AGAIN_AFTER`] for as long as it takes.
    ///
    /// # Errors
    /// [`Lapsed`] if the server's last result is too old and no other came, or its evidence is refused; `call` is dropped then.
    pub async fn kept<F: Future>(&self, call: F) -> Result<F::Output, Lapsed> {
        self.kept_at(Pace::USUAL, call).await
    }

    /// As [`Self::kept`], at another pace.
    ///
    /// # Errors
    /// As [`Self::kept`].
    pub async fn kept_at<F: Future>(&self, pace: Pace, call: F) -> Result<F::Output, Lapsed> {
        let again = async {
            loop {
                match self.renewed(pace).await {
                    Ok(due) => tokio::time::sleep_until(due.into()).await,
                    Err(lapsed) => return lapsed,
                }
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
        self.renewed(Pace::USUAL).await.map(drop)
    }

    /// The long calls of one connection fall due together: one of them asks for all, and what it hears they all hear. Gives when the
    /// next is due.
    async fn renewed(&self, pace: Pace) -> Result<Instant, Lapsed> {
        let keeping = self.keeping();
        let mut failed = keeping.turn.lock().await;
        if let Some(lapsed) = keeping.lapsed.borrow().clone() {
            return Err(lapsed);
        }
        let at = self.attested().at();
        let due = (at + pace.every).max(failed.map_or(at, |failed| failed + pace.again));
        if Instant::now() < due {
            return Ok(due);
        }
        let (oldest, asked) = (at + pace.most, Instant::now());
        let renewed = tokio::time::timeout_at(oldest.into(), self.renew()).await;
        let error = match renewed {
            Ok(Ok(())) => {
                *failed = None;
                return Ok(self.attested().at() + pace.every);
            }
            Ok(Err(error)) => error,
            Err(_) => ConnectError::Timeout(oldest.saturating_duration_since(asked)),
        };
        let now = Instant::now();
        // What it showed before still counts, and nothing says that it would not show it again.
        if now + pace.again < oldest && !matches!(error, ConnectError::Rejected(_)) {
            *failed = Some(now);
            return Ok(now + pace.again);
        }
        let lapsed = Lapsed(Arc::new(error));
        keeping.lapsed.send_replace(Some(lapsed.clone()));
        Err(lapsed)
    }
}
