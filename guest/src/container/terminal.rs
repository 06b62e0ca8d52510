//! The terminal of a program, made where the program will run and by the half that becomes it.
//!
//! It is one of the workload's own `/dev/pts`, so that it has a name there, and belongs to the program's user, who opens it. Its
//! other end goes to the agent over the socket that stands in for standard input until then.
//! Trusts: the kernel. What stands at the path is looked at before it is used, since it stands among the workload's files.
//! Source: pty(7), ioctl_tty(2), unix(7) SCM_RIGHTS.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::AsFd,
};

use rustix::{
    fs::{Mode, OFlags, fstatfs, open},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    process::ioctl_tiocsctty,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stdin},
    termios::tcsetwinsize,
};

use super::TerminalSize;

/// `DEVPTS_SUPER_MAGIC`, Linux include/uapi/linux/magic.h.
const DEVPTS: i64 = 0x1cd1;

/// Opens a terminal, gives the agent its other end, and makes it this process's own and its standard streams.
///
/// # Errors
/// The kernel's: ENOTTY where `/dev/pts` of the workload is something else.
pub(super) fn take(size: TerminalSize) -> io::Result<()> {
    // Without blocking for whoever holds it, which is the agent.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let controller = open("/dev/pts/ptmx", flags, Mode::empty())?;
    if fstatfs(&controller)?.f_type != DEVPTS {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    unlockpt(&controller)?;
    let terminal = ioctl_tiocgptpeer(&controller, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    tcsetwinsize(&controller, size.into())?;
    let descriptors = [controller.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(stdin(), &[IoSlice::new(b"t")], &mut rights, SendFlags::NOSIGNAL)?;
    ioctl_tiocsctty(&terminal)?;
    dup2_stdin(&terminal)?;
    dup2_stdout(&terminal)?;
    dup2_stderr(&terminal)?;
    Ok(())
}
