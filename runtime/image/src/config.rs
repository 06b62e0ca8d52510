//! What an image asks to be run as: a view of its configuration.

use crate::digest::{Digest, DigestError};
use crate::error::{ImageError, Result};
use oci_spec::image::{Arch, ImageConfiguration, Os};
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
    /// LABEL.
    pub labels: BTreeMap<String, String>,
    /// Creation time as written (RFC 3339).
    pub created: Option<String>,
    /// Digests of the unpacked layers, bottom first.
    pub diff_ids: Vec<Digest>,
    /// `os/architecture`.
    pub platform: String,
}

impl ImageConfig {
    /// Reads a configuration document.
    ///
    /// # Errors
    /// [`ImageError::Malformed`] for anything but an image configuration with SHA-256 layer digests.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let malformed =
            |reason: String| ImageError::Malformed { what: "configuration", digest: Digest::of(bytes), reason };
        let wire: ImageConfiguration = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        let diff_ids = wire.rootfs().diff_ids().iter().map(|id| id.parse()).collect::<Result<_, DigestError>>();
        let config = wire.config().clone().unwrap_or_default();
        let sorted = |list: &Option<Vec<String>>| {
            let mut list = list.clone().unwrap_or_default();
            list.sort_unstable();
            list
        };
        Ok(Self {
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            working_dir: match config.working_dir() {
                Some(dir) if !dir.is_empty() => dir.clone(),
                _ => "/".to_owned(),
            },
            exposed_ports: sorted(config.exposed_ports()),
            volumes: sorted(config.volumes()),
            stop_signal: config.stop_signal().clone().filter(|signal| !signal.is_empty()),
            labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
            created: wire.created().clone(),
            diff_ids: diff_ids.map_err(|error| malformed(error.to_string()))?,
            platform: format!("{}/{}", wire.os(), wire.architecture()),
        })
    }

    /// Whether this image runs in our guests.
    pub fn is_linux_amd64(&self) -> bool {
        self.platform == format!("{}/{}", Os::Linux, Arch::Amd64)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nulls_and_absence_alike() {
        let full = br#"{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z","config":{"Env":null,"Cmd":["sh"],
            "ExposedPorts":{"80/tcp":{},"443/tcp":{}},"Volumes":null,"WorkingDir":"","StopSignal":"SIGQUIT","Labels":null},
            "rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = ImageConfig::parse(full).unwrap();
        assert_eq!(config.cmd, ["sh"]);
        assert_eq!(config.exposed_ports, ["443/tcp", "80/tcp"]);
        assert_eq!(config.working_dir, "/");
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert!(config.is_linux_amd64());
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
    fn builds_the_command_as_docker_does() {
        let config = ImageConfig { entrypoint: vec!["e".into()], cmd: vec!["c".into()], ..ImageConfig::default() };
        let own = ["x".to_owned()];
        assert_eq!(config.argv(None, &[]), ["e", "c"]);
        assert_eq!(config.argv(None, &own), ["e", "x"]);
        assert_eq!(config.argv(Some(&own), &[]), ["x"]);
    }
}
