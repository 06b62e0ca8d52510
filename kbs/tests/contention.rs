//! What a decision rests on may change while it is made: it is then made anew, never recorded on what is past.

use crate::common;
use std::sync::{Arc, Mutex};

use crate::common::{Guest, Kbs, Key, PATH, TENANT, VALUE, ask, refused};
use coffer_kbs::{Admin, Grant, Intent, Role, Rows, RowsError, Tenant, Transaction, open_store_with};
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
    assert!(admin.list_manifest_keys(TENANT).await.unwrap().is_empty());
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
