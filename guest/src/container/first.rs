//! The first program of a box that asks for an init: it starts the workload's own, hands it every signal, and waits for whatever loses its
//! parent. It ends with the workload's program, and everything in the box with it.
//!
//! It runs as that program does: its user, its namespaces, no more rights.
//! Trusts: nothing in the box. Never: keeps a secret, or a stream of the workload's.

use std::io;

use rustix::process::{Pid, WaitOptions, wait};

use super::exit_status;
use crate::sys::{
    process::{self, Forked},
    signals::{self, Held},
};

/// Which of the two this is.
pub(super) enum Side {
    /// The one that becomes the program.
    Program,
    /// The init, when the program has ended: its exit status.
    Init(i32),
}

/// Becomes two. `let_go`: what the init does before it waits.
///
/// # Errors
/// The kernel's.
pub(super) fn split(terminal: bool, let_go: impl FnOnce() -> io::Result<()>) -> io::Result<Side> {
    // Before there is a child: none of its end is missed, and no signal comes between.
    let held = signals::hold()?;
    match process::fork()? {
        Forked::Child => {
            rustix::process::setpgid(None, None)?;
            if terminal {
                rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid())?;
            }
            process::default_signals();
            Ok(Side::Program)
        }
        Forked::Parent(pid) => {
            let program = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
            let_go()?;
            Ok(Side::Init(attend(&held, program)?))
        }
    }
}

fn attend(held: &Held, program: Pid) -> io::Result<i32> {
    loop {
        let number = held.next()?;
        if number == libc::SIGCHLD {
            if let Some(status) = reap(program) {
                return Ok(status);
            }
        } else {
            // It may have ended, or be somebody's to whom this user may send none.
            signals::send(program, number);
        }
    }
}

/// Waits for all that have ended; the program's status if it is one of them.
fn reap(program: Pid) -> Option<i32> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => ended = Some(exit_status(status)),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return ended,
        }
    }
}
