//! Children that never outlive their parent, and are ended by nobody else.
//!
//! Source: prctl(2), PR_SET_PDEATHSIG; systemd.kill(5).
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Lets the kernel kill the child when the thread that starts it ends, however it ends. Nothing but SIGKILL ends it before: whoever
/// ends a whole group (a service manager, when the machine goes down) tells the parent as well, which ends it in good order.
///
/// The caller must start the child from a thread that lives as long as the process: the signal follows the thread.
pub fn dies_with_parent(command: &mut Command) -> &mut Command {
    let parent = getpid();
    // SAFETY: the closure runs between fork and exec and calls only prctl(2), getppid(2), sigprocmask(2) and what fills its set, which
    // are async-signal-safe; it allocates nothing and takes no lock. The set is initialised by sigemptyset before use.
    unsafe {
        command.pre_exec(move || {
            // Blocked and not ignored: a program that has a handler of its own for them stays as deaf.
            let mut set: libc::sigset_t = core::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in NOT_HEARD {
                libc::sigaddset(&raw mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, core::ptr::null_mut()) < 0 {
                return Err(io::Error::last_os_error());
            }
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above: then nobody would ever send the signal.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from(io::ErrorKind::BrokenPipe)) }
        })
    }
}

/// What ends a program that does not expect it, and is sent to groups.
const NOT_HEARD: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_not_ended_by_what_its_group_is_sent() {
        let mut child = dies_with_parent(Command::new("sleep").arg("60")).spawn().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for signal in NOT_HEARD {
            assert!(blocked & 1 << (signal - 1) != 0, "{signal}: {blocked:x}");
        }
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            dies_with_parent(command.arg("60")).spawn().unwrap()
        })
        .join()
        .unwrap();
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
