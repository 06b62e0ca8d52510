//! What an image asks to be run as: a view of its configuration.

use crate::digest::{Digest, DigestError};
use crate::error::{ImageError, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// The parts of an image configuration that matter for running it. Absent lists are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD: default arguments, or the command where there is no entry point.
    pub cmd: Vec<String>,
    /// ENV, `NAME=value`.
    pub env: Vec<String>,
    /// USER as written: `name`, `uid`, either with `:group`; empty means root. Resolved inside the guest, where the
    /// image's own `/etc/passwd` is.
    pub user: String,
    /// WORKDIR; `/` where the image says nothing.
    pub working_dir: String,
    /// EXPOSE, `port/protocol`, sorted.
    pub exposed_ports: Vec<String>,
    /// VOLUME paths, sorted.
    pub volumes: Vec<String>,
    /// STOPSIGNAL as written.
    pub stop_signal: Option<String>,
    /// HEALTHCHECK.
    pub healthcheck: Option<Healthcheck>,
    /// LABEL.
    pub labels: BTreeMap<String, String>,
    /// Creation time as written (RFC 3339).
    pub created: Option<String>,
    /// Digests of the unpacked layers, bottom first.
    pub diff_ids: Vec<Digest>,
    /// `os/architecture`.
    pub platform: String,
}

/// How an image wants its health to be looked at, as it says it: times in nanoseconds; what is 0, or less, is not said.
///
/// Source: Docker's image specification 1.2, "Healthcheck".
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`; `CMD` and a program with its arguments; or `CMD-SHELL` and a line for the shell. Nothing: whatever was said before.
    pub test: Vec<String>,
    /// Between one look and the next.
    pub interval: i64,
    /// Of one look.
    pub timeout: i64,
    /// In which failures do not count.
    pub start_period: i64,
    /// Between looks in that time.
    pub start_interval: i64,
    /// Failures, one after the other, that make it unhealthy.
    pub retries: i64,
}

impl ImageConfig {
    /// Reads a configuration document.
    ///
    /// # Errors
    /// [`ImageError::Malformed`] for anything but an image configuration with SHA-256 layer digests.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let malformed =
            |reason: String| ImageError::Malformed { what: "configuration", digest: Digest::of(bytes), reason };
        let wire: Document = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        let diff_ids = wire.rootfs.diff_ids.iter().map(|id| id.parse()).collect::<Result<Vec<_>, DigestError>>();
        let config = wire.config.unwrap_or_default();
        let parsed = Self {
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            working_dir: format!("/{}", config.working_dir.unwrap_or_default().trim_start_matches('/')),
            exposed_ports: config.exposed_ports.unwrap_or_default().into_keys().collect(),
            volumes: config.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
            healthcheck: config.healthcheck.filter(|health| *health != Healthcheck::default()),
            labels: config.labels.unwrap_or_default(),
            created: wire.created,
            diff_ids: diff_ids.map_err(|error| malformed(error.to_string()))?,
            platform: format!("{}/{}", wire.os, wire.architecture),
        };
        match parsed.items() {
            0..=MAX_ITEMS => Ok(parsed),
            found => Err(malformed(format!("{found} arguments, variables, labels and the like, at most {MAX_ITEMS}"))),
        }
    }

    fn items(&self) -> usize {
        let lists = [&self.entrypoint, &self.cmd, &self.env, &self.exposed_ports, &self.volumes];
        let health = self.healthcheck.as_ref().map_or(0, |health| health.test.len());
        lists.map(Vec::len).iter().sum::<usize>() + health + self.labels.len() + self.diff_ids.len()
    }

    /// Whether this image runs in our guests.
    pub fn is_linux_amd64(&self) -> bool {
        self.platform == "linux/amd64"
    }

    /// The command Docker would run: entry point, then `arguments` or, where there are none, CMD.
    ///
    /// `entrypoint`: replaces the image's, and drops its CMD, as `--entrypoint` does.
    pub fn argv(&self, entrypoint: Option<&[String]>, arguments: &[String]) -> Vec<String> {
        let mut argv = entrypoint.unwrap_or(&self.entrypoint).to_vec();
        if !arguments.is_empty() {
            argv.extend_from_slice(arguments);
        } else if entrypoint.is_none() {
            argv.extend_from_slice(&self.cmd);
        }
        argv
    }
}

/// A configuration as written; what is not here is never held.
#[derive(Deserialize)]
struct Document {
    architecture: String,
    os: String,
    created: Option<String>,
    config: Option<Wanted>,
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(clippy::zero_sized_map_values, reason = "as the document has them: names of empty objects")]
struct Wanted {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
    stop_signal: Option<String>,
    healthcheck: Option<Healthcheck>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Image configurations are some KiB, with many labels some hundred; more than this is not one.
pub(crate) const MAX_BYTES: u64 = 4 << 20;
/// Entries of all lists together.
const MAX_ITEMS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nulls_and_absence_alike() {
        let full = br#"{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z","config":{"Env":null,"Cmd":["sh"],
            "ExposedPorts":{"80/tcp":{},"443/tcp":{}},"Volumes":null,"WorkingDir":"","StopSignal":"SIGQUIT","Labels":null,
            "Healthcheck":{"Test":["CMD","true"],"Interval":1000000000}},
            "rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = ImageConfig::parse(full).unwrap();
        assert_eq!(config.cmd, ["sh"]);
        assert_eq!(config.exposed_ports, ["443/tcp", "80/tcp"]);
        assert_eq!(config.working_dir, "/");
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert!(config.is_linux_amd64());
        let health = config.healthcheck.unwrap();
        assert_eq!(
            (health.test, health.interval, health.retries),
            (vec!["CMD".to_owned(), "true".to_owned()], 1_000_000_000, 0)
        );
        let bare = br#"{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = ImageConfig::parse(bare).unwrap();
        assert!(!config.is_linux_amd64());
        assert!(config.argv(None, &[]).is_empty());
    }

    #[test]
    fn refuses_layer_digests_other_than_sha256() {
        let text = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["md5:00"]}}"#;
        assert_eq!(ImageConfig::parse(text).unwrap_err().class(), "corrupt");
    }

    #[test]
    fn refuses_more_list_entries_than_anybody_needs() {
        let with = |count: usize| {
            let cmd = vec!["a"; count];
            serde_json::json!({"architecture":"amd64","os":"linux","config":{"Cmd":cmd},"rootfs":{"diff_ids":[]}})
                .to_string()
        };
        assert!(ImageConfig::parse(with(MAX_ITEMS).as_bytes()).is_ok());
        let error = ImageConfig::parse(with(MAX_ITEMS + 1).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("10001 arguments"), "{error}");
    }

    #[test]
    fn builds_the_command_as_docker_does() {
        let config = ImageConfig { entrypoint: vec!["e".into()], cmd: vec!["c".into()], ..ImageConfig::default() };
        let own = ["x".to_owned()];
        assert_eq!(config.argv(None, &[]), ["e", "c"]);
        assert_eq!(config.argv(None, &own), ["e", "x"]);
        assert_eq!(config.argv(Some(&own), &[]), ["x"]);
    }
}
