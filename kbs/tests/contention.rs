//! What a decision rests on may change while it is made: it is then made anew, never recorded on what is past.

use crate::common;
use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use crate::common::{Guest, Kbs, Key, PATH, TENANT, VALUE, ask, refused};
use coffer_kbs::{Admin, Grant, Intent, Kind, Role, Row, Rows, RowsError, Tenant, Transaction, open_store_with};
use coffer_kbs_client::{ClientError, ManifestKey};
use tokio::sync::oneshot;

/// Rows that stop a writer once, until told to go on.
struct Stopping {
    rows: Arc<dyn Rows>,
    next: Arc<Mutex<Option<Stop>>>,
}

struct Stop {
    reached: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
}

#[tonic::async_trait]
impl Rows for Stopping {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        let stop = if intent == Intent::Write { self.next.lock().unwrap().take() } else { None };
        if let Some(Stop { reached, go_on }) = stop {
            let _ = reached.send(());
            let _ = go_on.await;
        }
        self.rows.begin(intent).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_that_goes_while_the_policy_runs_admits_nobody() {
    let (next, mut rows) = (Arc::new(Mutex::new(None)), None);
    let kbs = Kbs::start_in_memory(|inner| {
        rows = Some(inner.clone());
        Arc::new(Stopping { rows: inner, next: next.clone() })
    })
    .await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);

    // Decided, and about to be recorded: another process takes the reference away.
    let ((reached, was_reached), (go_on, may_go_on)) = (oneshot::channel(), oneshot::channel());
    *next.lock().unwrap() = Some(Stop { reached, go_on: may_go_on });
    let asked = ask(&client, PATH);
    let removed = async {
        was_reached.await.unwrap();
        let other = open_store_with(&kbs.state(), rows.unwrap()).await.unwrap();
        let mut ledger = other.write().await.unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        let (measurement, workload) = (guest.measurement, guest.document.digest());
        assert!(ledger.remove_reference(&tenant, &measurement, &workload).await.unwrap());
        ledger.commit().await.unwrap();
        go_on.send(()).unwrap();
    };
    let (asked, ()) = tokio::join!(asked, removed);
    let line = kbs.line_of(&refused(asked));
    assert!(common::has_reason(&line, "neither measurement"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_becomes_an_operators_meanwhile_is_no_manifest_key() {
    let (next, mut rows) = (Arc::new(Mutex::new(None)), None);
    let kbs = Kbs::start_in_memory(|inner| {
        rows = Some(inner.clone());
        Arc::new(Stopping { rows: inner, next: next.clone() })
    })
    .await;
    let admin = kbs.admin().await;
    let key = ManifestKey { tenant: TENANT.into(), name: "ci".into(), key: Key::new(9).public };
    let ((reached, was_reached), (go_on, may_go_on)) = (oneshot::channel(), oneshot::channel());
    *next.lock().unwrap() = Some(Stop { reached, go_on: may_go_on });
    let asked = admin.add_manifest_key(&key);
    let listed = async {
        was_reached.await.unwrap();
        let other = open_store_with(&kbs.state(), rows.unwrap()).await.unwrap();
        let mut ledger = other.write().await.unwrap();
        let grants = vec![Grant { role: Role::Auditor, tenant: None }];
        let new = Admin { key: key.key.spki_digest(), name: "new".into(), grants, added_unix: 1 };
        assert!(ledger.put_admin(&new).await.unwrap());
        ledger.commit().await.unwrap();
        go_on.send(()).unwrap();
    };
    match tokio::join!(asked, listed).0 {
        Err(ClientError::Rejected { message, .. }) => assert!(message.contains("an operator's key"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(admin.list_manifest_keys(TENANT).await.unwrap().rows.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_list_number_that_rises_while_the_policy_runs_counts() {
    let (next, mut rows) = (Arc::new(Mutex::new(None)), None);
    let kbs = Kbs::start_in_memory(|inner| {
        rows = Some(inner.clone());
        Arc::new(Stopping { rows: inner, next: next.clone() })
    })
    .await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);

    // Judged and decided, and about to be recorded: another process has seen a newer list.
    let ((reached, was_reached), (go_on, may_go_on)) = (oneshot::channel(), oneshot::channel());
    *next.lock().unwrap() = Some(Stop { reached, go_on: may_go_on });
    let asked = ask(&client, PATH);
    let raised = async {
        was_reached.await.unwrap();
        let other = open_store_with(&kbs.state(), rows.unwrap()).await.unwrap();
        let mut ledger = other.write().await.unwrap();
        ledger.raise_crl_number(&common::anchor(), 1 << 40).await.unwrap();
        ledger.commit().await.unwrap();
        go_on.send(()).unwrap();
    };
    let (asked, ()) = tokio::join!(asked, raised);
    let line = kbs.line_of(&refused(asked));
    assert!(common::has_reason(&line, "crl-number: "), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_over_rows_in_memory_behaves_as_one_over_a_file() {
    let kbs = Kbs::start_in_memory(|rows| rows).await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    refused(ask(&client, PATH).await);
    kbs.admit(guest.measurement, guest.document.digest()).await;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert_eq!(kbs.admin().await.audit(0, 0).await.unwrap().len(), 4);
}

/// Lets a broker stop at its `at`th look at the clock, once, and says when it has.
fn stop_at_clock(kbs: &Kbs, at: usize) -> (oneshot::Receiver<()>, mpsc::Sender<()>) {
    let ((reached, was_reached), (go_on, may_go_on)) = (oneshot::channel(), mpsc::channel::<()>());
    let (mut left, mut stop) = (at, Some((reached, may_go_on)));
    *kbs.at_clock.lock().unwrap() = Some(Box::new(move || {
        if left > 0 {
            left -= 1;
            return None;
        }
        let (reached, may_go_on) = stop.take()?;
        Some(Box::new(move || {
            let _ = reached.send(());
            let _ = may_go_on.recv_timeout(Duration::from_secs(10));
        }))
    }));
    (was_reached, go_on)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_is_revoked_while_it_attests_is_not_among_the_known_whenever_that_is() {
    let kbs = Kbs::start().await;
    kbs.put(PATH, true).await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let (admin, measurement) = (kbs.admin().await, guest.measurement.to_string());
    let mut moments = 0;
    loop {
        let (reached, go_on) = stop_at_clock(&kbs, moments);
        let mut attesting = Box::pin(kbs.connect(guest.clone()));
        tokio::select! {
            done = &mut attesting => {
                assert!(done.is_ok(), "it came through without a stop, and without a revocation");
                break;
            }
            stopped = reached => stopped.unwrap(),
        }
        moments += 1;
        // Committed while it attests; where its own road holds the ledger, after it.
        let revoke = admin.revoke(None, "measurement", &measurement, None);
        let mut revoke = Box::pin(revoke);
        let revoked = tokio::time::timeout(Duration::from_secs(1), &mut revoke).await;
        drop(go_on);
        let client = attesting.await.unwrap();
        let (added, _) = match revoked {
            Ok(revoked) => revoked.unwrap(),
            Err(_) => revoke.await.unwrap(),
        };
        assert!(added);
        assert!(admin.list_guests(None).await.unwrap().is_empty(), "revoked at moment {moments}, and still known");
        refused(ask(&client, PATH).await);
        assert!(admin.remove_revocation(None, "measurement", &measurement).await.unwrap());
    }
    assert!(moments >= 3, "it is judged, looked at and let in: {moments}");
}

/// Rows whose next commit is stopped once it has happened, and may then be called a failure.
struct Committing {
    rows: Arc<dyn Rows>,
    next: Arc<Mutex<Option<Commit>>>,
}

struct Commit {
    stop: Stop,
    fails: bool,
}

struct Committed {
    transaction: Box<dyn Transaction>,
    commit: Option<Commit>,
}

#[tonic::async_trait]
impl Rows for Committing {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        let commit = if intent == Intent::Write { self.next.lock().unwrap().take() } else { None };
        Ok(Box::new(Committed { transaction: self.rows.begin(intent).await?, commit }))
    }
}

#[tonic::async_trait]
impl Transaction for Committed {
    async fn get(&mut self, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError> {
        self.transaction.get(kind, key).await
    }

    async fn put(&mut self, kind: Kind, key: &[u8], row: Row) -> Result<(), RowsError> {
        self.transaction.put(kind, key, row).await
    }

    async fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), RowsError> {
        self.transaction.remove(kind, key).await
    }

    async fn from(&mut self, kind: Kind, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, RowsError> {
        self.transaction.from(kind, from, limit).await
    }

    async fn commit(self: Box<Self>) -> Result<(), RowsError> {
        self.transaction.commit().await?;
        let Some(Commit { stop, fails }) = self.commit else { return Ok(()) };
        let _ = stop.reached.send(());
        let _ = stop.go_on.await;
        if fails { Err(RowsError::Failed("the answer was lost".into())) } else { Ok(()) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_recalls_also_where_its_operator_hangs_up_or_nobody_can_say_whether_it_was_written() {
    for fails in [false, true] {
        let next = Arc::new(Mutex::new(None));
        let commits = next.clone();
        let kbs = Kbs::start_in_memory(|rows| Arc::new(Committing { rows, next: commits })).await;
        kbs.put(PATH, true).await;
        let guest = Guest::usual();
        kbs.admit(guest.measurement, guest.document.digest()).await;
        let _client = kbs.connect(guest.clone()).await.unwrap();
        let (admin, measurement) = (kbs.admin().await, guest.measurement.to_string());
        assert_eq!(admin.list_guests(None).await.unwrap().len(), 1);

        let ((reached, was_reached), (go_on, may_go_on)) = (oneshot::channel(), oneshot::channel());
        *next.lock().unwrap() = Some(Commit { stop: Stop { reached, go_on: may_go_on }, fails });
        let operator = kbs.admin().await;
        let revoking = tokio::spawn(async move { operator.revoke(None, "measurement", &measurement, None).await });
        was_reached.await.unwrap();
        if fails {
            go_on.send(()).unwrap();
            assert!(revoking.await.unwrap().is_err());
        } else {
            revoking.abort();
            assert!(revoking.await.unwrap_err().is_cancelled());
            // The broker learns of it before the commit ends.
            tokio::time::sleep(Duration::from_millis(300)).await;
            go_on.send(()).unwrap();
        }
        for _ in 0..3000 {
            if admin.list_guests(None).await.unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(admin.list_guests(None).await.unwrap().is_empty(), "fails: {fails}");
        assert_eq!(admin.list_revocations(None).await.unwrap().rows.len(), 1, "it was committed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_under_an_older_configuration_is_not_recorded_under_a_newer() {
    const YES: &str = "package strict\nallow := true\n";
    const NO: &str = "package strict\nallow := false\ndeny contains \"strict: closed\"\n";
    for of_policy in [true, false] {
        let next = Arc::new(Mutex::new(None));
        let kbs = Kbs::start_in_memory(|rows| Arc::new(Stopping { rows, next: next.clone() })).await;
        let file = kbs.folder.path().join("strict.rego");
        let reload = async |text: &str, anchor: Option<String>| {
            std::fs::write(&file, text).unwrap();
            kbs.reload(|config| {
                config.tenants.entry(TENANT.into()).or_default().simulated_anchors = anchor.into_iter().collect();
                config.policies.insert("strict".into(), file.clone());
            })
            .await;
        };
        reload(YES, Some(common::anchor().to_string())).await;
        let guest = Guest::usual();
        kbs.put_under(PATH, true, "strict").await.unwrap();
        kbs.admit(guest.measurement, guest.document.digest()).await;
        let client = kbs.connect(guest.clone()).await.unwrap();
        assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);

        // Decided, and about to be recorded.
        let ((reached, was_reached), (go_on, may_go_on)) = (oneshot::channel(), oneshot::channel());
        *next.lock().unwrap() = Some(Stop { reached, go_on: may_go_on });
        let replaced = async {
            was_reached.await.unwrap();
            if of_policy {
                reload(NO, Some(common::anchor().to_string())).await;
            } else {
                reload(YES, None).await;
            }
            go_on.send(()).unwrap();
        };
        let (asked, ()) = tokio::join!(ask(&client, PATH), replaced);
        let line = kbs.line_of(&refused(asked));
        assert_eq!(common::has_reason(&line, "strict: closed"), of_policy, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_brought_counts_also_where_it_hangs_up() {
    const DAY: i64 = 24 * 60 * 60;
    let next = Arc::new(Mutex::new(None));
    let commits = next.clone();
    let kbs = Kbs::start_in_memory(|rows| Arc::new(Committing { rows, next: commits })).await;
    std::fs::write(kbs.folder.path().join("floor.toml"), "measurements = \"any\"\nmax_crl_age = \"2d\"\n").unwrap();
    kbs.reload(|config| {
        let tenant = config.tenants.entry(TENANT.into()).or_default();
        tenant.simulated_anchors = vec![common::anchor().to_string()];
        tenant.floor = Some("floor.toml".into());
    })
    .await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest).await.unwrap();
    kbs.skew.store(3 * DAY, std::sync::atomic::Ordering::Relaxed);
    assert!(common::has_reason(&kbs.line_of(&refused(ask(&client, PATH).await)), "crl-age: "));

    // Of a list, and of an operator: whoever asked is gone before the commit ends.
    let identity = coffer_ratls::Identity::generate("new").unwrap();
    let spki = identity.spki();
    for list in [true, false] {
        let ((reached, was_reached), (go_on, may_go_on)) = (oneshot::channel(), oneshot::channel());
        *next.lock().unwrap() = Some(Commit { stop: Stop { reached, go_on: may_go_on }, fails: false });
        let operator = kbs.admin().await;
        let asking = tokio::spawn(async move {
            if list {
                operator.put_crl(&common::crl(3), Some(&common::ark())).await.map(|_| ())
            } else {
                let grants = [coffer_kbs_client::Grant { role: "auditor".into(), tenant: None }];
                operator.add_admin("new", &spki, &grants).await.map(|_| ())
            }
        });
        was_reached.await.unwrap();
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        tokio::time::sleep(Duration::from_millis(300)).await;
        go_on.send(()).unwrap();
    }
    let profile = coffer_kbs_client::AdminProfile {
        identity,
        ..coffer_kbs_client::AdminProfile::read(&kbs.state().join("admin.toml")).unwrap()
    };
    let mut let_in = false;
    for _ in 0..3000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Ok(admin) = coffer_kbs_client::AdminClient::connect(&profile).await {
            let_in = admin.audit(0, 0).await.is_ok();
        }
        if let_in {
            break;
        }
    }
    assert!(let_in, "the listener knows the new operator");
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE, "the list is at hand");
}
