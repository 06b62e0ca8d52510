//! Many releases at once share their commits; a commit that fails releases nothing to any of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::common::{Guest, Kbs, PATH, VALUE, ask};
use coffer_kbs::{Intent, Kind, Row, Rows, RowsError, Transaction, Written};
use coffer_kbs_client::ClientError;

/// Rows on a slow disk, which may be full.
#[derive(Clone)]
struct Slow {
    rows: Arc<dyn Rows>,
    commits: Arc<AtomicUsize>,
    full: Arc<AtomicBool>,
}

struct SlowTransaction {
    inner: Box<dyn Transaction>,
    disk: Slow,
}

#[tonic::async_trait]
impl Rows for Slow {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        Ok(Box::new(SlowTransaction { inner: self.rows.begin(intent).await?, disk: self.clone() }))
    }
}

#[tonic::async_trait]
impl Transaction for SlowTransaction {
    async fn get(&mut self, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError> {
        self.inner.get(kind, key).await
    }

    async fn put(&mut self, kind: Kind, key: &[u8], row: Row) -> Result<(), RowsError> {
        self.inner.put(kind, key, row).await
    }

    async fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), RowsError> {
        self.inner.remove(kind, key).await
    }

    async fn write(&mut self, rows: Vec<Written>) -> Result<(), RowsError> {
        self.inner.write(rows).await
    }

    async fn from(&mut self, kind: Kind, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, RowsError> {
        self.inner.from(kind, from, limit).await
    }

    async fn commit(self: Box<Self>) -> Result<(), RowsError> {
        self.disk.commits.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        if self.disk.full.load(Ordering::Relaxed) { Err(RowsError::Full) } else { self.inner.commit().await }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_at_once_share_commits_and_fail_together() {
    const MANY: usize = 16;
    let mut disk = None;
    let kbs = Kbs::start_in_memory(|rows| {
        let slow = Slow { rows, commits: Arc::default(), full: Arc::default() };
        disk = Some(slow.clone());
        Arc::new(slow)
    })
    .await;
    let disk = disk.unwrap();
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = Arc::new(kbs.connect(guest.clone()).await.unwrap());
    let at_once = async || {
        let local = tokio::task::LocalSet::new();
        let one = |_| {
            let client = client.clone();
            local.spawn_local(async move { ask(&client, PATH).await })
        };
        let asking: Vec<_> = (0..MANY).map(one).collect();
        local.await;
        let mut answers = Vec::new();
        for one in asking {
            answers.push(one.await.unwrap());
        }
        answers
    };
    let released = async || {
        let lines = kbs.admin().await.audit(0, 0).await.unwrap();
        lines.iter().filter(|line| line.contains("\"released\"")).count()
    };

    let before = disk.commits.load(Ordering::Relaxed);
    for answer in at_once().await {
        assert_eq!(answer.unwrap(), VALUE);
    }
    let commits = disk.commits.load(Ordering::Relaxed) - before;
    assert!(commits <= MANY / 2, "{MANY} releases took {commits} commits");
    assert_eq!(released().await, MANY, "each has its line");

    disk.full.store(true, Ordering::Relaxed);
    // As many as a guest may ask for in a second are spent.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for answer in at_once().await {
        match answer {
            Err(ClientError::Undecided { code, .. }) => assert_eq!(code, "broker-failed"),
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("released without a record"),
        }
    }
    disk.full.store(false, Ordering::Relaxed);
    assert_eq!(released().await, MANY, "what failed left no line");
}
