//! The `coffer-verifier` that is measured: a process of its own on a fresh state folder, gone when this value is.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coffer_verifier::abi::SpkiDigest;
use serde_json::Value;

use super::super::figures::broken;
use crate::error::{Class, Classify as _, CliError};

pub struct Program {
    process: Child,
    pub listen: SocketAddr,
    pub key: String,
}

/// The policy that believes the simulator in this process.
pub const POLICY: &str = "bench";

impl Program {
    /// `requests`: as many at once.
    pub fn start(program: &Path, folder: &Path, anchor: &SpkiDigest, requests: u16) -> Result<Self, CliError> {
        let (state, ready) = (folder.join("state"), folder.join("ready"));
        let running = || format!("running {}", program.display());
        let made = Command::new(program)
            .args(["--json", "init", "--issuer", "https://bench.example", "--listen", "127.0.0.1:0", "--state"])
            .arg(&state)
            .output()
            .class_while(Class::Config, running())?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stdout).into_owned();
            return Err(CliError::new(Class::Config, format!("{} init: {said}", program.display())));
        }
        let said: Value = serde_json::from_slice(&made.stdout).class(Class::Internal)?;
        let key = said["api_key"].as_str().ok_or_else(|| broken("key of the service"))?.to_owned();
        configure(&state.join("config.toml"), anchor, requests)?;
        let process = Command::new(program)
            .args(["serve", "--state"])
            .arg(&state)
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .class_while(Class::Config, running())?;
        let mut started = Self { process, listen: SocketAddr::from(([127, 0, 0, 1], 0)), key };
        let until = Instant::now() + Duration::from_secs(20);
        while !ready.exists() {
            if Instant::now() > until || started.process.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(CliError::new(Class::Config, "the coffer-verifier to measure did not start"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let said: Value = serde_json::from_slice(&fs::read(&ready).class(Class::Config)?).class(Class::Internal)?;
        let listen = said["listen"].as_str().and_then(|text| text.parse().ok());
        started.listen = listen.ok_or_else(|| broken("address of the service"))?;
        Ok(started)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
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
    let limits = toml::Table::from_iter([("requests".to_owned(), i64::from(requests).into())]);
    config.insert("limits".into(), limits.into());
    fs::write(path, config.to_string()).class_while(Class::Config, "writing the service's configuration")
}
