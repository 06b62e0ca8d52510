//! Forking, and starting this binary again as a helper with two extra descriptors.
//!
//! The agent has threads, so nothing but `exec` may happen between its fork and the helper. The helper has one thread
//! and may fork freely.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, Stdio},
};

use super::own_binary;

/// Descriptor on which a helper finds its orders.
pub const ORDERS_FD: RawFd = 3;
/// Descriptor on which a helper reports how far it came.
pub const STATUS_FD: RawFd = 4;

/// Descriptor of the mount that a helper was started from.
pub const BINARY_FD: RawFd = 5;

/// Starts this binary again as `stage`, with `orders` as descriptor 3, `status` as descriptor 4 and the mount it was started
/// from as descriptor 5.
///
/// # Errors
/// The kernel's.
pub fn spawn_helper(
    program: &std::path::Path,
    stage: &str,
    orders: &OwnedFd,
    status: &OwnedFd,
    stdio: [Stdio; 3],
) -> io::Result<Child> {
    // Out of the way of the two numbers they will get.
    let orders = rustix::io::fcntl_dupfd_cloexec(orders, 10)?;
    let status = rustix::io::fcntl_dupfd_cloexec(status, 10)?;
    let binary = rustix::io::fcntl_dupfd_cloexec(own_binary::read_only(program)?, 10)?;
    let [stdin, stdout, stderr] = stdio;
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command.arg0("coffer-init").arg(stage).env_clear().current_dir("/").stdin(stdin).stdout(stdout).stderr(stderr);
    let moves = [(orders.as_raw_fd(), ORDERS_FD), (status.as_raw_fd(), STATUS_FD), (binary.as_raw_fd(), BINARY_FD)];
    // SAFETY: between fork and exec the closure only calls dup2 and setpgid, which are async-signal-safe, on
    // descriptors that live until spawn returns.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in moves {
                if libc::dup2(from, to) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Which side of a fork this is.
pub enum Forked {
    /// The parent, with the child's process id.
    Parent(i32),
    /// The child.
    Child,
}

/// Forks a process that has one thread.
///
/// # Errors
/// The kernel's, or EINVAL where there are more threads.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the process has one thread (checked above), so the child finds every lock free.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        pid if pid > 0 => Ok(Forked::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes over a descriptor this process was started with.
///
/// # Errors
/// EBADF if it is not open.
pub fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: fcntl takes no pointer here; the descriptor was left to this process by `spawn_helper`, and each number
    // is taken once, at the start of the helper.
    unsafe {
        if libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Marks every descriptor from `first` on to be closed by exec.
///
/// # Errors
/// The kernel's.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: takes numbers only; nothing is closed before exec.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts every signal back to its default action and unblocks all, as a new program expects.
pub fn default_signals() {
    // SAFETY: SIG_DFL installs no code of ours; numbers that cannot be set fail harmlessly; `set` is initialised by
    // sigemptyset before use.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, core::ptr::null_mut());
    }
}

/// Children will be in a process id namespace of their own.
///
/// # Errors
/// The kernel's: EPERM without CAP_SYS_ADMIN.
pub fn new_process_ids() -> io::Result<()> {
    // SAFETY: descriptors stay shared (no CLONE_FILES), which is the one danger of unshare.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWPID) }.map_err(io::Error::from)
}

/// Leaves the parent's mount, host name, IPC and control group namespaces.
///
/// # Errors
/// The kernel's: EPERM without CAP_SYS_ADMIN.
pub fn leave_namespaces() -> io::Result<()> {
    use rustix::thread::UnshareFlags as Flags;
    let flags = Flags::NEWNS | Flags::NEWUTS | Flags::NEWIPC | Flags::NEWCGROUP;
    // SAFETY: descriptors stay shared (no CLONE_FILES), which is the one danger of unshare.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Enters a new user namespace, in which this process has every capability and nothing is mapped yet.
///
/// # Errors
/// The kernel's: EUSERS or EPERM where no more may be made.
pub fn new_users() -> io::Result<()> {
    // SAFETY: descriptors stay shared (no CLONE_FILES), which is the one danger of unshare.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) }.map_err(io::Error::from)
}
