//! Work that blocks, so much of it at once: what waits there for the ledger leaves threads on which the ledger itself works.
//!
//! Never: holds more threads than its places, also for callers that have gone away.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::store::{StoreError, drive};

/// Decisions at work at once, over all guests. Far below the threads that tokio has for what blocks.
const PLACES: usize = 32;

/// Places beside the event loop.
#[derive(Clone)]
pub struct Aside(Arc<Semaphore>);

impl Default for Aside {
    fn default() -> Self {
        Self::of(PLACES)
    }
}

impl Aside {
    fn of(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Does it when there is a place.
    ///
    /// # Errors
    /// As an interrupted commit, if it panics.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
        // Never closed; and without a place nothing is decided.
        let place = self.0.clone().acquire_owned().await.map_err(|_| StoreError::Contended { attempts: 1 })?;
        let work = move || {
            let _place = place;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(StoreError::interrupted)
    }

    /// Sees `work` through when there is a place. What it asks of the store is done there and then.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(move || drive(work)).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coffer_verifier::abi::SpkiDigest;
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        crl_floor::CrlFloor,
        keys::RootKey,
        store::{Intent, MemoryRows, Rows, RowsError, Store, Transaction, Witness},
    };

    /// Rows that need a thread for what blocks, as those of a file do.
    struct Blocking(MemoryRows);

    #[tonic::async_trait]
    impl Rows for Blocking {
        async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            self.0.begin(intent).await
        }
    }

    #[test]
    fn a_new_revocation_list_in_every_hand_at_once_stops_nobody() {
        const THREADS: usize = 4;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(THREADS)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let root = RootKey::new(&Zeroizing::new([7; 32]));
            let rows = Arc::new(Blocking(MemoryRows::default()));
            let store = Store::create(rows, root, Witness::OlderDatabaseIsNotNoticed).await.unwrap();
            let floor = Arc::new(CrlFloor::new(Arc::new(store)));
            let aside = Aside::of(THREADS - 1);
            let asked: Vec<_> = (0..64)
                .map(|_| {
                    let (floor, aside) = (floor.clone(), aside.clone());
                    let work = move || {
                        std::thread::sleep(Duration::from_millis(5));
                        floor.admit(SpkiDigest::new([1; 32]), 5).is_ok()
                    };
                    tokio::spawn(async move { aside.run(work).await.unwrap() })
                })
                .collect();
            let all = async {
                for one in asked {
                    assert!(one.await.unwrap());
                }
            };
            tokio::time::timeout(Duration::from_secs(20), all).await.expect("every thread waits for the ledger");
        });
        runtime.shutdown_background();
    }

    #[tokio::test]
    async fn whoever_goes_away_leaves_its_place_only_when_its_work_ends() {
        let aside = Aside::of(1);
        let (begin, go_on) = std::sync::mpsc::channel::<()>();
        let gone = tokio::spawn({
            let aside = aside.clone();
            async move { aside.run(move || go_on.recv()).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        gone.abort();
        let second = aside.run(|| ());
        tokio::pin!(second);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err());
        begin.send(()).unwrap();
        second.await.unwrap();
    }
}
