//! Which process, for as long as there is one: a number is another's after its end, and a signal by number reaches that.
//!
//! Source: pidfd_open(2), pidfd_send_signal(2), proc_pid_stat(5).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// The signal goes to the group that the process leads. Since Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// A process that this agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    number: i32,
    /// When it began, by the kernel's clock, which tells it from the next one of its number. Absent: it had ended before anybody looked.
    began: Option<u64>,
}

impl ProcessId {
    /// The child `number` of `parent`, which starts no other of that number.
    pub fn of_child(number: i32, parent: i32) -> Self {
        Self { number, began: Stat::of(number).filter(|stat| stat.parent == parent).map(|stat| stat.began) }
    }

    /// Its number. For whoever only tells it.
    pub const fn number(self) -> i32 {
        self.number
    }

    /// A descriptor of it, and of no other.
    ///
    /// # Errors
    /// The kernel's: ESRCH once it has ended and was waited for.
    pub fn open(self) -> io::Result<OwnedFd> {
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        let pid = Some(self.number).filter(|number| *number > 1).and_then(Pid::from_raw).ok_or_else(gone)?;
        let opened = pidfd_open(pid, PidfdFlags::empty())?;
        // Looked at behind it: who has the number now, and began then, had it when it was opened.
        let stat = Stat::of(self.number).ok_or_else(gone)?;
        if self.began == Some(stat.began) { Ok(opened) } else { Err(gone()) }
    }

    /// Sends it a signal by number.
    ///
    /// # Errors
    /// The kernel's: ESRCH if it has ended, EINVAL for a number that is no signal.
    pub fn signal(self, number: i32) -> io::Result<()> {
        if !(1..=64).contains(&number) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        send(&self.open()?, number, 0)
    }

    /// Kills it, and all of the group that it leads.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill_group(self) -> io::Result<()> {
        let opened = self.open()?;
        match send(&opened, libc::SIGKILL, PIDFD_SIGNAL_PROCESS_GROUP) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                send(&opened, 0, 0)?;
                kill(-self.number)
            }
            sent => sent,
        }
    }
}

/// By number; of a group that a program of ours leads, and that is there.
fn kill(group: i32) -> io::Result<()> {
    // SAFETY: takes numbers only, and by its caller's check never that of all processes.
    if unsafe { libc::kill(group, libc::SIGKILL) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn send(opened: &OwnedFd, number: i32, flags: libc::c_uint) -> io::Result<()> {
    let none: *const libc::siginfo_t = core::ptr::null();
    // SAFETY: takes an open descriptor and numbers; the kernel fills in the missing information by itself.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, opened.as_raw_fd(), number, none, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel says of a process.
struct Stat {
    parent: i32,
    /// Clock ticks after the kernel's boot.
    began: u64,
}

impl Stat {
    fn of(number: i32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{number}/stat")).ok()?;
        // Its name may be anything, brackets and blanks among it.
        let text = String::from_utf8_lossy(&text);
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self { parent: fields.get(1)?.parse().ok()?, began: fields.get(19)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::{CommandExt, ExitStatusExt},
        process::{Child, Command},
    };

    use super::*;

    fn child() -> Child {
        Command::new("sleep").arg("60").process_group(0).spawn().unwrap()
    }

    fn of(child: &Child) -> ProcessId {
        ProcessId::of_child(child.id().try_into().unwrap(), std::process::id().try_into().unwrap())
    }

    fn is_gone(result: io::Result<()>) -> bool {
        result.is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
    }

    #[test]
    fn a_signal_reaches_the_process_and_its_group() {
        let mut one = child();
        assert!(of(&one).signal(65).is_err() && of(&one).signal(0).is_err());
        of(&one).signal(libc::SIGUSR1).unwrap();
        assert_eq!(one.wait().unwrap().signal(), Some(libc::SIGUSR1));
        let mut group = child();
        let mut member = Command::new("sleep").arg("60").process_group(group.id().try_into().unwrap()).spawn().unwrap();
        of(&group).kill_group().unwrap();
        for killed in [&mut group, &mut member] {
            assert_eq!(killed.wait().unwrap().signal(), Some(libc::SIGKILL));
        }
    }

    #[test]
    fn whoever_has_the_number_of_one_that_has_ended_gets_nothing() {
        let mut ended = child();
        let id = of(&ended);
        ended.kill().unwrap();
        ended.wait().unwrap();
        assert!(is_gone(id.signal(libc::SIGKILL)) && is_gone(id.kill_group()));
        // As it is where another has got the number: one that began at another time, or was none of that parent's.
        let mut other = child();
        let now = of(&other);
        let before = ProcessId { began: now.began.map(|began| began - 1), ..now };
        let late = ProcessId::of_child(now.number, 1);
        for stale in [before, late, ProcessId { began: None, ..now }] {
            assert!(is_gone(stale.signal(libc::SIGKILL)) && is_gone(stale.kill_group()) && stale.open().is_err());
        }
        now.signal(libc::SIGUSR2).unwrap();
        assert_eq!(other.wait().unwrap().signal(), Some(libc::SIGUSR2), "and nothing before");
    }
}
