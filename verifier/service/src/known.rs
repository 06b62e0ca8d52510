//! What is known of a connection by what was asked on it.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use crate::waiting::Waiting;

/// What is known of a connection: nothing, until a request has come on it; whether a caller was let in on it; and how long nobody has
/// taken anything of answers that are there.
#[derive(Clone, Debug, Default)]
pub struct Known {
    what: Arc<AtomicU8>,
    /// Of answers that wait to be taken.
    pub waiting: Waiting,
}

impl Known {
    const ASKED: u8 = 1;
    const CALLER: u8 = 3;
    const GAVE_WAY: u8 = 4;

    /// A request has come.
    pub fn asked(&self) {
        self.what.fetch_or(Self::ASKED, Ordering::Relaxed);
    }

    /// A request has come.
    pub fn is_asked(&self) -> bool {
        self.what.load(Ordering::Relaxed) & Self::ASKED != 0
    }

    /// A caller was let in.
    pub fn is_a_callers(&self) -> bool {
        self.what.load(Ordering::Relaxed) & Self::CALLER == Self::CALLER
    }

    /// Takes its place, unless a caller was let in: whether it has to go.
    pub fn gives_way(&self) -> bool {
        let unless_a_callers = |what| (what & Self::CALLER != Self::CALLER).then_some(what | Self::GAVE_WAY);
        self.what.fetch_update(Ordering::Relaxed, Ordering::Relaxed, unless_a_callers).is_ok()
    }

    /// One was let in.
    pub fn let_in(&self) {
        self.what.fetch_or(Self::CALLER, Ordering::Relaxed);
    }
}
