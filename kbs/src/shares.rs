//! Connections that one guest may hold at once. All boxes of a host come from one address; what tells them apart is REPORT_ID,
//! which the report states and its launch fixed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use coffer_verifier::abi::ReportId;

/// What every guest holds.
pub struct Shares {
    limit: usize,
    held: Arc<Mutex<HashMap<ReportId, usize>>>,
}

/// One connection of one guest, given back when dropped.
pub struct Share {
    guest: ReportId,
    held: Arc<Mutex<HashMap<ReportId, usize>>>,
}

impl Shares {
    /// So many for each.
    pub fn new(limit: usize) -> Self {
        Self { limit, held: Arc::default() }
    }

    /// One more for a guest, unless it has all it may have.
    pub fn take(&self, guest: ReportId) -> Option<Share> {
        // Whole numbers in a map: nothing is left half done by a panic.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(guest).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Share { guest, held: self.held.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.guest) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.guest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guest_has_its_own_and_nothing_is_left_behind() {
        let shares = Shares::new(2);
        let (one, other) = (ReportId::new([1; 32]), ReportId::new([2; 32]));
        let held = [shares.take(one).unwrap(), shares.take(one).unwrap()];
        assert!(shares.take(one).is_none());
        assert!(shares.take(other).is_some());
        drop(held);
        assert!(shares.take(one).is_some());
        assert!(shares.held.lock().unwrap().is_empty());
    }
}
