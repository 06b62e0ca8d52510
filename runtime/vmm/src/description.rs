//! What a guest is made of, as its supervisor says it: one JSON object on one line.
//!
//! Trusts: the supervisor. Files are named as it named them; they are opened once, before the jail closes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One guest. Relative paths start in the folder of the box, where the process is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// ROM image of stage0.
    pub stage0: PathBuf,
    /// The page with the hashes of the three below.
    pub hashes: PathBuf,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initrd.
    pub initrd: PathBuf,
    /// Command line with its NUL.
    pub command_line: PathBuf,
    /// Secrets page of a simulated secure processor.
    pub secrets: Option<PathBuf>,
    /// Disks, in the order of their transports.
    pub disks: Vec<Disk>,
    /// Socket that leads to the guest's vsock. What the guest opens to port N arrives at `<vsock>_N`.
    pub vsock: PathBuf,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// By which the guest knows it.
    pub serial: String,
    /// Its bytes.
    pub file: PathBuf,
    /// The guest may write. Nothing waits for the host's disk.
    pub writable: bool,
}

impl Description {
    /// Reads the line.
    ///
    /// # Errors
    /// If it is no such object.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    /// The line, with its end.
    ///
    /// # Errors
    /// If a path is no text.
    pub fn to_line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Bytes between a guest's supervisor and its monitor, on the line that began with the description.
pub mod word {
    /// From the monitor: the guest runs, the jail is closed.
    pub const RUNS: u8 = b's';
    /// To the monitor, and back when it is so: no virtual processor runs.
    pub const PAUSE: u8 = b'p';
    /// To the monitor, and back when it is so: they run again.
    pub const RESUME: u8 = b'r';
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_comes_back_as_it_was_and_an_unknown_field_is_refused() {
        let description = Description {
            memory_bytes: 1 << 28,
            vcpus: 2,
            stage0: "stage0.bin".into(),
            hashes: "hashes.bin".into(),
            kernel: "kernel".into(),
            initrd: "initrd".into(),
            command_line: "cmdline".into(),
            secrets: None,
            disks: vec![Disk { serial: "s".into(), file: "/a b".into(), writable: false }],
            vsock: "vsock.sock".into(),
        };
        let line = description.to_line().unwrap();
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        assert_eq!(Description::parse(&line).unwrap(), description);
        let other = String::from_utf8(line).unwrap().replace("vcpus", "cpus");
        assert!(Description::parse(other.as_bytes()).is_err());
    }
}
