//! Standard output and error. A reader who has seen enough (`coffer ps | head -1`) is no error; a full disk is.
//!
//! `print!` and `println!` of this crate take the place of the standard library's, which panic. The first failure is kept;
//! a program asks [`verdict`] for its exit code when it ends, and a loop that prints for long asks [`is_closed`].
//!
//! JSON escapes control characters of ASCII by itself, and no others. What is left of what acts on a terminal (C1 controls, what
//! reorders or hides) leaves here as `\uXXXX`, which is the same text to a reader of JSON; so no printed document carries it.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::failure::{Class, Failure};
use crate::foreign::is_active;

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
/// Nobody reads it any more.
const GONE: u8 = 1;
/// It could not be written, and that was said.
const FAILED: u8 = 2;
/// It never was open, and nothing was to be written yet.
const SHUT: u8 = 3;

/// This program was given no standard output: the first word for it fails.
pub fn shut() {
    STATE.store(SHUT, Ordering::Relaxed);
}

fn open() -> io::Result<io::StdoutLock<'static>> {
    match STATE.load(Ordering::Relaxed) {
        SHUT => Err(rustix::io::Errno::BADF.into()),
        _ => Ok(io::stdout().lock()),
    }
}

/// Writes to standard output, plain. Once it failed, nothing more is written.
pub fn write(text: fmt::Arguments<'_>) {
    write_bytes(plain(&text.to_string()).as_bytes());
}

/// A document of JSON on standard output, on a line of its own.
pub fn document(value: &serde_json::Value) {
    write(format_args!("{value}\n"));
}

/// Writes bytes to standard output as they are: a workload's own output, or a document whose digest counts, for whoever
/// asked for it.
pub fn write_bytes(bytes: &[u8]) {
    if !is_closed() {
        note(&write_all(bytes));
    }
}

/// Writes bytes to standard output as they are, for whoever has to know that all of them went there.
///
/// # Errors
/// Why not, a reader who is gone among it. It is the caller's to say.
pub fn write_all(bytes: &[u8]) -> io::Result<()> {
    let mut out = open()?;
    out.write_all(bytes).and_then(|()| out.flush())
}

/// Standard output as a place to write bytes to, as [`write_all`] does.
#[derive(Clone, Copy, Debug)]
pub struct Stdout;

impl io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether standard output can be written, as far as that is known beforehand: it is open for that, and a pipe has a reader.
///
/// # Errors
/// Why not.
pub fn check() -> io::Result<()> {
    drop(open()?);
    let out = rustix::stdio::stdout();
    if (rustix::fs::fcntl_getfl(out)? & OFlags::RWMODE) == OFlags::RDONLY {
        return Err(rustix::io::Errno::BADF.into());
    }
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default()))?;
    if polled[0].revents().intersects(PollFlags::ERR) { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}

/// Writes to standard output, plain, whatever became of what was written before.
///
/// # Errors
/// Why it was not written, or not all of it.
pub fn print_again(text: &str) -> io::Result<()> {
    write_all(plain(text).as_bytes())
}

/// Writes to standard error, plain. Nobody can be told if that fails.
pub fn write_error(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_all(plain(&text.to_string()).as_bytes());
}

/// Text in which nothing beyond ASCII acts on a terminal, written as JSON writes it.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let acts = |c: char| c > '~' && is_active(c);
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Standard output that cannot be written. What lies behind it is the caller's: what is full there, no image of ours fills.
pub fn unwritten(error: &io::Error) -> Failure {
    let failure = Failure::new(Class::Config, format!("cannot write standard output: {error}"));
    match error.kind() {
        ErrorKind::StorageFull => failure.hint("free space where it leads to, or lead it elsewhere"),
        _ => failure,
    }
}

fn note(result: &io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => STATE.store(GONE, Ordering::Relaxed),
        Err(error) => {
            if STATE.swap(FAILED, Ordering::Relaxed) != FAILED {
                write_error(format_args!("{}", unwritten(error).text("coffer")));
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
    matches!(STATE.load(Ordering::Relaxed), GONE | FAILED)
}

/// Output was lost, and that was said: [`unwritten`].
pub fn is_lost() -> bool {
    STATE.load(Ordering::Relaxed) == FAILED
}

/// The exit code of a program that would have ended with `code`: output that was lost is a failure.
pub fn verdict(code: ExitCode) -> ExitCode {
    if is_lost() { ExitCode::from(Class::Config.code()) } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_the_same_json_in_plain_characters() {
        let text = "a\u{9b}31m \u{202e}txt \u{e0041} Größe → \u{7f} \u{feff}";
        let document = serde_json::json!({ text: [text] }).to_string();
        let printed = plain(&document);
        assert!(!printed.contains(|c| c > '~' && is_active(c)), "{printed}");
        assert!(printed.contains("\\u009b31m \\u202etxt \\udb40\\udc41 Größe → \\u007f"), "{printed}");
        let back: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(back, serde_json::json!({ text: [text] }));
        // Lines and tables of our own are not touched.
        assert!(matches!(plain("NAME\tSTATUS\nµs → 4\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_full_place_behind_standard_output_is_not_our_home() {
        let failure = unwritten(&io::Error::from(ErrorKind::StorageFull));
        assert_eq!(failure.class, Class::Config);
        assert!(failure.message.starts_with("cannot write standard output: "), "{}", failure.message);
        assert!(!failure.hint.unwrap().contains("coffer rmi"));
        assert_eq!(unwritten(&io::Error::from(ErrorKind::PermissionDenied)).hint, None);
    }
}
