//! A failure as it travels from a supervisor to the command that waits for it, and from there to the user.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure it is. The word stands in `--json`, the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A defect of ours. Exit 1.
    Internal,
    /// No box, image or file of that name. Exit 1, as Docker has it.
    NotFound,
    /// The command line is wrong. Exit 2.
    Usage,
    /// A configuration, file or state does not allow it. Exit 3.
    Config,
    /// This machine lacks what it takes. Exit 4.
    Platform,
    /// Evidence is not authentic. Exit 5.
    NotAuthentic,
    /// Policy refuses. Exit 6.
    Refused,
    /// A peer does not answer. Exit 7.
    Unreachable,
}

impl Class {
    /// Word used in `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::NotFound => "not-found",
            Self::Usage => "usage",
            Self::Config => "config",
            Self::Platform => "platform",
            Self::NotAuthentic => "not-authentic",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }

    /// Exit code outside of `run`, `create`, `start` and `exec`.
    pub fn code(self) -> u8 {
        match self {
            Self::Internal | Self::NotFound => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::Platform => 4,
            Self::NotAuthentic => 5,
            Self::Refused => 6,
            Self::Unreachable => 7,
        }
    }
}

/// One failure: its class, one line that says what is wrong, and what the operator can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub class: Class,
    /// What is wrong, causes behind colons.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Exit code that Docker users expect in place of 125: 126 not executable, 127 not found.
    pub docker_code: Option<u8>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

impl Failure {
    /// A failure in our own words.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None, docker_code: None }
    }

    /// A failure with its chain of causes. A full disk gets the hint it needs, wherever it hides in the chain.
    pub fn caused(class: Class, error: &(dyn Error + 'static)) -> Self {
        let failure = Self::new(class, chain(error));
        if is_disk_full(error) { failure.hint(DISK_FULL) } else { failure }
    }

    /// Adds what the operator can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::caused(Class::Config, &error)
    }
}

/// What to do about a full disk.
pub const DISK_FULL: &str =
    "the file system is full: free space, remove images with `coffer rmi`, or choose another with --home";

fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>();
        if io.is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull) {
            return true;
        }
        let sqlite = inner.downcast_ref::<rusqlite::Error>();
        // SQLite calls a full disk an I/O error where it grows its shared memory (SQLITE_IOERR_SHMSIZE).
        let grows = |e: &rusqlite::Error| e.sqlite_error().is_some_and(|error| error.extended_code == 4874);
        if sqlite.is_some_and(|e| e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) || grows(e)) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// An error and its sources, each once, joined by colons.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_message_holds_every_cause_once() {
        let failure = Failure::caused(Class::Config, &Outer(std::io::Error::other("inner")));
        assert_eq!(failure.message, "outer: inner");
        assert_eq!(failure.hint, None);
        assert_eq!(failure.while_doing("reading x").message, "reading x: outer: inner");
    }

    #[test]
    fn a_full_disk_is_found_in_the_chain() {
        let full = Outer(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(Failure::caused(Class::Config, &full).hint.as_deref(), Some(DISK_FULL));
    }

    #[test]
    fn every_class_has_the_exit_code_and_word_we_document() {
        let classes = [
            (Class::Internal, 1, "internal"),
            (Class::NotFound, 1, "not-found"),
            (Class::Usage, 2, "usage"),
            (Class::Config, 3, "config"),
            (Class::Platform, 4, "platform"),
            (Class::NotAuthentic, 5, "not-authentic"),
            (Class::Refused, 6, "refused"),
            (Class::Unreachable, 7, "unreachable"),
        ];
        for (class, code, word) in classes {
            assert_eq!((class.code(), class.word()), (code, word));
            assert_eq!(serde_json::to_value(class).unwrap(), word);
        }
    }
}
