//! What the kernel of this guest says of its disks and its memory.
//!
//! Source: Linux Documentation/ABI/testing/dev-kmsg; block/blk-core.c, drivers/md/dm-crypt.c, mm/page_io.c for the words.

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    time::{Duration, Instant},
};

/// Where its log comes, record by record.
const LOG: &str = "/dev/kmsg";
/// Where it counts, among others, whom it killed for memory.
const COUNTERS: &str = "/proc/vmstat";
/// More than any record has.
const RECORD: usize = 8 << 10;
/// What it says of a block that was not read or written, or is not what was written.
const FAILURES: [&str; 3] = ["I/O error", "INTEGRITY AEAD ERROR", "-error on swap-device"];
/// How long ends are none behind a program that was killed: streams of it are closed at once, and looked at soon.
const BEHIND: Duration = Duration::from_mins(1);

/// The log behind what was there, and who was killed since.
#[derive(Debug)]
pub(super) struct Kernel {
    log: File,
    killed: u64,
    until: Option<Instant>,
}

impl Kernel {
    /// # Errors
    /// Where it has no log, or no counters.
    pub(super) fn open() -> io::Result<Self> {
        let mut log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(LOG)?;
        log.seek(SeekFrom::End(0))?;
        Ok(Self { log, killed: killed(&std::fs::read_to_string(COUNTERS)?)?, until: None })
    }

    pub(super) fn log(&self) -> &File {
        &self.log
    }

    /// Whether it has said that something of a disk failed, since this was asked last.
    ///
    /// # Errors
    /// Its log cannot be read, or was overwritten.
    pub(super) fn has_failed(&mut self) -> io::Result<bool> {
        let mut record = [0; RECORD];
        let mut failed = false;
        loop {
            match self.log.read(&mut record) {
                Ok(0) => return Ok(failed),
                Ok(length) => failed |= is_failure(&record[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(failed),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether it has killed a program for memory just now.
    ///
    /// # Errors
    /// It does not count.
    pub(super) fn has_killed(&mut self) -> io::Result<bool> {
        let killed = killed(&std::fs::read_to_string(COUNTERS)?)?;
        if killed != self.killed {
            (self.killed, self.until) = (killed, Some(Instant::now() + BEHIND));
        }
        Ok(self.until.is_some_and(|until| Instant::now() < until))
    }
}

/// A record is `PRIORITY,NUMBER,TIME,FLAGS;WORDS`, and lines of what it is about.
fn is_failure(record: &[u8]) -> bool {
    let record = String::from_utf8_lossy(record);
    let words = record.split_once(';').map_or("", |(_, words)| words.lines().next().unwrap_or_default());
    FAILURES.iter().any(|failure| words.contains(failure))
}

fn killed(counters: &str) -> io::Result<u64> {
    let count = counters.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
    count.ok_or_else(|| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_says_of_a_disk_that_failed_is_known_and_nothing_else_is() {
        for said in [
            "3,812,5310,-;I/O error, dev vdb, sector 24 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2\n SUBSYSTEM=block\n",
            "3,813,5310,-;Buffer I/O error on dev dm-3, logical block 3, async page read\n",
            "3,814,5311,-;device-mapper: crypt: dm-1: INTEGRITY AEAD ERROR, sector 344\n",
            "1,815,5312,-;Read-error on swap-device (253:1:344)\n",
        ] {
            assert!(is_failure(said.as_bytes()), "{said}");
        }
        for said in
            ["6,1,0,-;sh[9]: segfault at 0 ip 0\n I/O error\n", "6,2,0,-;random: crng init done\n", "I/O error", ""]
        {
            assert!(!is_failure(said.as_bytes()), "{said}");
        }
    }

    /// A control group of 16 MiB for one test, where this machine has such a thing and lets us make one.
    struct Small(std::path::PathBuf);

    impl Small {
        fn make() -> Option<Self> {
            let name = format!("coffer-test-{}", std::process::id());
            for (root, limit) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
            {
                let folder = std::path::Path::new(root).join(&name);
                let made = std::fs::create_dir(&folder).is_ok().then(|| Self(folder));
                if let Some(small) = made
                    && std::fs::write(small.0.join(limit), "16777216").is_ok()
                {
                    return Some(small);
                }
            }
            None
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn a_program_that_is_killed_for_memory_is_noticed_for_a_while() {
        let (Some(small), Ok(mut kernel)) = (Small::make(), Kernel::open()) else {
            return println!("skipped: this machine gives us no control group of memory, or no log of its kernel");
        };
        let script = format!("echo $$ > {}/cgroup.procs || exit 77; exec tail /dev/zero", small.0.display());
        let status = std::process::Command::new("sh").args(["-c", &script]).status().unwrap();
        if status.code() == Some(77) {
            return println!("skipped: nobody gets into a control group here");
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL), "{status}");
        assert!(kernel.has_killed().unwrap());
        assert!(kernel.has_killed().unwrap(), "others of it are looked at soon");
        kernel.until = Some(Instant::now());
        assert!(!kernel.has_killed().unwrap());
    }

    #[test]
    fn who_was_killed_is_counted() {
        assert_eq!(killed("pgfault 1\noom_kill 3\nnr 4\n").unwrap(), 3);
        assert!(killed("pgfault 1\n").is_err());
        // Of the kernel that this test runs on.
        killed(&std::fs::read_to_string(COUNTERS).unwrap()).unwrap();
    }
}
