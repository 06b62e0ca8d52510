//! A judgement that breaks, as none should: for itself alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::appraiser::Admitted;
use crate::{ConfigFile, LimitsEntry, PolicyEntry, Server};

/// Whoever wants this repeated has a judgement that panics.
const BREAKS: &str = "YnJlYWtzLi4";

/// Stands before the judge, in tests alone.
pub fn breaks(admitted: &Admitted) {
    let marked = admitted.request_nonce().is_some_and(|nonce| nonce.to_string() == BREAKS);
    assert!(!marked, "a judgement that a test wants to break");
}

/// A service on this machine alone, where anyone may ask: `strict`, and `gated`, whose judgements have threads of their own.
async fn service(folder: &std::path::Path) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    coffer_rim::file::write_private(&folder.join("challenge.key"), "11".repeat(32).as_bytes()).unwrap();
    std::fs::write(folder.join("gate.rego"), "package gate\n\nallow := true\n").unwrap();
    let gated = PolicyEntry { rego: Some("gate.rego".into()), ..PolicyEntry::default() };
    let file = ConfigFile {
        listen: "127.0.0.1:0".into(),
        challenge_key: "challenge.key".into(),
        issuer: None,
        token_keys: None,
        default_policy: None,
        endorsements: Vec::new(),
        plain_http_for_this_machine_alone: true,
        local_socket: false,
        anyone_who_connects_may_ask: true,
        tls: None,
        api_keys: Vec::new(),
        policies: BTreeMap::from([("gated".to_owned(), gated)]),
        kds: None,
        traces: None,
        limits: LimitsEntry::default(),
    };
    let server = Server::bind(file.resolve(folder).unwrap(), folder).await.unwrap();
    let address = server.address().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    (address, stop, task)
}

/// Of a report that is none: judged, and not authentic.
fn asks(policy: &str, breaks: bool) -> Value {
    let mut asks = json!({ "evidence": STANDARD.encode([2; 1184]), "report_data": "any", "policy": policy });
    if breaks {
        asks["request_nonce"] = BREAKS.into();
    }
    asks
}

/// Fewer than one caller may have under way.
const BESIDE: usize = 16;

// One worker: what broke it would leave nobody to answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_judgement_that_panics_breaks_for_itself_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (address, stop, task) = service(folder.path()).await;
    // All of them on one connection, as far as one at a time can be.
    let client = reqwest::Client::builder().pool_max_idle_per_host(1).build().unwrap();
    let ask = async |path: &str, body: &Value| {
        let sent = client.post(format!("http://{address}{path}")).json(body).send().await.unwrap();
        let status = sent.status().as_u16();
        (status, sent.json::<Value>().await.unwrap())
    };
    // More than there are places for judgements at once: none of those that break keeps its own.
    let many = 2 * std::thread::available_parallelism().map_or(1, usize::from) + 2;
    for policy in ["strict", "gated"] {
        let (bad, good) = (asks(policy, true), asks(policy, false));
        for _ in 0..many {
            let (status, broken) = ask("/v1/appraise", &bad).await;
            assert_eq!((status, &broken["error"]["class"]), (500, &json!("internal")), "{policy}: {broken}");
            assert_eq!(broken["error"]["reason"]["code"], "internal", "{broken}");
            assert!(!broken.to_string().contains("a test wants"), "{broken}");
        }
        let (status, answer) = ask("/v1/appraise", &good).await;
        assert_eq!((status, &answer["appraisal"]["verdict"]), (200, &json!("not-authentic")), "{policy}: {answer}");
        // Those that are under way beside it.
        let all = (0..BESIDE).map(|at| ask("/v1/appraise", if at % 2 == 0 { &bad } else { &good }));
        let statuses: Vec<u16> = join_all(all).await.into_iter().map(|(status, _)| status).collect();
        assert!(statuses.chunks(2).all(|two| two == [500, 200]), "{policy}: {statuses:?}");
        // And those of the same batch.
        let (status, batch) = ask("/v1/appraise/batch", &json!({ "requests": [good, bad, good] })).await;
        let of = |at: usize| &batch["results"][at];
        assert_eq!(status, 200, "{batch}");
        assert_eq!(of(1)["error"]["reason"]["code"], "internal", "{batch}");
        for at in [0, 2] {
            assert_eq!(of(at)["appraisal"]["verdict"], "not-authentic", "{batch}");
        }
    }
    // Each was counted, and nobody is under way.
    let metrics = client.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
    let broken = 2 * (many + BESIDE / 2 + 1);
    assert!(metrics.contains(&format!("requests_refused_total{{why=\"internal\"}} {broken}")), "{metrics}");
    let _ = stop.send(());
    task.await.unwrap();
}
