//! Standard output and error. A reader who has seen enough (`coffer ps | head -1`) is no error; a full disk is.
//!
//! `print!` and `println!` of this crate take the place of the standard library's, which panic. The first failure is kept;
//! a program asks [`verdict`] for its exit code when it ends, and a loop that prints for long asks [`is_closed`].

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::failure::{Class, Failure};

/// Prints to standard output.
#[macro_export]
macro_rules! print {
    ($($words:tt)*) => { $crate::out::write(format_args!($($words)*)) };
}

/// Prints a line to standard output.
#[macro_export]
macro_rules! println {
    () => { $crate::out::write(format_args!("\n")) };
    ($($words:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($words)*))) };
}

/// Prints a line to standard error. Foreign text in it must have been escaped ([`crate::foreign()`]).
#[macro_export]
macro_rules! eprintln {
    () => { $crate::out::write_error(format_args!("\n")) };
    ($($words:tt)*) => { $crate::out::write_error(format_args!("{}\n", format_args!($($words)*))) };
}

static STATE: AtomicU8 = AtomicU8::new(OPEN);
const OPEN: u8 = 0;
const GONE: u8 = 1;
const FAILED: u8 = 2;

/// Writes to standard output. Once it failed, nothing more is written.
pub fn write(text: fmt::Arguments<'_>) {
    if STATE.load(Ordering::Relaxed) == OPEN {
        let mut out = io::stdout().lock();
        note(&out.write_fmt(text).and_then(|()| out.flush()));
    }
}

/// Writes bytes to standard output as they are: a workload's own output, for whoever asked for it.
pub fn write_bytes(bytes: &[u8]) {
    if STATE.load(Ordering::Relaxed) == OPEN {
        let mut out = io::stdout().lock();
        note(&out.write_all(bytes).and_then(|()| out.flush()));
    }
}

/// Writes to standard error. Nobody can be told if that fails.
pub fn write_error(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

fn note(result: &io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => STATE.store(GONE, Ordering::Relaxed),
        Err(error) => {
            if STATE.swap(FAILED, Ordering::Relaxed) != FAILED {
                let failure = Failure::caused(Class::Config, error).while_doing("cannot write standard output");
                write_error(format_args!("{}", failure.text("coffer")));
            }
        }
    }
}

impl Failure {
    /// Prints it: to standard error for people, as one JSON object on standard output for `--json`.
    pub fn print(&self, program: &str, json: bool) {
        if json {
            write(format_args!("{}\n", self.json()));
        } else {
            write_error(format_args!("{}", self.text(program)));
        }
    }
}

/// Nobody reads standard output any more, or it cannot be written.
pub fn is_closed() -> bool {
    STATE.load(Ordering::Relaxed) != OPEN
}

/// The exit code of a program that would have ended with `code`: output that was lost is a failure.
pub fn verdict(code: ExitCode) -> ExitCode {
    if STATE.load(Ordering::Relaxed) == FAILED { ExitCode::from(Class::Config.code()) } else { code }
}
