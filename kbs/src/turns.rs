//! Turns at work that takes a processor: as many at once as there are processors, and tenant after tenant.
//!
//! Trusts: nobody's policy to be quick. Never: lets one tenant's waiting work stand in front of another's by its number.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::tenant::Tenant;

/// Who has a turn, and who waits for one.
pub struct Turns {
    state: Mutex<State>,
    called: Condvar,
}

struct State {
    /// Turns that nobody has; none while somebody waits.
    free: usize,
    /// The tenants whose work waits, the next one first, each with its tickets.
    waiting: VecDeque<(Tenant, VecDeque<u64>)>,
    next_ticket: u64,
    /// Tickets that have a turn, and do not know it yet.
    called: BTreeSet<u64>,
}

/// A turn, given on when dropped.
pub struct Turn<'a>(&'a Turns);

impl Default for Turns {
    fn default() -> Self {
        Self::of(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Turns {
    fn of(free: usize) -> Self {
        let state = State { free, waiting: VecDeque::new(), next_ticket: 0, called: BTreeSet::new() };
        Self { state: Mutex::new(state), called: Condvar::new() }
    }

    /// A turn, when it is this tenant's. Blocks the thread.
    pub fn take(&self, tenant: &Tenant) -> Turn<'_> {
        let mut state = self.state();
        if state.free > 0 {
            state.free -= 1;
            return Turn(self);
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        match state.waiting.iter_mut().find(|(of, _)| of == tenant) {
            Some((_, tickets)) => tickets.push_back(ticket),
            None => state.waiting.push_back((tenant.clone(), VecDeque::from([ticket]))),
        }
        while !state.called.remove(&ticket) {
            state = self.called.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        let Some((tenant, mut tickets)) = state.waiting.pop_front() else {
            state.free += 1;
            return;
        };
        // A tenant that waits has a ticket.
        state.called.extend(tickets.pop_front());
        if !tickets.is_empty() {
            state.waiting.push_back((tenant, tickets));
        }
        self.0.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tenant_comes_after_tenant_however_much_one_of_them_asks() {
        let (turns, order) = (Turns::of(1), Mutex::new(Vec::new()));
        let waiting = || turns.state().waiting.iter().map(|(_, tickets)| tickets.len()).sum::<usize>();
        std::thread::scope(|scope| {
            let first = turns.take(&"greedy".parse().unwrap());
            for (at, name) in ["greedy", "greedy", "greedy", "greedy", "modest", "other", "modest"].iter().enumerate() {
                let tenant: Tenant = name.parse().unwrap();
                let (turns, order) = (&turns, &order);
                scope.spawn(move || {
                    let _turn = turns.take(&tenant);
                    order.lock().unwrap().push(*name);
                });
                while waiting() <= at {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), ["greedy", "modest", "other", "greedy", "modest", "greedy", "greedy"]);
        let state = turns.state();
        assert_eq!((state.free, state.called.len()), (1, 0));
    }
}
