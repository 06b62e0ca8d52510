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

/// The questions of a guest, in shares.
pub struct Questions {
    workload: Share,
    owners: Share,
    /// Owners wait for theirs in the order in which they came.
    turn: tokio::sync::Mutex<()>,
}

impl Default for Questions {
    fn default() -> Self {
        Self { workload: Share::new(WORKLOAD), owners: Share::new(OWNERS), turn: tokio::sync::Mutex::default() }
    }
}

impl Questions {
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
    shares: Arc<Questions>,
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
    again_after(PAUSE, ask).await
}

async fn again_after<T, F: Future<Output = Result<T, ClientError>>>(
    pause: Duration,
    ask: impl Fn() -> F,
) -> Result<T, ClientError> {
    for _ in 0..TRIES {
        match ask().await {
            Err(ClientError::TooOften) => sleep(pause).await,
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
    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn whatever_the_workload_and_the_owners_ask_for_the_guest_has_a_part_left() {
        let (start, questions, mut asked) = (Instant::now(), Questions::default(), 0);
        for tenth in 0..600 {
            let now = start + Duration::from_millis(100) * tenth;
            // Each call of the workload's asks for three things, and each look of the owners' for five.
            for (share, beforehand, each) in [(&questions.workload, 0, 3), (&questions.owners, LOOK, 5)] {
                while share.open(now).is_ok() {
                    share.spend(now, beforehand + each);
                    asked += each;
                }
            }
            let (seconds, asked) = (f64::from(tenth) / 10.0, f64::from(asked));
            assert!(asked <= f64::from(BROKER.1) + f64::from(BROKER.0) * seconds - 1.0, "{asked} in {seconds} s");
        }
        assert!(f64::from(asked) / 60.0 < f64::from(BROKER.0) * 0.75);
    }

    #[test]
    fn looks_of_owners_come_one_in_a_second_or_less() {
        let (questions, mut now) = (Questions::default(), Instant::now());
        let start = now;
        let wait = |now: &mut Instant| {
            while let Err(wait) = questions.owners.open(*now) {
                *now += wait;
            }
        };
        for _ in 0..12 {
            wait(&mut now);
            questions.owners.spend(now, LOOK);
        }
        assert!(now - start >= Duration::from_secs(9), "{:?}", now - start);
        // One with more secrets than a share holds up the next ones for no longer than is said.
        questions.owners.spend(now, 10_000);
        let before = now;
        wait(&mut now);
        assert!(now - before < Duration::from_secs(11));
    }

    #[tokio::test]
    async fn where_the_broker_wants_fewer_the_workload_and_the_owners_rest_and_the_guest_asks_again() {
        let shares = Arc::new(Questions::default());
        let (own, tries) = (shares.meter(Whose::Guest), AtomicU32::new(0));
        assert!(shares.workload().is_ok());
        let answered = again_after(SHORT, async || {
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
        let never = again_after(SHORT, async || {
            tries.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(ClientError::TooOften)
        });
        assert!(matches!(never.await, Err(ClientError::TooOften)));
        assert_eq!(tries.swap(0, Ordering::Relaxed), TRIES + 1);
        let refused = again_after(SHORT, async || {
            tries.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(ClientError::Refused { code: "not-released".into(), id: "ab".into() })
        });
        assert!(refused.await.is_err() && tries.load(Ordering::Relaxed) == 1);
    }
}
