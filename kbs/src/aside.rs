//! Work that blocks, so much of it at once: what waits there for the ledger leaves threads on which the ledger itself works.
//!
//! Never: holds more threads than its places, also for callers that have gone away; gives one guest or one tenant all of them, or lets
//! many of one tenant that wait stand in front of another's.

use std::sync::Arc;

use crate::{
    places::Places,
    store::{StoreError, drive},
    tenant::Tenant,
    turns::Turns,
};
use coffer_verifier::abi::ReportId;

/// Decisions at work at once, over all guests. Far below the threads that tokio has for what blocks.
const PLACES: usize = 32;
/// Those of one tenant, and of one guest: somebody else finds one in any case.
const OF_A_TENANT: usize = 24;
const OF_A_GUEST: usize = 16;
/// What operators read at once: each may be all that a tenant keeps, some tens of megabytes.
const READS: usize = 8;
/// Of them, those about one tenant.
const READS_OF_A_TENANT: usize = 4;

/// Places beside the event loop.
#[derive(Clone)]
pub struct Aside(Arc<All>);

struct All {
    /// By tenant in turn; what is nobody's is one tenant's.
    places: Turns<Option<Tenant>>,
    tenants: Places<Option<Tenant>>,
    guests: Places<ReportId>,
}

impl Default for Aside {
    fn default() -> Self {
        Self::of(PLACES, OF_A_TENANT)
    }
}

impl Aside {
    /// For what operators read.
    pub fn for_operators() -> Self {
        Self::of(READS, READS_OF_A_TENANT)
    }

    fn of(places: usize, of_a_tenant: usize) -> Self {
        let places = Turns::of(places);
        Self(Arc::new(All { places, tenants: Places::new(of_a_tenant), guests: Places::new(OF_A_GUEST) }))
    }

    /// Does it for a guest of a tenant, when each of them has a place.
    ///
    /// # Errors
    /// As an interrupted commit, if it panics.
    pub async fn run_for<T: Send + 'static>(
        &self,
        tenant: Tenant,
        guest: ReportId,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        // Never closed; and without a place nothing is decided.
        let guest = self.0.guests.take(guest).await.map_err(|_| StoreError::Contended { attempts: 1 })?;
        self.run_of(Some(tenant), move || {
            let _place = guest;
            work()
        })
        .await
    }

    /// Does it for a tenant, or for nobody, when there is a place of its own.
    async fn run_of<T: Send + 'static>(
        &self,
        whose: Option<Tenant>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let own = self.0.tenants.take(whose.clone()).await.map_err(|_| StoreError::Contended { attempts: 1 })?;
        let place = self.0.places.wait(whose).await;
        let work = move || {
            let _places = (own, place);
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(StoreError::interrupted)
    }

    /// Sees `work` through when whose it is has a place. What it asks of the store is done there and then.
    ///
    /// # Errors
    /// As [`Self::run_for`].
    pub async fn see_through<T: Send + 'static>(
        &self,
        whose: Option<Tenant>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run_of(whose, move || drive(work)).await
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
            let aside = Aside::of(THREADS - 1, OF_A_TENANT);
            let asked: Vec<_> = (0..64)
                .map(|_| {
                    let (floor, aside) = (floor.clone(), aside.clone());
                    let work = move || {
                        std::thread::sleep(Duration::from_millis(5));
                        floor.admit(SpkiDigest::new([1; 32]), 5).is_ok()
                    };
                    tokio::spawn(async move { aside.run_of(None, work).await.unwrap() })
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

    /// Work of guests that goes on until what it gives is dropped.
    fn waits(
        aside: &Aside,
        asked: &[(&str, [u8; 32], usize)],
    ) -> (std::sync::mpsc::Sender<()>, tokio::task::JoinSet<()>) {
        let (held, gate) = std::sync::mpsc::channel::<()>();
        let (gate, mut all) = (Arc::new(std::sync::Mutex::new(gate)), tokio::task::JoinSet::new());
        for (tenant, guest, times) in asked {
            for _ in 0..*times {
                let (aside, gate, tenant) = (aside.clone(), gate.clone(), tenant.parse().unwrap());
                let guest = ReportId::new(*guest);
                let work = move || assert!(gate.lock().unwrap().recv().is_err());
                all.spawn(async move { aside.run_for(tenant, guest, work).await.unwrap() });
            }
        }
        (held, all)
    }

    #[tokio::test]
    async fn neither_a_guest_nor_a_tenant_has_all_places() {
        for (asked, taken) in [
            (&[("greedy", [1; 32], 100)][..], OF_A_GUEST),
            (&[("greedy", [1; 32], 100), ("greedy", [2; 32], 100)], OF_A_TENANT),
            (&[("greedy", [1; 32], 100), ("greedy", [2; 32], 100), ("modest", [3; 32], 1)], OF_A_TENANT + 1),
        ] {
            let aside = Aside::default();
            let (held, all) = waits(&aside, asked);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(PLACES - aside.0.places.free(), taken, "{asked:?}");
            drop(held);
            all.join_all().await;
            assert_eq!(aside.0.places.free(), PLACES);
        }
    }

    #[tokio::test]
    async fn a_tenants_decision_waits_for_one_of_each_other_tenant_and_not_for_all_they_ask() {
        let (aside, order) = (Aside::of(1, OF_A_TENANT), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (begin, go_on) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let aside = aside.clone();
            async move { aside.run_of(None, move || go_on.recv()).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut all = tokio::task::JoinSet::new();
        for (name, times) in [("evil", OF_A_TENANT), ("worse", OF_A_TENANT), ("modest", 1)] {
            for at in 0..times {
                let (aside, order, tenant) = (aside.clone(), order.clone(), Tenant::parse(name).unwrap());
                let guest = ReportId::new([u8::try_from(at).unwrap(); 32]);
                all.spawn(async move {
                    aside.run_for(tenant, guest, move || order.lock().unwrap().push(name)).await.unwrap();
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begin.send(()).unwrap();
        first.await.unwrap().unwrap().unwrap();
        all.join_all().await;
        let order = order.lock().unwrap();
        assert_eq!(order.len(), 2 * OF_A_TENANT + 1);
        assert_eq!(order.iter().position(|name| *name == "modest"), Some(2), "{order:?}");
    }

    #[tokio::test]
    async fn whoever_goes_away_leaves_its_place_only_when_its_work_ends() {
        let aside = Aside::of(1, OF_A_TENANT);
        let (begin, go_on) = std::sync::mpsc::channel::<()>();
        let gone = tokio::spawn({
            let aside = aside.clone();
            async move { aside.run_of(None, move || go_on.recv()).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        gone.abort();
        let second = aside.run_of(None, || ());
        tokio::pin!(second);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err());
        begin.send(()).unwrap();
        second.await.unwrap();
    }
}
