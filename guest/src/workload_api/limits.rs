//! How much a workload may ask, so that the agent outlives whatever it does.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// For a request's head, for its body, and between two requests.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the next connection, where one could not be taken.
pub const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a request's head, and of the buffer it is read into.
pub const HEAD: usize = 16 * 1024;
/// Bytes to be sealed, and of a body that was not sealed.
pub const PLAIN: usize = 1024 * 1024;

/// Connections at once; others wait to be taken.
const PLACES: usize = 16;
/// Calls at once that have a body in memory; others wait.
const TURNS: usize = 2;
/// Calls that may come together.
const BURST: u32 = 40;
/// Calls in a second after that.
const RATE: u32 = 20;

/// Connections, calls at once, calls in a second.
pub struct Limits {
    /// For a request's head, for its body, and between two requests.
    pub patience: Duration,
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    left: Mutex<(f64, Instant)>,
}

impl Limits {
    pub fn new(now: Instant) -> Self {
        Self {
            patience: PATIENCE,
            places: Arc::new(Semaphore::new(PLACES)),
            turns: Arc::new(Semaphore::new(TURNS)),
            left: Mutex::new((BURST.into(), now)),
        }
    }

    pub async fn place(&self) -> OwnedSemaphorePermit {
        self.places.clone().acquire_owned().await.expect("nobody closes it")
    }

    pub async fn turn(&self) -> OwnedSemaphorePermit {
        self.turns.clone().acquire_owned().await.expect("nobody closes it")
    }

    /// Counts a call, or says after how long one is welcome.
    pub fn ask(&self, now: Instant) -> Result<(), Duration> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(left.1).as_secs_f64();
        *left = ((left.0 + since * f64::from(RATE)).min(BURST.into()), now);
        if left.0 < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left.0) / f64::from(RATE)));
        }
        left.0 -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_so_many_in_a_second() {
        let start = Instant::now();
        let limits = Limits::new(start);
        let taken = |now| (0..1000).take_while(|_| limits.ask(now).is_ok()).count();
        assert_eq!(taken(start), BURST as usize);
        let wait = limits.ask(start).unwrap_err();
        assert!(wait <= Duration::from_secs(1) / RATE, "{wait:?}");
        assert_eq!(taken(start + Duration::from_secs(1)), RATE as usize);
        // What was not asked for is not saved up beyond the burst; a clock that goes back gives nothing.
        assert_eq!(taken(start + Duration::from_hours(1)), BURST as usize);
        assert_eq!(taken(start), 0);
    }
}
