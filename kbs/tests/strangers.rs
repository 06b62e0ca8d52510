//! Attested means admitted: whoever shows genuine evidence that nothing lists stays a stranger, and no stranger floods the trail.

use crate::common;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::common::{Guest, Kbs, Launch, PATH, TENANT, VALUE, ask, has_reason, refused};
use coffer_kbs::{Intent, Rows, RowsError, Transaction};
use coffer_kbs_client::{AuditQuery, ClientError};
use tokio::sync::Notify;

fn other() -> Arc<Guest> {
    Guest::launch(&Launch { platform: 2, ..Launch::default() })
}

async fn impatient() -> Kbs {
    let kbs = Kbs::start_with(|config| {
        let anchors = vec![common::anchor().to_string()];
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = anchors;
        config.limits.unattested_seconds = 2;
    })
    .await;
    kbs.put(PATH, true).await;
    kbs
}

/// True once its connection is gone: nobody answers there any more.
async fn is_closed(client: &coffer_kbs_client::BrokerClient) -> bool {
    matches!(ask(client, PATH).await, Err(ClientError::Unreachable { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_genuine_guest_that_nothing_admits_has_a_strangers_time() {
    let kbs = impatient().await;
    let known = Guest::usual();
    kbs.admit(known.measurement, known.document.digest()).await;
    let (known, stranger) = (kbs.connect(known).await.unwrap(), kbs.connect(other()).await.unwrap());
    assert_eq!(ask(&known, PATH).await.unwrap(), VALUE);
    let line = kbs.line_of(&refused(ask(&stranger, PATH).await));
    assert_eq!((&line["event"], &line["outcome"]), (&"secret.release".into(), &"refused".into()));
    assert!(has_reason(&line, "measurement-and-workload: found") && line["source"] == "127.0.0.1", "{line}");
    assert!(line["checks"].as_array().unwrap().len() > 40, "{line}");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(ask(&known, PATH).await.unwrap(), VALUE);
    assert!(is_closed(&stranger).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_listed_meanwhile_is_let_in_and_whoever_is_taken_off_is_a_stranger_again() {
    let kbs = impatient().await;
    let admin = kbs.admin().await;
    let guest = Guest::usual();
    let client = kbs.connect(guest.clone()).await.unwrap();
    refused(ask(&client, PATH).await);
    assert!(admin.list_guests(None).await.unwrap().is_empty());
    kbs.admit(guest.measurement, guest.document.digest()).await;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE, "one of the known stays");

    let here = admin.list_guests(Some(TENANT)).await.unwrap();
    assert_eq!(here.len(), 1);
    let one = &here[0];
    assert_eq!((one.tenant.as_str(), one.anchor.as_str(), one.source.as_str()), (TENANT, "simulated", "127.0.0.1"));
    assert_eq!((&one.measurement, one.chip_id.as_ref()), (&guest.measurement.to_string(), Some(&guest.chip())));
    assert_eq!(
        (&one.workload_digest, &one.admitted_by),
        (&guest.document.digest().to_string(), &vec!["reference test".to_owned()])
    );
    assert_eq!(one.anchor_fingerprint, common::anchor().to_string());
    assert!(one.report_id.len() == 64 && one.peer.len() == 64 && one.since_unix > 0, "{one:?}");
    assert!(admin.list_guests(Some("default")).await.unwrap().is_empty());

    assert!(admin.remove_reference(TENANT, &guest.measurement, &guest.document.digest()).await.unwrap());
    let line = kbs.line_of(&refused(ask(&client, PATH).await));
    assert!(line["count"].is_null(), "the refusal of somebody known has a line of its own: {line}");
    assert!(admin.list_guests(None).await.unwrap().is_empty());
    let id = refused(ask(&client, PATH).await);
    let of_id = AuditQuery { id: Some(id.clone()), ..AuditQuery::default() };
    assert_eq!(admin.audit_search(&of_id, 1).await.unwrap().len(), 1, "whoever asks for an id finds it");
    assert!(kbs.line_of(&id)["count"].is_u64(), "and then it is a stranger's");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(is_closed(&client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hangs_up_is_not_there() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let (one, two) = (kbs.connect(guest.clone()).await.unwrap(), kbs.connect(guest).await.unwrap());
    let admin = kbs.admin().await;
    assert_eq!(admin.list_guests(None).await.unwrap().len(), 2);
    drop(one);
    for _ in 0..100 {
        if admin.list_guests(None).await.unwrap().len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(admin.list_guests(None).await.unwrap().len(), 1);
    drop(two);
}

/// Rows that count what is done to them, and let nobody begin while they are held.
struct Watched {
    rows: Arc<dyn Rows>,
    begun: Arc<AtomicUsize>,
    held: Arc<AtomicBool>,
    let_go: Arc<Notify>,
}

#[tonic::async_trait]
impl Rows for Watched {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        while self.held.load(Ordering::SeqCst) {
            let _ = tokio::time::timeout(Duration::from_millis(20), self.let_go.notified()).await;
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.rows.begin(intent).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stranger_asks_for_takes_no_lock_and_costs_no_commit() {
    let (begun, held, let_go) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default(), Arc::<Notify>::default());
    let watched = (begun.clone(), held.clone(), let_go.clone());
    let kbs = Kbs::start_in_memory(move |rows| {
        let (begun, held, let_go) = watched;
        Arc::new(Watched { rows, begun, held, let_go })
    })
    .await;
    kbs.put(PATH, true).await;
    let client = kbs.connect(other()).await.unwrap();
    let before = begun.load(Ordering::SeqCst);
    // Somebody holds the ledger, and goes on holding it.
    held.store(true, Ordering::SeqCst);
    let mut ids = Vec::new();
    for _ in 0..30 {
        let answer = tokio::time::timeout(Duration::from_secs(2), ask(&client, PATH)).await;
        ids.push(refused(answer.expect("an answer without the ledger")));
    }
    held.store(false, Ordering::SeqCst);
    let_go.notify_waiters();
    let line = kbs.line_of(&ids[0]);
    assert_eq!(line["id"], *ids[0]);
    assert!(line["ids"].as_array().unwrap().iter().any(|id| *id == *ids[1]), "{line}");
    let spent = begun.load(Ordering::SeqCst) - before;
    assert!(spent <= 3, "{spent} transactions for 30 refusals");
    let counted = kbs.stop_and_count().await;
    assert_eq!(counted, 30, "each is counted, at the latest when the broker stops");
}

/// Rows of which one read fails when it is told to.
struct Failing {
    rows: Arc<dyn Rows>,
    reads_until: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Rows for Failing {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        // Counts down to the one that fails; at zero none does.
        let left = self.reads_until.load(Ordering::SeqCst);
        if left > 0 && matches!(intent, Intent::Read) {
            self.reads_until.store(left - 1, Ordering::SeqCst);
            if left == 1 {
                return Err(RowsError::Full);
            }
        }
        self.rows.begin(intent).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_known_and_is_found_to_be_a_stranger_leaves_the_list_and_the_connection() {
    let reads_until = Arc::<AtomicUsize>::default();
    let failing = reads_until.clone();
    let kbs = Kbs::start_in_memory(move |rows| Arc::new(Failing { rows, reads_until: failing })).await;
    kbs.put(PATH, true).await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let admin = kbs.admin().await;
    assert!(admin.remove_reference(TENANT, &guest.measurement, &guest.document.digest()).await.unwrap());
    // It is refused; whether it is still one of the known cannot be looked up just then.
    reads_until.store(2, Ordering::SeqCst);
    refused(ask(&client, PATH).await);
    reads_until.store(0, Ordering::SeqCst);
    refused(ask(&client, PATH).await);
    assert!(admin.list_guests(None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_ask_at_a_strangers_rate() {
    let kbs = Kbs::start_with(|config| {
        let anchors = vec![common::anchor().to_string()];
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = anchors;
        config.limits.requests_per_second_per_guest = 2;
    })
    .await;
    // Each of another launch, and all from one address.
    let mut codes = Vec::new();
    for platform in 2..6 {
        let client = kbs.connect(Guest::launch(&Launch { platform, ..Launch::default() })).await.unwrap();
        for _ in 0..4 {
            match ask(&client, PATH).await {
                Err(ClientError::Refused { code, .. }) => codes.push(code),
                Err(ClientError::TooOften) => codes.push("too-many-requests".to_owned()),
                _ => {}
            }
        }
    }
    assert!(codes.iter().any(|code| code == "not-released"), "{codes:?}");
    assert!(codes.iter().any(|code| code == "too-many-requests"), "{codes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_listed_asks_at_its_own_rate_whatever_strangers_of_its_address_ask_for() {
    let kbs = Kbs::start_with(|config| {
        let anchors = vec![common::anchor().to_string()];
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = anchors;
        config.limits.requests_per_second_per_guest = 2;
    })
    .await;
    kbs.put(PATH, true).await;
    let guest = Guest::usual();
    let (waiting, greedy) = (kbs.connect(guest.clone()).await.unwrap(), kbs.connect(other()).await.unwrap());
    let code = async |client| match ask(client, PATH).await {
        Err(ClientError::Refused { code, .. }) => code,
        Err(ClientError::TooOften) => "too-many-requests".to_owned(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => "released".to_owned(),
    };
    while code(&greedy).await != "too-many-requests" {}
    assert_eq!(code(&waiting).await, "too-many-requests", "they are strangers of one address");
    // From the moment it is admitted it is itself that counts.
    kbs.admit(guest.measurement, guest.document.digest()).await;
    while code(&greedy).await != "too-many-requests" {}
    assert_eq!(code(&waiting).await, "released");
    while code(&waiting).await != "too-many-requests" {}
    let neighbour = Guest::usual();
    let neighbour = kbs.connect(neighbour).await.unwrap();
    assert_eq!(code(&neighbour).await, "released", "and what one guest asks for is nothing to its neighbour");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_before_attestation_stand_in_the_trail_once_for_each_cause() {
    let kbs = Kbs::start().await;
    let debug = Guest::launch(&Launch { policy: 0x3_0000 | 1 << 19, ..Launch::default() });
    let mut ids = Vec::new();
    for _ in 0..5 {
        match kbs.connect(debug.clone()).await {
            Err(ClientError::Refused { code, id }) => {
                assert_eq!(code, "evidence-refused");
                ids.push(id);
            }
            other => panic!("{:?}", other.map(|_| "admitted")),
        }
    }
    // Whoever reads the trail finds what was refused until now.
    kbs.admin().await.audit(0, 0).await.unwrap();
    let first = kbs.line_of(&ids[0]);
    assert_eq!((&first["event"], &first["outcome"]), (&"guest.attest".into(), &"refused".into()));
    assert_eq!((&first["code"], &first["source"]), (&"evidence-refused".into(), &"127.0.0.1".into()));
    assert!(has_reason(&first, "debug"), "{first}");
    assert_eq!(kbs.stop_and_count().await, 5);
}
