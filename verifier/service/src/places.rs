//! Places for connections. Where all are taken, the oldest connection on which no caller was let in gives way to the one that comes:
//! whoever only sits there keeps nobody out, however many of them he has.
//!
//! Trusts: nothing but that a caller was let in. Never: takes the place of a caller's connection.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use crate::known::Known;

/// Of the local socket, beside those of the network: strangers there keep this machine's own out of nothing.
const LOCAL: usize = 64;
/// How long the one that gives way may take: it has nothing to do but to be dropped.
const MOMENT: Duration = Duration::from_secs(5);

/// All places.
pub struct Places {
    all: usize,
    free: Arc<Semaphore>,
    local: Arc<Semaphore>,
    /// In the order in which they came; among them some that are gone, or callers by now.
    strangers: Mutex<VecDeque<(Known, oneshot::Sender<()>)>>,
}

/// One of them.
pub struct Place {
    _held: OwnedSemaphorePermit,
    /// What is known of who has it.
    pub known: Known,
    way: oneshot::Receiver<()>,
}

impl Place {
    /// Ends when it has to be given up, which a caller's does not.
    pub async fn is_wanted(&mut self) {
        if (&mut self.way).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Places {
    /// So many, and those of the local socket.
    pub fn new(all: usize) -> Self {
        let [free, local] = [all, LOCAL].map(|places| Arc::new(Semaphore::new(places)));
        Self { all, free, local, strangers: Mutex::default() }
    }

    /// How many of the network's are taken.
    pub fn taken(&self) -> usize {
        self.all.saturating_sub(self.free.available_permits())
    }

    /// One for a connection of the network. None where all are callers'.
    pub async fn take(&self) -> Option<Place> {
        let held = if let Ok(held) = Arc::clone(&self.free).try_acquire_owned() {
            held
        } else {
            self.oldest_stranger_goes()?;
            timeout(MOMENT, Arc::clone(&self.free).acquire_owned()).await.ok()?.ok()?
        };
        let (gives_way, way) = oneshot::channel();
        let known = Known::default();
        let mut strangers = self.strangers();
        if strangers.len() >= 2 * self.all {
            strangers.retain(is_stranger);
        }
        strangers.push_back((known.clone(), gives_way));
        Some(Place { _held: held, known, way })
    }

    /// One for a connection of the local socket.
    pub fn take_local(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.local).try_acquire_owned().ok()
    }

    /// None where there is no stranger.
    fn oldest_stranger_goes(&self) -> Option<()> {
        let mut strangers = self.strangers();
        loop {
            let (known, way) = strangers.pop_front()?;
            if known.gives_way() && way.send(()).is_ok() {
                return Some(());
            }
        }
    }

    fn strangers(&self) -> std::sync::MutexGuard<'_, VecDeque<(Known, oneshot::Sender<()>)>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It is there still, and no caller was let in on it.
fn is_stranger((known, way): &(Known, oneshot::Sender<()>)) -> bool {
    !way.is_closed() && !known.is_a_callers()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_stranger_gives_way_and_a_caller_never() {
        let places = Arc::new(Places::new(2));
        let caller = places.take().await.unwrap();
        caller.known.let_in();
        let mut stranger = places.take().await.unwrap();
        assert_eq!(places.taken(), 2);
        let coming = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        stranger.is_wanted().await;
        drop(stranger);
        let next = coming.await.unwrap().expect("there is a place");
        next.known.let_in();
        assert!(places.take().await.is_none(), "all are callers'");
        drop((caller, next));
        // Whoever is let in before it is asked for its place keeps it, and the next one goes.
        let mut late = places.take().await.expect("there is a place");
        let mut stranger = places.take().await.expect("there is a place");
        late.known.let_in();
        places.oldest_stranger_goes().expect("there is a stranger");
        stranger.is_wanted().await;
        assert!(timeout(Duration::from_millis(50), late.is_wanted()).await.is_err());
    }

    #[tokio::test]
    async fn those_that_are_gone_are_not_kept() {
        let places = Places::new(2);
        for _ in 0..100 {
            drop(places.take().await.unwrap());
        }
        assert!(places.strangers().len() <= 4);
        assert_eq!(places.taken(), 0);
    }

    #[tokio::test]
    async fn the_local_socket_has_its_own() {
        let places = Places::new(1);
        let _held = places.take().await.unwrap();
        let local: Vec<_> = (0..LOCAL).map(|_| places.take_local().unwrap()).collect();
        assert!(places.take_local().is_none());
        drop(local);
    }
}
