//! The server's clock: expiry, certificate dates and audit times rest on it.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Seconds since 1970.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The system's.
    pub fn system() -> Self {
        Self::new(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| i64::try_from(since.as_secs()).ok())
                // A clock before 1970 makes every certificate too young: refused, not guessed.
                .unwrap_or(0)
        })
    }

    /// Another source, for tests.
    pub fn new(now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now.
    pub fn now(&self) -> i64 {
        (self.0)()
    }
}
