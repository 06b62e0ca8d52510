//! Signals that are waited for in place of being handled.

use std::io;

use rustix::process::Pid;

/// All signals but those that say that this program is wrong are held back until they are asked for.
pub struct Held(libc::sigset_t);

/// What a wrong program gets, and what it would loop in if it were held back.
const OWN_FAULTS: [i32; 6] = [libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGSYS, libc::SIGTRAP];

/// Holds them back from now on, in this thread and in what it forks.
///
/// # Errors
/// The kernel's.
pub fn hold() -> io::Result<Held> {
    // SAFETY: the set is initialised by sigfillset before any use, and outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&raw mut set);
        for number in OWN_FAULTS {
            libc::sigdelset(&raw mut set, number);
        }
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const set, core::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Held(set))
    }
}

impl Held {
    /// The next one that comes, by its number.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next(&self) -> io::Result<i32> {
        loop {
            // SAFETY: the set lives as long as `self`, and no information is asked for.
            let number = unsafe { libc::sigwaitinfo(&raw const self.0, core::ptr::null_mut()) };
            if number > 0 {
                return Ok(number);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Sends it to a process, whatever its number.
pub fn send(to: Pid, number: i32) {
    // SAFETY: takes numbers alone.
    let _ = unsafe { libc::kill(to.as_raw_nonzero().get(), number) };
}
