//! What is asked of the database from the event loop, which hands each question to another thread and is woken for the answer:
//! counted, so that a release does not come to wait for threads more than for the disk. And what happens while it waits for that.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread::ThreadId,
};

use crate::common::{Guest, Kbs, PATH, TENANT, VALUE, anchor, ask, unix};
use coffer_kbs::{Intent, Kind, Row, Rows, RowsError, State, Transaction, Written, init, open_rows};
use coffer_verifier::{Expiry, UnixTime};

type Meanwhile = Box<dyn FnOnce() + Send>;

/// Rows that note who asks, and what.
#[derive(Clone)]
struct Watched {
    rows: Arc<dyn Rows>,
    asked: Arc<Mutex<Vec<(&'static str, ThreadId)>>>,
    /// Done once, where a transaction that writes begins.
    at_write: Arc<Mutex<Option<Meanwhile>>>,
}

struct WatchedTransaction {
    inner: Box<dyn Transaction>,
    watched: Watched,
}

impl Watched {
    fn note(&self, what: &'static str) {
        self.asked.lock().unwrap().push((what, std::thread::current().id()));
    }

    fn around(&self, inner: Box<dyn Transaction>) -> Box<dyn Transaction> {
        Box::new(WatchedTransaction { inner, watched: self.clone() })
    }
}

#[tonic::async_trait]
impl Rows for Watched {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        self.note("begin");
        Ok(self.around(self.rows.begin(intent).await?))
    }

    async fn begin_with(
        &self,
        intent: Intent,
        kind: Kind,
        key: &[u8],
    ) -> Result<(Box<dyn Transaction>, Option<Row>), RowsError> {
        self.note(if intent == Intent::Write { "begin to write" } else { "begin to read" });
        let meanwhile = self.at_write.lock().unwrap().take_if(|_| intent == Intent::Write);
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let (inner, row) = self.rows.begin_with(intent, kind, key).await?;
        Ok((self.around(inner), row))
    }
}

#[tonic::async_trait]
impl Transaction for WatchedTransaction {
    async fn get(&mut self, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError> {
        self.watched.note("get");
        self.inner.get(kind, key).await
    }

    async fn put(&mut self, kind: Kind, key: &[u8], row: Row) -> Result<(), RowsError> {
        self.watched.note("put");
        self.inner.put(kind, key, row).await
    }

    async fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), RowsError> {
        self.watched.note("remove");
        self.inner.remove(kind, key).await
    }

    async fn from(&mut self, kind: Kind, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, RowsError> {
        self.watched.note("from");
        self.inner.from(kind, from, limit).await
    }

    async fn write(&mut self, rows: Vec<Written>) -> Result<(), RowsError> {
        self.watched.note("write");
        self.inner.write(rows).await
    }

    async fn commit(self: Box<Self>) -> Result<(), RowsError> {
        self.watched.note("commit");
        self.inner.commit().await
    }

    async fn commit_with(self: Box<Self>, rows: Vec<Written>) -> Result<(), RowsError> {
        self.watched.note("commit with rows");
        self.inner.commit_with(rows).await
    }
}

/// A broker on a file, watched, whose event loop is this thread and one more.
async fn watched() -> (Kbs, Watched, BTreeSet<String>) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    init(&state, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let watched = Watched { rows: open_rows(&state).await.unwrap(), asked: Arc::default(), at_write: Arc::default() };
    let rows = Arc::new(watched.clone());
    let kbs = Kbs::start_in(
        folder,
        |config| {
            config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
        },
        async |state| State::open_with(state, rows).await.unwrap(),
    )
    .await;
    let worker = tokio::spawn(async { std::thread::current().id() }).await.unwrap();
    let event_loop = [worker, std::thread::current().id()].map(|id| format!("{id:?}"));
    (kbs, watched, event_loop.into())
}

/// What was asked since the last look: from the event loop, and beside it.
fn asked(watched: &Watched, event_loop: &BTreeSet<String>) -> (Vec<&'static str>, Vec<&'static str>) {
    let asked = std::mem::take(&mut *watched.asked.lock().unwrap());
    let (loops, beside): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|(_, thread)| event_loop.contains(&format!("{thread:?}")));
    let what = |all: Vec<(&'static str, ThreadId)>| all.into_iter().map(|(what, _)| what).collect();
    (what(loops), what(beside))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_further_secret_asks_the_database_nothing_from_the_event_loop_and_commits_once() {
    let (kbs, watched, event_loop) = watched().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    for _ in 0..3 {
        asked(&watched, &event_loop);
        assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
        let (from_loop, beside) = asked(&watched, &event_loop);
        assert_eq!(from_loop, Vec::<&str>::new());
        let expected = ["begin to read", "get", "get", "get", "get", "get", "begin to write", "commit with rows"];
        assert_eq!(beside, expected, "list number, reference, secret twice, policy");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_secret_is_said_to_be_asks_from_the_event_loop_only_who_asks() {
    let (kbs, watched, event_loop) = watched().await;
    kbs.put(PATH, true).await;
    let admin = kbs.admin().await;
    asked(&watched, &event_loop);
    admin.secret_meta(TENANT, &PATH.parse().unwrap()).await.unwrap();
    let (from_loop, beside) = asked(&watched, &event_loop);
    // Whoever may not ask takes no place among those who may: that is looked at before.
    assert_eq!((from_loop, beside.is_empty()), (vec!["begin to read"], false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_attests_asks_nothing_from_the_event_loop() {
    let (kbs, watched, event_loop) = watched().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    drop(kbs.connect(guest.clone()).await.unwrap());
    asked(&watched, &event_loop);
    kbs.connect(guest).await.unwrap();
    assert_eq!(asked(&watched, &event_loop).0, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_expires_while_the_ledger_is_waited_for_is_not_released() {
    let (kbs, watched, _) = watched().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    let until = Expiry::At(UnixTime(i64::try_from(unix()).unwrap() + 600));
    kbs.admit_until(guest.measurement, guest.document.digest(), until).await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    for (seconds, released) in [(1, true), (700, false)] {
        let skew = kbs.skew.clone();
        let go_on = move || skew.store(seconds, std::sync::atomic::Ordering::Relaxed);
        *watched.at_write.lock().unwrap() = Some(Box::new(go_on));
        assert_eq!(ask(&client, PATH).await.is_ok(), released, "{seconds} seconds later");
        assert!(watched.at_write.lock().unwrap().is_none(), "it waited for the ledger");
    }
}
