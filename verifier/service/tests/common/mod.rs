//! Policies, evidence and a service of a test's own, on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_simulator::Installation;
use coffer_verifier::Evidence;
use coffer_verifier::abi::{ProductLine, ReportData};
use coffer_verifier_service::{ConfigFile, KeyEntry, LimitsEntry, PolicyEntry, Reload, Server, new_key};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::simulated::{installation, report};

pub const ISSUER: &str = "https://verifier.example";

/// The clock's, for what runs by it.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Evidence of the simulated chip, with its certificates.
pub fn evidence(now: u64, report_data: [u8; 64]) -> Evidence {
    let made = report(ProductLine::Genoa, now, ReportData::new(report_data));
    Evidence { report: made.report, cert_table: made.cert_table, ..Evidence::default() }
}

pub fn roots() -> Vec<String> {
    let made: &Installation = installation();
    made.anchors().map(|anchor| anchor.spki.to_string()).collect()
}

/// A policy that believes the simulator, and asks for little else.
pub fn lab() -> PolicyEntry {
    PolicyEntry {
        floor: Some("vmpl-and-debug-alone".into()),
        simulated_evidence_is_believed_of: roots(),
        ..PolicyEntry::default()
    }
}

/// A configuration with every file it names in `folder`: plain HTTP, one key, tokens, and the policies `lab` and `gated`, whose Rego
/// refuses REPORT_DATA that begins with ff.
pub fn config(folder: &Path) -> (ConfigFile, String) {
    let (key, digest) = new_key([7; 32]);
    coffer_rim::file::write_private(&folder.join("challenge.key"), "11".repeat(32).as_bytes()).unwrap();
    if !folder.join("tokens.json").exists() {
        coffer_token::KeySet::generate().unwrap().write_new(&folder.join("tokens.json")).unwrap();
    }
    let rego = "package gate\n\ndefault allow := false\n\nallow if not refused\n\n\
                refused if startswith(input.result.claims.report.report_data, \"ff\")\n\n\
                deny contains \"gate: it begins with ff\" if refused\n";
    std::fs::write(folder.join("gate.rego"), rego).unwrap();
    let gated = PolicyEntry { rego: Some("gate.rego".into()), ..lab() };
    let config = ConfigFile {
        listen: "127.0.0.1:0".into(),
        challenge_key: "challenge.key".into(),
        issuer: Some(ISSUER.into()),
        token_keys: Some("tokens.json".into()),
        default_policy: None,
        endorsements: Vec::new(),
        plain_http_for_this_machine_alone: true,
        local_socket: false,
        anyone_who_connects_may_ask: false,
        tls: None,
        api_keys: vec![KeyEntry { name: "test".into(), sha256: hex::encode(digest) }],
        policies: BTreeMap::from([("lab".to_owned(), lab()), ("gated".to_owned(), gated)]),
        kds: None,
        traces: None,
        limits: LimitsEntry::default(),
    };
    (config, key)
}

/// A service that runs in this process, and a client of it.
pub struct Running {
    pub address: SocketAddr,
    pub key: String,
    pub client: reqwest::Client,
    pub folder: TempDir,
    file: ConfigFile,
    reload: Reload,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ConfigFile)) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let (mut file, key) = config(folder.path());
        change(&mut file);
        let config = file.resolve(folder.path()).unwrap();
        let server = Server::bind(config, folder.path()).await.unwrap();
        let address = server.address().unwrap();
        let reload = server.reload();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { address, key, client: reqwest::Client::new(), folder, file, reload, stop: Some(stop), task }
    }

    /// Another configuration from now on.
    pub fn reload(&mut self, change: impl FnOnce(&mut ConfigFile)) {
        change(&mut self.file);
        self.reload.apply(self.file.resolve(self.folder.path()).unwrap());
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(self.url(path)).bearer_auth(&self.key).send().await.unwrap()
    }

    pub async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.client.post(self.url(path)).bearer_auth(&self.key).json(body).send().await.unwrap()
    }

    /// Status and document.
    pub async fn appraise(&self, body: &Value) -> (u16, Value) {
        let response = self.post("/v1/appraise", body).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Tells it to stop, and waits until it has.
    pub async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap();
    }
}

/// A request about evidence that needs nothing of REPORT_DATA.
pub fn asks(evidence: &Evidence) -> Value {
    json!({ "evidence": STANDARD.encode(evidence.to_cmw()), "report_data": "any" })
}

/// The same, with more.
pub fn with(mut request: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more} is no object") };
    request.as_object_mut().unwrap().extend(more);
    request
}

pub fn without(mut request: Value, key: &str) -> Value {
    request.as_object_mut().unwrap().remove(key).unwrap();
    request
}

pub fn codes(answer: &Value) -> Vec<&str> {
    answer["appraisal"]["reasons"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect()
}

/// The stable word of an error.
pub fn code(error: &Value) -> &str {
    error["error"]["reason"]["code"].as_str().unwrap_or_else(|| panic!("no error: {error}"))
}
