//! A verifier that is a command: one process group per case, killed whole when its time is up or its leader has ended.
//!
//! What leaves the group (setsid, a daemon) becomes a child of this process, if that adopts orphans ([`adopt_orphans`]), and is
//! killed as one.

use std::collections::BTreeSet;
use std::io::{PipeReader, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coffer_rim::Foreign;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, kill_process_group, pidfd_open, set_child_subreaper,
    waitpid,
};

use super::asked::{Answer, Asked, Prepared};
use crate::process::Stat;
use coffer_rim::{Class, Failure};

/// Bytes of output that are kept: the last ones.
const MAX_OUTPUT: usize = 8 << 10;

/// Runs the command for one case.
pub(super) fn ask(command: &str, prepared: &Prepared, timeout: Duration) -> Result<Asked, Failure> {
    let started = Instant::now();
    let orphans = Orphans::of_one_case();
    let (reader, writer) = std::io::pipe()?;
    let mut command_line = Command::new("sh");
    command_line
        .args(["-c", command])
        .envs(variables(&prepared.folder.to_string_lossy(), &prepared.anchor, &prepared.report_data))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let child =
        command_line.spawn().map_err(|error| Failure::caused(Class::Config, &error).while_doing("running --cmd"))?;
    // Our ends of the pipe, which would keep it open.
    drop(command_line);
    let mut group = Group::new(child)?;
    let mut output = Tail::default();
    let ended = watch(&group.pidfd, reader, &mut output, started + timeout)?;
    let status = group.end()?;
    drop(orphans);
    let answer = match (ended, status.code(), status.signal()) {
        (false, ..) => Answer::TimedOut,
        (true, Some(126 | 127), _) => {
            let failure =
                Failure::new(Class::Config, format!("--cmd cannot be run: {}", Foreign(output.text().trim_end())));
            return Err(failure.hint("try it by hand with sh -c"));
        }
        (true, Some(0), _) => Answer::Accepted,
        (true, Some(5), _) => Answer::NotAuthentic,
        (true, Some(6), _) => Answer::Refused,
        (true, _, Some(signal)) => Answer::Killed(signal),
        (true, ..) => Answer::NotAccepted,
    };
    Ok(Asked { answer, output: output.text(), took: started.elapsed() })
}

/// Whether orphans are ours.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// From now on whatever a command leaves behind becomes a child of this process, and is killed with the case: every child that
/// was not there before it. For a process that starts nothing else beside its cases.
///
/// # Errors
/// The kernel's.
///
/// Source: PR_SET_CHILD_SUBREAPER(2const).
pub fn adopt_orphans() -> Result<(), Failure> {
    set_child_subreaper(Some(getpid())).map_err(std::io::Error::from)?;
    ADOPTS.store(true, Ordering::Relaxed);
    Ok(())
}

/// What a case leaves behind. Dropped, it is gone.
struct Orphans {
    before: BTreeSet<i32>,
}

impl Orphans {
    fn of_one_case() -> Self {
        Self { before: children() }
    }
}

impl Drop for Orphans {
    /// Each that dies leaves its own children to us, so this goes on until there are none; but not for ever, should they
    /// multiply faster, or belong to somebody else.
    fn drop(&mut self) {
        let end = Instant::now() + PATIENCE;
        while ADOPTS.load(Ordering::Relaxed) && Instant::now() < end {
            let left: Vec<_> = children().difference(&self.before).copied().filter_map(Pid::from_raw).collect();
            if left.is_empty() {
                return;
            }
            // Nobody has waited for them, so their numbers are theirs.
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Longest that is spent on killing what a case left behind.
const PATIENCE: Duration = Duration::from_secs(5);

/// Processes whose parent is this one.
fn children() -> BTreeSet<i32> {
    let ours = getpid().as_raw_nonzero().get();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = |pid: i32| Some(Stat::of(u32::try_from(pid).ok()?)?.parent);
    pids.filter(|pid| parent(*pid) == Some(ours)).collect()
}

/// What a command is told. `folder` may be a word for the shell to fill in.
pub(super) fn variables(folder: &str, anchor: &str, report_data: &str) -> [(&'static str, String); 5] {
    [
        ("COFFER_DIR", folder.to_owned()),
        ("COFFER_EVIDENCE", format!("{folder}/evidence.cmw")),
        ("COFFER_POLICY", format!("{folder}/policy.toml")),
        ("COFFER_ANCHOR", anchor.to_owned()),
        ("COFFER_REPORT_DATA", report_data.to_owned()),
    ]
}

/// A child that leads a process group. Dropped or ended, nothing of the group is left.
struct Group {
    child: Child,
    pidfd: OwnedFd,
}

impl Group {
    fn new(mut child: Child) -> Result<Self, Failure> {
        let opened = Pid::from_raw(child.id().cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match opened {
            Ok(pidfd) => Ok(Self { child, pidfd }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(std::io::Error::from(error).into())
            }
        }
    }

    /// Kills what is left of the group; its number is taken until the leader has been waited for.
    fn end(&mut self) -> Result<ExitStatus, Failure> {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once it has been waited for, the number may be somebody else's.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.end();
        }
    }
}

/// Reads what is printed until the leader has ended; `false` where `end` came first. Whoever holds the pipe beyond that is not
/// waited for.
fn watch(leader: &OwnedFd, mut printed: PipeReader, output: &mut Tail, end: Instant) -> Result<bool, Failure> {
    rustix::io::ioctl_fionbio(&printed, true).map_err(std::io::Error::from)?;
    let mut is_open = true;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut waited = vec![PollFd::new(leader, PollFlags::IN)];
        if is_open {
            waited.push(PollFd::from_borrowed_fd(printed.as_fd(), PollFlags::IN));
        }
        match poll(&mut waited, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        let has_ended = !waited[0].revents().is_empty();
        drop(waited);
        is_open = is_open && output.fill(&mut printed, end);
        if has_ended {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
    }
}

/// The end of what was printed.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    dropped: u64,
}

impl Tail {
    /// Takes what is there, but not for ever; `false` once nobody can print any more.
    fn fill(&mut self, printed: &mut PipeReader, end: Instant) -> bool {
        let mut buffer = [0; 16 << 10];
        while Instant::now() < end {
            match printed.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let too_many = self.bytes.len().saturating_sub(MAX_OUTPUT);
        self.bytes.drain(..too_many);
        self.dropped += too_many as u64;
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.dropped == 0 { text.into_owned() } else { format!("({} bytes before)\n{text}", self.dropped) }
    }
}
