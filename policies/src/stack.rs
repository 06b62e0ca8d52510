//! A stack of known size: the engine recurses with what it reads, and a stack that overflows ends the process.
//!
//! What [`crate::nesting`] and [`crate::reach`] let through has room on it, whoever asks. Never: parses or evaluates on a stack of
//! unknown size.

use core::cell::Cell;
use std::{io, panic::resume_unwind, thread};

/// Stack of a thread that parses or asks policies, in bytes: address space, which becomes memory as it is used. Tests measure that the
/// deepest texts within the bounds take less than half of it.
pub const STACK: usize = 16 * 1024 * 1024;

thread_local! {
    static IS_LARGE: Cell<bool> = const { Cell::new(false) };
}

/// Says of this thread that its stack has [`STACK`] bytes or more, so that policies are asked on it and no other is begun.
///
/// Whoever builds a pool of threads calls it in each, beside the size it gives them.
pub fn thread_has_stack() {
    IS_LARGE.set(true);
}

/// Does it on a stack of [`STACK`] bytes: here, where this thread has one.
///
/// # Errors
/// If the system has no thread to give.
pub(crate) fn on_large<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if IS_LARGE.get() {
        return Ok(work());
    }
    thread::scope(|scope| {
        let begun = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || {
            thread_has_stack();
            work()
        })?;
        begun.join().map_or_else(|panic| resume_unwind(panic), Ok)
    })
}
