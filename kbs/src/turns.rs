//! Turns at what there is only so much of, such as processors: tenant after tenant.
//!
//! Trusts: nobody's work to be quick. Never: lets one tenant's waiting work stand in front of another's by its number; loses a turn of
//! whoever went away while it waited.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Who has a turn, and who waits for one. Clones share them.
pub struct Turns<K>(Arc<Mutex<State<K>>>);

struct State<K> {
    /// Turns that nobody has; none while somebody waits.
    free: usize,
    /// Whose work waits, the next one first, each with those who are to be called.
    waiting: VecDeque<(K, VecDeque<oneshot::Sender<()>>)>,
}

/// A turn, given on when dropped.
pub struct Turn<K: Eq>(Turns<K>);

/// A place in the queue. Left, a turn that has come meanwhile is given on.
struct Waiting<K: Eq> {
    turns: Turns<K>,
    called: oneshot::Receiver<()>,
    /// The turn is somebody's who gives it on.
    is_over: bool,
}

impl<K> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Eq> Turns<K> {
    /// As many at once as there are processors.
    pub fn at_processors() -> Self {
        Self::of(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// So many at once.
    pub fn of(free: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free, waiting: VecDeque::new() })))
    }

    /// A turn, when it is this one's.
    pub async fn wait(&self, whose: K) -> Turn<K> {
        let Some(mut waiting) = self.join(whose) else { return Turn(self.clone()) };
        // Whoever calls is there for as long as this is.
        let _ = (&mut waiting.called).await;
        waiting.over()
    }

    /// The same. Blocks the thread, which is none of the event loop's.
    pub fn take(&self, whose: K) -> Turn<K> {
        let Some(mut waiting) = self.join(whose) else { return Turn(self.clone()) };
        let (_, nobody) = oneshot::channel();
        let _ = std::mem::replace(&mut waiting.called, nobody).blocking_recv();
        waiting.over()
    }

    /// A place in the queue; nothing where a turn was free and is taken now.
    fn join(&self, whose: K) -> Option<Waiting<K>> {
        let mut state = self.state();
        if state.free > 0 {
            state.free -= 1;
            return None;
        }
        let (call, called) = oneshot::channel();
        match state.waiting.iter_mut().find(|(of, _)| *of == whose) {
            Some((_, calls)) => calls.push_back(call),
            None => state.waiting.push_back((whose, VecDeque::from([call]))),
        }
        Some(Waiting { turns: self.clone(), called, is_over: false })
    }

    fn give_on(&self) {
        let mut state = self.state();
        while let Some((whose, mut calls)) = state.waiting.pop_front() {
            // Whoever waits has a call; nobody hears it who has gone away.
            let call = calls.pop_front();
            if !calls.is_empty() {
                state.waiting.push_back((whose, calls));
            }
            if call.is_some_and(|call| call.send(()).is_ok()) {
                return;
            }
        }
        state.free += 1;
    }

    /// Turns that nobody has.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.state().free
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        // Nothing that can panic runs under it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq> Waiting<K> {
    fn over(mut self) -> Turn<K> {
        self.is_over = true;
        Turn(self.turns.clone())
    }
}

impl<K: Eq> Drop for Waiting<K> {
    fn drop(&mut self) {
        self.called.close();
        if !self.is_over && self.called.try_recv().is_ok() {
            self.turns.give_on();
        }
    }
}

impl<K: Eq> Drop for Turn<K> {
    fn drop(&mut self) {
        self.0.give_on();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn waiting(turns: &Turns<&str>) -> usize {
        turns.state().waiting.iter().map(|(_, calls)| calls.len()).sum()
    }

    const ASKED: [&str; 7] = ["greedy", "greedy", "greedy", "greedy", "modest", "other", "modest"];
    const CALLED: [&str; 7] = ["greedy", "modest", "other", "greedy", "modest", "greedy", "greedy"];

    #[test]
    fn tenant_comes_after_tenant_however_much_one_of_them_asks() {
        let (turns, order) = (Turns::of(1), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            let first = turns.take("greedy");
            for (at, name) in ASKED.into_iter().enumerate() {
                let (turns, order) = (&turns, &order);
                scope.spawn(move || {
                    let _turn = turns.take(name);
                    order.lock().unwrap().push(name);
                });
                while waiting(turns) <= at {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), CALLED);
        assert_eq!(turns.free(), 1);
    }

    #[tokio::test]
    async fn whoever_goes_away_is_passed_over_and_takes_no_turn_along() {
        let (turns, order) = (Turns::of(1), Arc::new(Mutex::new(Vec::new())));
        let first = turns.wait("greedy").await;
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for name in ASKED {
            for goes in [true, false] {
                let (turns, order) = (turns.clone(), order.clone());
                let task = tokio::spawn(async move {
                    let _turn = turns.wait(name).await;
                    order.lock().unwrap().push(name);
                });
                tokio::task::yield_now().await;
                if goes { &mut gone } else { &mut there }.push(task);
            }
        }
        assert_eq!(waiting(&turns), 2 * ASKED.len());
        for task in gone {
            task.abort();
            let _ = task.await;
        }
        drop(first);
        for task in there {
            task.await.unwrap();
        }
        assert_eq!(order.lock().unwrap().len(), ASKED.len());
        // One that has been called, and does not know it yet.
        let held = turns.wait("a").await;
        let mut called = Box::pin(turns.wait("b"));
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut called).await.is_err());
        drop(held);
        drop(called);
        assert_eq!(turns.free(), 1);
    }
}
