//! A box between its command and its supervisor: how it was asked for, when what happened, which files it has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coffer_spec::Tee;
use coffer_verifier::measure::LaunchForm;
use serde::{Deserialize, Serialize};

use crate::health::HealthCheck;
use crate::monitor::{Isolation, Limits};
use crate::networks::BoxNetwork;
use crate::publish::Publish;
use crate::restart_policy::RestartPolicy;
use crate::volumes::{BoxVolume, Kind};

/// Seconds of a stop that nobody gave a grace.
pub const DEFAULT_GRACE: u32 = 10;

/// How a box was asked for, as far as the workload spec does not say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxOptions {
    /// Secure processor demanded; the spec says the same.
    pub tee: Tee,
    /// What runs it.
    #[serde(default)]
    pub isolation: Isolation,
    /// The launch it is measured by, for as long as it lives: under another it would be another MEASUREMENT, to which
    /// nothing that it sealed opens.
    #[serde(default = "before_forms_were_recorded")]
    pub launch: LaunchForm,
    /// Virtual processors; part of the measurement.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// What of the two was asked for: where there is no machine, only that bounds it.
    #[serde(default)]
    pub limits: Limits,
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
    /// What it keeps beyond its life, in the order of its spec's data volumes, or its sealed ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<BoxVolume>,
    /// Bytes of the scratch disk; 0: none.
    #[serde(default)]
    pub scratch_bytes: u64,
    /// `sha256:…` of the image configuration.
    pub image_digest: String,
    /// Workload digest, lower-case hex.
    pub workload_digest: String,
    /// Its spec has a network card.
    #[serde(default)]
    pub card: bool,
    /// The network of which its spec has an address, whether it is in it or not. Without one, its card has a wire of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card_network: Option<BoxNetwork>,
    /// Networks that it is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<BoxNetwork>,
    /// An ID block was signed for it and lies in its folder.
    #[serde(default)]
    pub id_block: bool,
    /// Ports of the host that lead to ports of its spec's ingress or to its network card.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
    /// What the user wants it found by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Seconds between the stop signal and the end, for a stop that says nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<u32>,
    /// What becomes of it when it ends.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How much of its output is kept.
    #[serde(default)]
    pub log: LogLimits,
    /// How its health is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
}

/// How much of a box's output is kept: in so many files, each of so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLimits {
    /// Bytes of a file.
    pub max_bytes: u64,
    /// Files.
    pub files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_bytes: 32 << 20, files: 2 }
    }
}

impl LogLimits {
    /// Files at most.
    pub const MOST_FILES: u32 = 100;
    /// A file that holds less would be started anew with each piece.
    pub const LEAST_BYTES: u64 = 32 << 10;
}

impl BoxOptions {
    /// What its volumes are made of.
    pub fn volume_kind(&self) -> Kind {
        match (self.tee, self.launch.is_machine()) {
            (Tee::None, true) => Kind::Disk,
            (Tee::None, false) => Kind::Folder,
            (Tee::Snp | Tee::Simulated, _) => Kind::Sealed,
        }
    }

    /// Seconds that a stop gives it which nobody gave a grace.
    pub fn grace(&self) -> u32 {
        self.stop_timeout.unwrap_or(DEFAULT_GRACE)
    }
}

/// Whatever ran a box then, its launch was measured as one of QEMU.
const fn before_forms_were_recorded() -> LaunchForm {
    LaunchForm::ResetVector
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

    /// Those of a start that was asked for at this moment: what was noted of it already, or nothing yet.
    #[must_use]
    pub fn of_start(&self, origin_unix_us: i64) -> Self {
        let noted = if self.origin_unix_us == origin_unix_us { self.steps.clone() } else { Vec::new() };
        Self { origin_unix_us, steps: noted }
    }

    /// Notes that a phase was reached. Nothing once there are [`Timings::MOST`]: a guest may say what it likes.
    pub fn reached(&mut self, phase: &str, guest_us: Option<u64>) -> Option<&Step> {
        if self.steps.len() >= Self::MOST {
            return None;
        }
        let at_us = u64::try_from(unix_us() - self.origin_unix_us).unwrap_or(0);
        self.steps.push(Step { phase: phase.into(), at_us, guest_us });
        self.steps.last()
    }

    /// More steps than any start has.
    pub const MOST: usize = 64;

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
    /// What the supervisor and the monitor said.
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
    /// Where lines to the running guest are lent.
    pub const LENT: &str = "lent.sock";
    /// Where the running guest's network card is plugged in.
    pub const NETWORK: &str = "net.sock";
    /// Ports of the host that lead to the running box.
    pub const PORTS: &str = "ports.json";
    /// Health of the running box.
    pub const HEALTH: &str = crate::health::FILE;
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

/// The last line of a log that says something, cut to what fits a message. Foreign text.
pub fn last_line(path: &Path) -> Option<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES))).ok()?;
    let mut end = Vec::new();
    file.take(LAST_BYTES).read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_string)
}

const LAST_BYTES: u64 = 512;

/// Removes what only a running box has, and what an interrupted write left.
pub fn clean_run_files(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let of_a_run = BOOT_FILES.contains(&&*name)
            || [files::SPEC_DISK, files::SCRATCH, files::PORTS, files::HEALTH].contains(&&*name)
            || name.contains(".sock")
            || name.starts_with('.');
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
            isolation: Isolation::Qemu,
            launch: LaunchForm::ResetVector,
            vcpus: 1,
            memory_bytes: 256 << 20,
            limits: Limits::default(),
            remove: false,
            command: vec!["true".into()],
            platform: "/platform".into(),
            root: "/root.erofs".into(),
            volumes: 0,
            data: Vec::new(),
            scratch_bytes: 0,
            image_digest: "sha256:00".into(),
            workload_digest: "00".into(),
            card: false,
            card_network: None,
            networks: Vec::new(),
            id_block: false,
            publish: Vec::new(),
            labels: BTreeMap::new(),
            stop_timeout: None,
            restart: RestartPolicy::No,
            log: LogLimits::default(),
            health: None,
        }
    }

    #[test]
    fn durations_are_differences_and_add_up() {
        let step = |phase: &str, at_us| Step { phase: phase.into(), at_us, guest_us: None };
        let timings = Timings { origin_unix_us: 0, steps: vec![step("a", 5), step("b", 12), step("c", 12)] };
        assert_eq!(timings.durations(), [("a", 5, 5), ("b", 7, 12), ("c", 0, 12)]);
    }

    #[test]
    fn a_start_keeps_what_was_noted_of_it_and_a_guest_cannot_fill_the_record() {
        let mut timings = Timings { origin_unix_us: 7, steps: Vec::new() };
        timings.reached("image-ready", None);
        assert_eq!(timings.of_start(7), timings);
        assert_eq!(timings.of_start(8), Timings { origin_unix_us: 8, steps: Vec::new() });
        for _ in 0..1000 {
            timings.reached("booted", Some(1));
        }
        assert_eq!(timings.steps.len(), Timings::MOST);
        assert!(timings.reached("booted", None).is_none());
    }

    #[test]
    fn the_last_line_is_short_and_says_something() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(last_line(&path), None);
        for (text, last) in [("", None), ("one\ntwo\r\n\n", Some("two")), ("\n \n", None)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(last_line(&path).as_deref(), last);
        }
        std::fs::write(&path, "x".repeat(10_000)).unwrap();
        assert_eq!(last_line(&path).unwrap().len(), 512);
    }

    #[test]
    fn cleaning_keeps_the_spec_the_logs_and_the_volumes() {
        let dir = tempfile::tempdir().unwrap();
        let of_a_run = [
            files::SECRETS,
            files::SCRATCH,
            files::PORTS,
            files::HEALTH,
            "vsock.sock",
            "vsock.sock_4026531840",
            files::CONTROL,
            ".kernel.x1Y2z3",
        ];
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
