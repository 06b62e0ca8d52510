//! A box between its command and its supervisor: how it was asked for, when what happened, which files it has.

use std::path::{Path, PathBuf};

use coffer_spec::Tee;
use serde::{Deserialize, Serialize};

/// How a box was asked for, as far as the workload spec does not say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxOptions {
    /// Secure processor demanded; the spec says the same.
    pub tee: Tee,
    /// Virtual processors; part of the measurement.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// `--rm`: the box goes when it ends.
    pub remove: bool,
    /// Program and arguments, for tables.
    pub command: Vec<String>,
    /// Folder of the platform files it boots from.
    pub platform: PathBuf,
    /// EROFS image with its verity tree.
    pub root: PathBuf,
    /// Volumes: snapshots in the box folder, [`files::volume`].
    #[serde(default)]
    pub volumes: usize,
    /// Bytes of the scratch disk; 0: none.
    #[serde(default)]
    pub scratch_bytes: u64,
    /// `sha256:…` of the image configuration.
    pub image_digest: String,
    /// Workload digest, lower-case hex.
    pub workload_digest: String,
    /// An ID block was signed for it and lies in its folder.
    #[serde(default)]
    pub id_block: bool,
}

/// When what happened in one start, from the moment the command was typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timings {
    /// The moment everything counts from, Unix microseconds.
    pub origin_unix_us: i64,
    /// In the order they were reached.
    pub steps: Vec<Step>,
}

/// One point of a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What was reached: `image-ready`, `launched`, `vmm-started`, or the guest's own word for a phase.
    pub phase: String,
    /// Microseconds since the origin, by the host's clock.
    pub at_us: u64,
    /// Microseconds since boot, by the guest's kernel clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_us: Option<u64>,
}

impl Timings {
    /// Counts from now.
    pub fn start() -> Self {
        Self { origin_unix_us: unix_us(), steps: Vec::new() }
    }

    /// Notes that a phase was reached.
    pub fn reached(&mut self, phase: &str, guest_us: Option<u64>) {
        let at_us = u64::try_from(unix_us() - self.origin_unix_us).unwrap_or(0);
        self.steps.push(Step { phase: phase.into(), at_us, guest_us });
    }

    /// Phases with what each took, in microseconds: the differences between neighbours.
    pub fn durations(&self) -> Vec<(&str, u64, u64)> {
        let mut before = 0;
        let mut rows = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            rows.push((step.phase.as_str(), step.at_us.saturating_sub(before), step.at_us));
            before = step.at_us;
        }
        rows
    }
}

/// Unix time in microseconds.
pub fn unix_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

/// Unix time in milliseconds.
pub fn unix_ms() -> i64 {
    unix_us() / 1000
}

/// Files of a box folder.
pub mod files {
    /// The workload spec document, bytes as digested.
    pub const SPEC: &str = "spec.toml";
    /// The workload's output, one JSON object per line.
    pub const LOG: &str = "log.jsonl";
    /// What the guest's serial line said.
    pub const CONSOLE: &str = "console.log";
    /// What the supervisor, QEMU and the vsock device said.
    pub const SUPERVISOR_LOG: &str = "supervisor.log";
    /// Spec disk of the running guest.
    pub const SPEC_DISK: &str = "spec.img";
    /// Scratch disk of the running guest: ciphertext.
    pub const SCRATCH: &str = "scratch.img";
    /// stage0's ROM image, as measured.
    pub const STAGE0: &str = "stage0.bin";
    /// The page with the hashes of kernel, initrd and command line, as measured.
    pub const HASHES: &str = "hashes.bin";
    /// Measured command line with its NUL.
    pub const COMMAND_LINE: &str = "cmdline";
    /// Secrets page of the running, simulated guest.
    pub const SECRETS: &str = "secrets.bin";
    /// ID block, if the box was made with one.
    pub const ID_BLOCK: &str = "id_block.bin";
    /// ID authentication block beside it.
    pub const ID_AUTH: &str = "id_auth.bin";
    /// Kernel of the running guest.
    pub const KERNEL: &str = "kernel";
    /// Initrd of the running guest.
    pub const INITRD: &str = "initrd";
    /// Hybrid vsock: host to guest, and prefix of guest to host.
    pub const VSOCK: &str = "vsock.sock";
    /// vhost-user line between QEMU and the vsock device.
    pub const VHOST: &str = "vhost.sock";
    /// Commands to the supervisor.
    pub const CONTROL: &str = "control.sock";

    /// Snapshot of a volume with its verity tree; stays until the box is removed.
    pub fn volume(index: usize) -> String {
        format!("volume-{index}.img")
    }
}

/// What the VMM has read once the guest is up.
pub const BOOT_FILES: [&str; 6] =
    [files::SECRETS, files::STAGE0, files::HASHES, files::COMMAND_LINE, files::KERNEL, files::INITRD];

/// Removes what only a running box has.
pub fn clean_run_files(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let of_a_run = BOOT_FILES.contains(&&*name)
            || [files::SPEC_DISK, files::SCRATCH].contains(&&*name)
            || name.contains(".sock");
        if of_a_run {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn options() -> BoxOptions {
        BoxOptions {
            tee: Tee::None,
            vcpus: 1,
            memory_bytes: 256 << 20,
            remove: false,
            command: vec!["true".into()],
            platform: "/platform".into(),
            root: "/root.erofs".into(),
            volumes: 0,
            scratch_bytes: 0,
            image_digest: "sha256:00".into(),
            workload_digest: "00".into(),
            id_block: false,
        }
    }

    #[test]
    fn durations_are_differences_and_add_up() {
        let step = |phase: &str, at_us| Step { phase: phase.into(), at_us, guest_us: None };
        let timings = Timings { origin_unix_us: 0, steps: vec![step("a", 5), step("b", 12), step("c", 12)] };
        assert_eq!(timings.durations(), [("a", 5, 5), ("b", 7, 12), ("c", 0, 12)]);
    }

    #[test]
    fn cleaning_keeps_the_spec_the_logs_and_the_volumes() {
        let dir = tempfile::tempdir().unwrap();
        let of_a_run = [files::SECRETS, files::SCRATCH, "vsock.sock", "vsock.sock_4080", files::CONTROL];
        for name in [files::SPEC, files::LOG, &files::volume(0)].into_iter().chain(of_a_run) {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        clean_run_files(dir.path());
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [files::LOG, files::SPEC, &files::volume(0)]);
    }
}
