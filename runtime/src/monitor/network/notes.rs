//! What was refused, counted, and noted in a box's log: each kind the first time, the tenth, the hundredth and so on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use coffer_vmm::net::Refused;

use crate::bounded::BoundedLog;
use crate::boxes::files;

/// What the supervisor's log keeps of its monitor's words too.
const LOG_LIMIT: u64 = 256 << 10;

/// The counts of one box.
#[derive(Debug)]
pub struct Notes {
    folder: PathBuf,
    counts: Mutex<BTreeMap<(&'static str, Refused), u64>>,
}

impl Notes {
    /// Of the box in a folder.
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.into(), counts: Mutex::default() }
    }

    /// Something of somebody's was refused.
    pub fn refused(&self, who: &'static str, why: Refused) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((who, why)).or_default();
        *count = count.saturating_add(1);
        if !is_power_of_ten(*count) {
            return;
        }
        let times = if *count == 1 { String::new() } else { format!(" ({count} times)") };
        if let Ok(mut log) = BoundedLog::open(&self.folder.join(files::SUPERVISOR_LOG), LOG_LIMIT) {
            let _ = log.write(format!("network: refused from {who}: {why}{times}\n").as_bytes());
        }
    }
}

fn is_power_of_ten(count: u64) -> bool {
    count.checked_ilog10().is_some_and(|digits| 10_u64.pow(digits) == count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_noted_ever_more_rarely() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::of(folder.path());
        for _ in 0..1234 {
            notes.refused("the guest", Refused::Loopback);
        }
        notes.refused("passt", Refused::Loopback);
        let log = std::fs::read_to_string(folder.path().join(files::SUPERVISOR_LOG)).unwrap();
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0], "network: refused from the guest: a packet to loopback");
        assert_eq!(lines[3], "network: refused from the guest: a packet to loopback (1000 times)");
        assert_eq!(lines[4], "network: refused from passt: a packet to loopback");
    }
}
