//! Whether somebody outside has told the workload to end.
//!
//! The kernel closes what a program has open when that ends, and whoever is at the other side sees what a program does that has said all it
//! says. A host that may stop a workload could so have a half taken for a whole; from its word on, an end that comes from there is none.
//! Trusts: that the word is given before the signal. Never: takes it back.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// That word, for everybody who has it.
#[derive(Clone, Debug, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// The workload is told to end, or will be at once.
    pub fn is_told(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was.
    pub fn was_told(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
