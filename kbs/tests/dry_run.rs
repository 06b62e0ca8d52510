//! What was decided can be looked at again: by its id with what the policy saw, and under another policy.

use crate::common;
use crate::common::{Guest, Kbs, Launch, PATH, TENANT, VALUE, ask, refused, spec};
use std::sync::Arc;

use coffer_kbs::{Forget, Intent, Kind, Row, Rows, RowsError, Transaction, Written, open_store};
use coffer_kbs_client::{AuditQuery, ClientError, kbs::admin::v1::TestPolicyRequest};
use serde_json::Value;

const NO: &str = "package web\nallow := false\ndeny contains \"web: closed\"\n";

fn under(name: &str, text: &str) -> TestPolicyRequest {
    TestPolicyRequest {
        tenant: TENANT.into(),
        name: name.into(),
        text: Some(text.to_owned()).filter(|text| !text.is_empty()),
        since_unix: None,
        all: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_says_who_would_be_refused_and_changes_nothing() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    let other = "kbs:///default/app/other";
    let guest = Guest::launch(&Launch { spec: spec(&[PATH, other]), ..Launch::default() });
    kbs.admit(guest.measurement, guest.document.digest()).await;
    admin.put_policy(TENANT, "web", NO).await.unwrap();
    kbs.put(PATH, true).await;
    kbs.put_under(other, true, "web").await.unwrap();
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let closed = refused(ask(&client, other).await);
    let lines = admin.audit(0, 0).await.unwrap().len();

    // Under `default` one was released: this workload would be refused, that measurement would not.
    let workload = guest.document.digest();
    let candidate = format!(
        "package next\n\nallow if input.result.claims.anchor.simulated\n\ndeny contains \"next: workload\" if \
         input.result.workload_digest == \"{workload}\"\n"
    );
    let answer = admin.test_policy(under("default", &candidate)).await.unwrap();
    assert_eq!((answer.decisions.len(), answer.left_out, answer.not_believed), (1, 0, 0));
    let one = &answer.decisions[0];
    assert_eq!((one.what.as_str(), one.before.as_str(), one.after.as_str()), (PATH, "released", "refused"));
    assert_eq!(
        (one.measurement.as_str(), one.reasons.as_slice()),
        (guest.measurement.to_string().as_str(), ["next: workload".to_owned()].as_slice())
    );
    let line = kbs.line_of(&one.id);
    assert_eq!((&line["outcome"], &line["event"]), (&"released".into(), &"secret.release".into()));
    let lax = "package next\nallow if input.result.claims.anchor.simulated\n";
    assert_eq!(admin.test_policy(under("default", lax)).await.unwrap().decisions[0].after, "released");

    // And what `web` refused would be released.
    let answer = admin.test_policy(under("web", lax)).await.unwrap();
    let one = &answer.decisions[0];
    assert_eq!((one.id.as_str(), one.before.as_str(), one.after.as_str()), (closed.as_str(), "refused", "released"));
    let many = "package next\nallow := true\ndeny contains sprintf(\"%d\", [n]) if some n in numbers.range(1, 4000)\n";
    let reasons = admin.test_policy(under("web", many)).await.unwrap().decisions[0].reasons.clone();
    assert!(reasons.len() == 5 && reasons[4] == "policy: … and 29 more reasons", "{reasons:?}");
    let as_it_is = admin.test_policy(under("web", "")).await.unwrap();
    assert_eq!((as_it_is.decisions[0].after.as_str(), as_it_is.decisions.len()), ("refused", 1));
    let every = admin.test_policy(TestPolicyRequest { all: true, ..under("web", lax) }).await.unwrap();
    let ids: Vec<_> = every.decisions.iter().map(|one| one.id.as_str()).collect();
    assert!(ids.len() == 2 && ids[0] == closed, "newest first: {ids:?}");
    let later = Some(i64::try_from(common::unix()).unwrap() + 60);
    let none = admin.test_policy(TestPolicyRequest { since_unix: later, ..under("web", lax) }).await.unwrap();
    assert!(none.decisions.is_empty());

    assert_eq!(admin.audit(0, 0).await.unwrap().len(), lines, "nothing was recorded");
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    for (request, words) in
        [(under("web", "package web\nallow if {"), "line 2"), (under("nosuch", ""), "no policy nosuch")]
    {
        match admin.test_policy(request).await {
            Err(ClientError::Rejected { message, .. }) => assert!(message.contains(words), "{message}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_against_a_release_beside_the_policy_stands_against_it_still() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    kbs.put(PATH, false).await;
    let client = kbs.connect(guest).await.unwrap();
    refused(ask(&client, PATH).await);
    let answer = kbs.admin().await.test_policy(under("default", "package lax\nallow := true\n")).await.unwrap();
    let one = &answer.decisions[0];
    assert_eq!((one.before.as_str(), one.after.as_str()), ("refused", "refused"));
    assert!(one.reasons[0].contains("no policy's to decide"), "{:?}", one.reasons);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_input_of_a_decision_is_the_one_its_line_names_or_none() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    kbs.put(PATH, true).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let query = AuditQuery { event: Some("secret.release".into()), ..AuditQuery::default() };
    let lines = admin.audit_search(&query, 10).await.unwrap();
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    let id = line["id"].as_str().unwrap();

    let found = admin.decision_input(Some(TENANT), id).await.unwrap().unwrap();
    let text = found.input.unwrap();
    assert_eq!(found.line, lines[0]);
    let input: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(input["secret"]["path"], PATH);
    assert_eq!(input["result"]["claims"]["report"]["measurement"], guest.measurement.to_string());
    assert!(!text.contains("correct horse"));
    // The shipped policy says to it what it said then.
    let shipped = coffer_policies::Policy::parse("release", coffer_policies::RELEASE.text).unwrap();
    assert!(shipped.decide(&input).allows());

    assert_eq!(admin.decision_input(None, "0123456789abcdef").await.unwrap(), None);
    assert_eq!(admin.decision_input(Some("default"), id).await.unwrap(), None, "another tenant's");
    // Somebody writes another input into the database: it is not shown, and nothing is tried on it.
    kbs.tamper(Kind::DecisionInput, |rows| {
        for (_, row) in rows {
            row.body = [&row.body[..1], text.replace("affirming", "warning").as_bytes()].concat();
        }
    })
    .await;
    assert_eq!(admin.decision_input(None, id).await.unwrap().unwrap().input, None);
    // Nor where what stood against it beside the policy is turned.
    kbs.tamper(Kind::DecisionInput, |rows| {
        for (_, row) in rows {
            row.body = [&[1], text.as_bytes()].concat();
        }
    })
    .await;
    assert_eq!(admin.decision_input(None, id).await.unwrap().unwrap().input, None);
    let answer = admin.test_policy(under("default", "")).await.unwrap();
    assert_eq!((answer.decisions.len(), answer.not_believed, answer.missing), (0, 1, 0));
    // Taken away it is missed, by a dry run under its policy and by whoever looks at the state.
    kbs.tamper(Kind::DecisionInput, Vec::clear).await;
    let answer = admin.test_policy(under("default", "")).await.unwrap();
    assert_eq!((answer.decisions.len(), answer.not_believed, answer.missing), (0, 0, 1));
    admin.put_policy(TENANT, "web", NO).await.unwrap();
    let other = admin.test_policy(under("web", "package web\nallow := true\n")).await.unwrap();
    assert_eq!(other.missing, 0, "what was decided under another policy would not have been tried");
    let summary = open_store(&kbs.state()).await.unwrap().verify_state().await.unwrap();
    assert_eq!((summary.faults, summary.inputs_gone), (vec![], vec![line["sequence"].as_u64().unwrap()]));
}

/// Rows as they lie, but for those of inputs, at which no writer can look.
struct NoInputs {
    rows: Arc<dyn Rows>,
}

struct NoInput {
    inner: Box<dyn Transaction>,
    intent: Intent,
}

#[tonic::async_trait]
impl Rows for NoInputs {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        Ok(Box::new(NoInput { inner: self.rows.begin(intent).await?, intent }))
    }
}

#[tonic::async_trait]
impl Transaction for NoInput {
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
        if kind == Kind::DecisionInput && self.intent == Intent::Write {
            return Err(RowsError::Failed("no".into()));
        }
        self.inner.from(kind, from, limit).await
    }

    async fn commit(self: Box<Self>) -> Result<(), RowsError> {
        self.inner.commit().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_does_not_hang_on_whether_its_input_can_be_kept() {
    let kbs = Kbs::start_in_memory(|rows| Arc::new(NoInputs { rows })).await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    kbs.put(PATH, true).await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let line = kbs.admin().await.audit(0, 0).await.unwrap().pop().unwrap();
    assert!(line.contains("secret.release") && !line.contains("\"input\""), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_inputs_stop_no_release_and_are_named() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    let guest = Guest::usual();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    kbs.put(PATH, true).await;
    let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let key = |line: u64| [field(TENANT.as_bytes()), field(&line.to_be_bytes())].concat();
    let row = |body: &[u8]| Row { body: body.to_vec(), mac: Vec::new() };
    // Of no line yet, of none ever, behind the key of one, of one that names none.
    let keys = [key(u64::MAX), key(u64::MAX - 1), key(40), [key(0), vec![1]].concat(), key(1), vec![7]];
    kbs.tamper(Kind::DecisionInput, |rows| {
        rows.extend(keys.iter().map(|key| (key.clone(), row(b"\0{}"))));
        rows[4].1 = row(b"");
    })
    .await;
    let client = kbs.connect(guest).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    let answer = admin.test_policy(under("default", "")).await.unwrap();
    assert_eq!((answer.decisions.len(), answer.not_believed), (2, 1), "line 1 names none");
    let folder = kbs.stop().await;
    let faults = open_store(&folder.path().join("state")).await.unwrap().verify_state().await.unwrap().faults;
    let named = faults.iter().filter(|one| one.what.starts_with("what a policy saw of")).count();
    assert_eq!((faults.len(), named), (keys.len(), keys.len()), "{faults:?}");
    assert!(coffer_kbs::repair(&folder.path().join("state"), Forget::default()).await.is_ok());
    let faults = open_store(&folder.path().join("state")).await.unwrap().verify_state().await.unwrap().faults;
    assert!(faults.is_empty(), "{faults:?}");
}
