//! How many requests of each caller are under way, so that none takes every place.
//!
//! Holds a caller only while something of theirs is under way: no more entries than there are requests. Trusts: what the door found out
//! about who asks. Never: counts those whom the operator does not tell apart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::access::Caller;

/// Requests under way, by caller.
#[derive(Debug, Default)]
pub struct Callers(Mutex<HashMap<Caller, usize>>);

/// A place of a caller's share; it is free again when this is gone.
#[derive(Debug)]
pub struct Share {
    of: Arc<Callers>,
    caller: Caller,
}

impl Callers {
    /// A place, if the caller has fewer than `most`.
    pub fn enter(self: &Arc<Self>, caller: &Caller, most: usize) -> Option<Share> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = all.get(caller).copied().unwrap_or(0);
        // Anyone is nobody in particular.
        if under_way >= most && *caller != Caller::Anyone {
            return None;
        }
        all.insert(caller.clone(), under_way + 1);
        Some(Share { of: Arc::clone(self), caller: caller.clone() })
    }

    #[cfg(test)]
    fn known(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.caller) {
            Some(under_way) if *under_way > 1 => *under_way -= 1,
            _ => drop(all.remove(&self.caller)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_a_share_and_leaves_nothing_behind() {
        let callers = Arc::new(Callers::default());
        let (one, other) = (Caller::Key("one".into()), Caller::Certificate("one".into()));
        let first = callers.enter(&one, 2);
        let second = callers.enter(&one, 2);
        assert!(first.is_some() && second.is_some());
        assert!(callers.enter(&one, 2).is_none());
        let others = callers.enter(&other, 2);
        assert!(others.is_some(), "one caller's share is not another's");
        drop(first);
        assert!(callers.enter(&one, 2).is_some(), "and is free again at once");
        let all: Vec<_> = (0..9).map(|_| callers.enter(&Caller::Anyone, 2)).collect();
        assert!(all.iter().all(Option::is_some));
        drop((second, others, all));
        assert_eq!(callers.known(), 0);
    }
}
