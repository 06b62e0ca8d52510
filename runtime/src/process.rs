//! Processes of this host as the kernel tells of them, and whether one that was noted down still lives.
//!
//! Trusts: `/proc`. Never: takes a number alone for a process; it is given again to others.

use std::fmt;
use std::str::FromStr;

/// What the kernel says of a process. Source: proc_pid_stat(5).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    /// One letter; `Z` and `X` are of one that has ended.
    state: char,
    /// Number of its parent.
    pub parent: i32,
    /// Clock ticks after the kernel's boot.
    began: u64,
}

impl Stat {
    /// Of the process of this number, if there is one.
    pub fn of(pid: u32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        // Its name may be anything, brackets and blanks among it.
        let text = String::from_utf8_lossy(&text);
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let (state, parent) = (fields.first()?.chars().next()?, fields.get(1)?.parse().ok()?);
        Some(Self { state, parent, began: fields.get(19)?.parse().ok()? })
    }
}

/// The name of this start of the host.
pub(crate) fn this_boot() -> std::io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|name| name.trim().to_owned())
}

/// One process, whose number another may have after it: with when it began, and in which boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: u32,
    began: u64,
    boot: String,
}

impl Process {
    /// The process of this number, if there is one.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, began: Stat::of(pid)?.began, boot: this_boot().ok()? })
    }

    /// This one.
    pub fn this() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// It has not ended.
    pub fn lives(&self) -> bool {
        let ended = || Stat::of(self.pid).is_none_or(|now| matches!(now.state, 'Z' | 'X'));
        Self::of(self.pid).as_ref() == Some(self) && !ended()
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, began, boot } = self;
        write!(f, "{pid} {began} {boot}")
    }
}

/// Not what [`Process`] is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no process is written so")]
pub(crate) struct NoProcess;

impl FromStr for Process {
    type Err = NoProcess;

    fn from_str(text: &str) -> Result<Self, NoProcess> {
        let words: Vec<&str> = text.split(' ').collect();
        let [pid, began, boot] = words[..] else { return Err(NoProcess) };
        let (pid, began) = (pid.parse().map_err(|_| NoProcess)?, began.parse().map_err(|_| NoProcess)?);
        Ok(Self { pid, began, boot: boot.into() })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A process that lives until its test kills it.
    pub(crate) fn child() -> (Child, Process) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        (child, process)
    }

    #[test]
    fn a_process_lives_until_it_ends_and_no_other_is_taken_for_it() {
        let (mut child, process) = child();
        assert!(process.lives() && Process::this().unwrap().lives());
        assert_eq!(process.to_string().parse(), Ok(process.clone()));
        for other in [
            Process { began: process.began + 1, ..process.clone() },
            Process { boot: "another".into(), ..process.clone() },
        ] {
            assert!(!other.lives(), "{other}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.lives());
        for bad in ["", "1", "1 2", "x 2 y", "1 x y", "1 2 3 4"] {
            assert_eq!(bad.parse::<Process>(), Err(NoProcess), "{bad}");
        }
    }
}
