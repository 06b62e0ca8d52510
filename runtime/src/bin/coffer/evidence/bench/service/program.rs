//! The `coffer-verifier` that is measured.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use coffer_verifier::abi::SpkiDigest;
use serde_json::Value;

use super::super::apart::Served;
use super::super::figures::broken;
use crate::error::{Class, Classify as _, CliError};

pub struct Program {
    served: Served,
    pub listen: SocketAddr,
    pub key: String,
}

/// The policy that believes the simulator in this process.
pub const POLICY: &str = "bench";

impl Program {
    /// `requests`: as many at once.
    pub fn start(program: &Path, folder: &Path, anchor: &SpkiDigest, requests: u16) -> Result<Self, CliError> {
        let init = ["--json", "init", "--issuer", "https://bench.example", "--listen", "127.0.0.1:0"];
        let (served, _, made) = Served::start(program, folder, &init, |path| configure(path, anchor, requests))?;
        let made: Value = serde_json::from_slice(&made).class(Class::Internal)?;
        let key = made["api_key"].as_str().ok_or_else(|| broken("key of the service"))?.to_owned();
        Ok(Self { listen: served.said("listen")?, key, served })
    }

    pub fn id(&self) -> u32 {
        self.served.id()
    }
}

/// What `init` wrote, in plain HTTP, and with a policy for what is sent.
fn configure(path: &Path, anchor: &SpkiDigest, requests: u16) -> Result<(), CliError> {
    let text = fs::read_to_string(path).class_while(Class::Config, "reading the service's configuration")?;
    let mut config: toml::Table = text.parse().map_err(|_| broken("the service's configuration"))?;
    config.remove("tls");
    config.insert("plain_http_for_this_machine_alone".into(), true.into());
    let listed = toml::Value::from(vec![anchor.to_string()]);
    let policy = toml::Table::from_iter([
        ("floor".to_owned(), "vmpl-and-debug-alone".into()),
        ("simulated_evidence_is_believed_of".to_owned(), listed),
    ]);
    config.insert("policies".into(), toml::Table::from_iter([(POLICY.to_owned(), policy.into())]).into());
    // One caller fills it here.
    let places = ["requests", "requests_of_one"].map(|name| (name.to_owned(), i64::from(requests).into()));
    let limits = toml::Table::from_iter(places);
    config.insert("limits".into(), limits.into());
    fs::write(path, config.to_string()).class_while(Class::Config, "writing the service's configuration")
}
