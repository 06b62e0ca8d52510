//! Places of one kind, shared between those who ask: the host, and each owner by his key. Where owners may be, nobody has more than half of
//! them, and the last quarter is for those who have few.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coffer_ratls::ConnectionState;
use coffer_verifier::abi::SpkiDigest;
use http::Extensions;

/// Who asks: an owner by his key; nothing is the host.
pub(super) type Caller = Option<SpkiDigest>;

/// Who asked for this.
pub(super) fn caller(extensions: &Extensions) -> Caller {
    extensions.get::<Arc<ConnectionState>>().map(|state| *state.peer_spki())
}

/// How many places a caller has who has few.
const FEW: usize = 2;

/// Places of one kind.
#[derive(Clone)]
pub struct Shares(Arc<Shared>);

struct Shared {
    all: usize,
    /// Of one caller at most, and for those who have few.
    each: usize,
    left: usize,
    held: Mutex<HashMap<Caller, usize>>,
}

/// A place, until it is dropped.
pub(super) struct Share {
    caller: Caller,
    shared: Arc<Shared>,
}

impl Shares {
    /// So many. `are_owners`: whether there is anybody but the host.
    pub(super) fn new(all: usize, are_owners: bool) -> Self {
        let (each, left) = if are_owners { (all / 2, all / 4) } else { (all, 0) };
        Self(Arc::new(Shared { all, each, left, held: Mutex::default() }))
    }

    /// One more, if there is one for this caller.
    pub(super) fn take(&self, caller: Caller) -> Option<Share> {
        let mut held = self.0.held();
        let (own, taken) = (held.get(&caller).copied().unwrap_or(0), held.values().sum::<usize>());
        let left = if own < FEW { 0 } else { self.0.left };
        if own >= self.0.each || taken + left >= self.0.all {
            return None;
        }
        held.insert(caller, own + 1);
        Some(Share { caller, shared: self.0.clone() })
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.0.held().values().sum()
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, HashMap<Caller, usize>> {
        // Whole numbers in a map: nothing is left half done by a panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shared.held();
        if let Some(count) = held.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(shares: &Shares, caller: Caller) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(caller)).collect()
    }

    #[test]
    fn nobody_has_more_than_half_and_the_last_are_for_those_who_have_few() {
        let [alice, bob, carol] = [b"alice".as_slice(), b"bob", b"carol"].map(|name| Some(SpkiDigest::of(name)));
        let shares = Shares::new(16, true);
        let of_alice = all_of(&shares, alice);
        assert_eq!(of_alice.len(), 8);
        let of_bob = all_of(&shares, bob);
        assert_eq!((of_bob.len(), shares.taken()), (4, 12));
        let others = [all_of(&shares, carol), all_of(&shares, None)];
        assert_eq!(others.each_ref().map(Vec::len), [FEW, FEW]);
        drop(of_alice);
        assert_eq!(all_of(&shares, carol).len(), 4, "what is left but for a quarter");
        drop((of_bob, others));
        assert!(shares.0.held().is_empty());
    }

    #[test]
    fn where_there_are_no_owners_the_host_has_them_all() {
        assert_eq!(all_of(&Shares::new(32, false), None).len(), 32);
    }
}
