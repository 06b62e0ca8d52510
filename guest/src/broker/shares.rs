//! How often a guest asks its key broker, and for whom.
//!
//! The broker counts the questions of a guest as a whole: 20 in a second, after 40 at once, where its operators say nothing else. What the
//! workload asks for, and what owners do, has shares that are less than that together, so that the guest's own questions (who its owners
//! are, new versions, certificates) are answered whatever the others do. Where the broker wants fewer all the same, those two rest.
//! Never: has a question of the guest's own wait for anybody.
//! Source: docs/design/guest.md §8.1.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coffer_kbs_client::{ClientError, Meter};
use tokio::time::{Instant, sleep};

/// Questions in a second, and twice that at once.
const WORKLOAD: u32 = 10;
/// Of all owners together.
const OWNERS: u32 = 5;
/// What a look for new versions counts beside its questions: there are not five of them in a second, of a guest that has nothing to ask for.
pub const LOOK: u32 = OWNERS;
/// What was asked beyond a share holds up what comes after it for so long at most.
const LONGEST: f64 = 10.0;
/// How long the shares rest where the broker wants fewer questions.
pub const REST: Duration = Duration::from_secs(2);
/// How often one is asked again that the broker did not answer for that reason, each time after [`PAUSE`].
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// For whom a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The guest's own.
    Guest,
    /// Its workload's.
    Workload,
    /// An owner's.
    Owners,
}

/// The shares of a guest's questions.
pub struct Shares {
    workload: Share,
    owners: Share,
    /// Owners wait for theirs in the order in which they came.
    turn: tokio::sync::Mutex<()>,
}

impl Default for Shares {
    fn default() -> Self {
        Self { workload: Share::new(WORKLOAD), owners: Share::new(OWNERS), turn: tokio::sync::Mutex::default() }
    }
}

impl Shares {
    /// Whether the workload may ask something now.
    ///
    /// # Errors
    /// After how long it may.
    pub fn workload(&self) -> Result<(), Duration> {
        self.workload.open(Instant::now())
    }

    /// Waits until owners may ask something, which counts so much before it is asked.
    pub async fn owners(&self, beforehand: u32) {
        let _turn = self.turn.lock().await;
        while let Err(wait) = self.owners.open(Instant::now()) {
            sleep(wait).await;
        }
        self.owners.spend(Instant::now(), beforehand);
    }

    /// Counts the questions of a connection.
    pub fn meter(self: &Arc<Self>, whose: Whose) -> Arc<dyn Meter> {
        Arc::new(Metered { shares: self.clone(), whose })
    }
}

struct Metered {
    shares: Arc<Shares>,
    whose: Whose,
}

impl Meter for Metered {
    fn asked(&self) {
        match self.whose {
            Whose::Guest => {}
            Whose::Workload => self.shares.workload.spend(Instant::now(), 1),
            Whose::Owners => self.shares.owners.spend(Instant::now(), 1),
        }
    }

    fn too_often(&self) {
        for share in [&self.shares.workload, &self.shares.owners] {
            share.rest(Instant::now());
        }
    }
}

/// So many questions in a second. What has begun is not broken off, and what it asks beyond the share is waited for afterwards.
struct Share {
    rate: f64,
    left: Mutex<(f64, Instant)>,
}

impl Share {
    fn new(rate: u32) -> Self {
        let rate = f64::from(rate);
        Self { rate, left: Mutex::new((2.0 * rate, Instant::now())) }
    }

    fn change(&self, now: Instant, change: impl FnOnce(f64) -> f64) -> f64 {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(left.1).as_secs_f64();
        *left = (change((left.0 + since * self.rate).min(2.0 * self.rate)), now);
        left.0
    }

    fn open(&self, now: Instant) -> Result<(), Duration> {
        let left = self.change(now, |left| left);
        if left >= 1.0 { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - left) / self.rate)) }
    }

    fn spend(&self, now: Instant, questions: u32) {
        self.change(now, |left| (left - f64::from(questions)).max(-LONGEST * self.rate));
    }

    fn rest(&self, now: Instant) {
        self.change(now, |left| left.min(-REST.as_secs_f64() * self.rate));
    }
}

/// Asks again, a few times, where the broker wants fewer questions: it says nothing of what was asked.
///
/// # Errors
/// The broker's.
pub async fn again<T, F: Future<Output = Result<T, ClientError>>>(ask: impl Fn() -> F) -> Result<T, ClientError> {
    for _ in 0..TRIES {
        match ask().await {
            Err(ClientError::TooOften) => sleep(PAUSE).await,
            answer => return answer,
        }
    }
    ask().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Of a broker, where its operators say nothing else.
    const BROKER: (u32, u32) = (20, 40);

    #[tokio::test(start_paused = true)]
    async fn whatever_the_workload_and_the_owners_ask_for_the_guest_has_a_part_left() {
        let shares = Arc::new(Shares::default());
        let (workload, owner) = (shares.meter(Whose::Workload), shares.meter(Whose::Owners));
        let asked = Arc::new(AtomicU32::new(0));
        let looking = tokio::spawn({
            let (shares, asked) = (shares.clone(), asked.clone());
            async move {
                loop {
                    shares.owners(LOOK).await;
                    for _ in 0..5 {
                        owner.asked();
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        for tenth in 0..600 {
            // Each of its calls asks for three things.
            while shares.workload().is_ok() {
                for _ in 0..3 {
                    workload.asked();
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
            sleep(Duration::from_millis(100)).await;
            let (seconds, asked) = (f64::from(tenth + 1) / 10.0, f64::from(asked.load(Ordering::Relaxed)));
            assert!(asked <= f64::from(BROKER.1) + f64::from(BROKER.0) * seconds - 1.0, "{asked} in {seconds} s");
        }
        looking.abort();
        assert!(f64::from(asked.load(Ordering::Relaxed)) / 60.0 < f64::from(BROKER.0) * 0.75);
    }

    #[tokio::test(start_paused = true)]
    async fn looks_of_owners_come_one_in_a_second_or_less() {
        let shares = Shares::default();
        let start = Instant::now();
        for _ in 0..12 {
            shares.owners(LOOK).await;
        }
        assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
        // One with more secrets than a share holds up the next ones for no longer than is said.
        shares.owners.spend(Instant::now(), 10_000);
        let before = Instant::now();
        shares.owners(0).await;
        assert!(before.elapsed() < Duration::from_secs(11));
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_broker_wants_fewer_the_workload_and_the_owners_rest_and_the_guest_asks_again() {
        let shares = Arc::new(Shares::default());
        let (own, tries) = (shares.meter(Whose::Guest), AtomicU32::new(0));
        assert!(shares.workload().is_ok());
        let answered = again(async || {
            own.asked();
            if tries.fetch_add(1, Ordering::Relaxed) > 1 {
                return Ok(());
            }
            own.too_often();
            Err(ClientError::TooOften)
        });
        answered.await.unwrap();
        assert_eq!(tries.load(Ordering::Relaxed), 3);
        assert!(shares.workload().unwrap_err() > Duration::from_secs(1));
        let before = Instant::now();
        shares.owners(0).await;
        assert!(before.elapsed() > Duration::from_secs(1));
        assert!(shares.workload().is_ok());
        // Not for ever, and nothing else is asked twice.
        tries.store(0, Ordering::Relaxed);
        let never = again(async || {
            tries.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(ClientError::TooOften)
        });
        assert!(matches!(never.await, Err(ClientError::TooOften)));
        assert_eq!(tries.swap(0, Ordering::Relaxed), TRIES + 1);
        let refused = again(async || {
            tries.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(ClientError::Refused { code: "not-released".into(), id: "ab".into() })
        });
        assert!(refused.await.is_err() && tries.load(Ordering::Relaxed) == 1);
    }
}
