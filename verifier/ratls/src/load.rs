//! How many connections a server has, for whoever watches it.
//!
//! Never: says whose they are.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Figures of one server. Clones share them.
#[derive(Clone, Default)]
pub struct Load(Arc<Figures>);

#[derive(Default)]
struct Figures {
    open: AtomicU64,
    strangers: AtomicU64,
    closed: AtomicU64,
}

/// One that counts for as long as it is there.
pub(crate) struct Counts {
    load: Load,
    of: fn(&Figures) -> &AtomicU64,
}

impl Load {
    /// Connections that have a place, those of strangers too.
    pub fn open(&self) -> u64 {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Those of them that have shown nothing yet.
    pub fn strangers(&self) -> u64 {
        self.0.strangers.load(Ordering::Relaxed)
    }

    /// Connections that were closed since the start because there was no place, of all or of their key.
    pub fn closed(&self) -> u64 {
        self.0.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn begun(&self) -> Counts {
        self.count(|figures| &figures.open)
    }

    pub(crate) fn stranger(&self) -> Counts {
        self.count(|figures| &figures.strangers)
    }

    pub(crate) fn one_closed(&self) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, of: fn(&Figures) -> &AtomicU64) -> Counts {
        of(&self.0).fetch_add(1, Ordering::Relaxed);
        Counts { load: self.clone(), of }
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        (self.of)(&self.load.0).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_counts_and_what_is_gone_does_not() {
        let load = Load::default();
        let (one, two, stranger) = (load.begun(), load.begun(), load.stranger());
        load.one_closed();
        assert_eq!((load.open(), load.strangers(), load.closed()), (2, 1, 1));
        drop((one, stranger));
        assert_eq!((load.open(), load.strangers(), load.closed()), (1, 0, 1));
        drop(two);
        assert_eq!(load.open(), 0);
    }
}
