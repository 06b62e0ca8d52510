//! What a command tells the person or script that called it when it fails.
//!
//! A [`CliError`] has a class, which fixes the exit code; one line that says what is wrong; and, where the operator can
//! mend it, a hint. `coffer run|create|start|exec` exit 125 whatever the class, as Docker users expect.

use std::error::Error;
use std::fmt;

/// What kind of failure it is. The word stands in `--json`, the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A failure as it is printed.
#[derive(Debug)]
pub struct CliError {
    /// Fixes the exit code.
    pub class: Class,
    /// What is wrong, causes appended after colons.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl CliError {
    /// A failure in our own words.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None }
    }

    /// A failure with its chain of causes.
    pub fn caused(class: Class, error: &(dyn Error + 'static)) -> Self {
        Self::new(class, chain(error))
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

    /// Prints it: to standard error for people, as one JSON object on standard output for `--json`.
    pub fn print(&self, json: bool) {
        if json {
            let mut error = serde_json::json!({ "class": self.class.word(), "message": self.message });
            if let Some(hint) = &self.hint {
                error["hint"] = serde_json::json!(hint);
            }
            println!("{}", serde_json::json!({ "error": error }));
        } else {
            eprintln!("coffer: {}", self.message);
            if let Some(hint) = &self.hint {
                eprintln!("hint: {hint}");
            }
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::caused(Class::Config, &error)
    }
}

/// Gives a result's error a class, keeping its chain of causes.
pub trait Classify<T> {
    /// With this class.
    fn class(self, class: Class) -> Result<T, CliError>;

    /// With this class, and what was being done in front.
    fn class_while(self, class: Class, what: impl fmt::Display) -> Result<T, CliError>;
}

impl<T, E: Error + 'static> Classify<T> for Result<T, E> {
    fn class(self, class: Class) -> Result<T, CliError> {
        self.map_err(|error| CliError::caused(class, &error))
    }

    fn class_while(self, class: Class, what: impl fmt::Display) -> Result<T, CliError> {
        self.map_err(|error| CliError::caused(class, &error).while_doing(what))
    }
}

/// An error and its sources, each once, joined by colons.
fn chain(error: &(dyn Error + 'static)) -> String {
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
        let error = CliError::caused(Class::Config, &Outer(std::io::Error::other("inner")));
        assert_eq!(error.message, "outer: inner");
        assert_eq!(error.while_doing("reading x").message, "reading x: outer: inner");
    }

    #[test]
    fn every_class_has_the_exit_code_we_document() {
        let codes = [
            Class::Internal,
            Class::NotFound,
            Class::Usage,
            Class::Config,
            Class::Platform,
            Class::NotAuthentic,
            Class::Refused,
            Class::Unreachable,
        ]
        .map(Class::code);
        assert_eq!(codes, [1, 1, 2, 3, 4, 5, 6, 7]);
    }
}
