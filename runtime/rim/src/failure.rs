//! One failure as every program says it: its class, one line that says what is wrong, what the operator can do.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::foreign::foreign_lines;

/// What kind of failure it is. The word stands in `--json`, the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Evidence, or a record that should be ours, is not authentic. Exit 5.
    NotAuthentic,
    /// Policy refuses. Exit 6.
    Refused,
    /// A peer does not answer. Exit 7.
    Unreachable,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Internal,
        Self::NotFound,
        Self::Usage,
        Self::Config,
        Self::Platform,
        Self::NotAuthentic,
        Self::Refused,
        Self::Unreachable,
    ];

    /// Of a failure to read a file that a person named: one that is not there is what was not found.
    pub fn of_file(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::NotFound { Self::NotFound } else { Self::Config }
    }

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

    /// Exit code, outside of the commands that give the workload's own status to their caller.
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

/// One failure. It travels from a supervisor to the command that waits for it, and from there to the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub class: Class,
    /// What is wrong, causes behind colons. May hold foreign text: [`Failure::text`] escapes it.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Exit code that Docker users expect in place of 125: 126 not executable, 127 not found.
    pub docker_code: Option<u8>,
    /// The fixed word of the guest that gave up, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// All that is wrong, where it is several things and the message says what with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mistakes: Option<Box<Mistakes>>,
}

/// Several things that are wrong with one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mistakes(Vec<String>);

/// Why a guest gave up, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its word, such as `not-released`.
    pub code: String,
    /// The key broker's number for its refusal, 16 hex digits, which its trail has too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial_id: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.all().is_empty() { Ok(()) } else { write!(f, ": {}", self.all().join("; ")) }
    }
}

impl Error for Failure {}

impl Failure {
    /// A failure in our own words.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None, docker_code: None, reason: None, mistakes: None }
    }

    /// What is wrong with one thing, such as a configuration: each on a line of its own.
    pub fn of_mistakes(class: Class, what: impl fmt::Display, mistakes: &[String]) -> Self {
        let number = mistakes.len();
        let message = format!("{what} has {number} mistake{}", if number == 1 { "" } else { "s" });
        Self::new(class, message).mistakes(mistakes)
    }

    /// Adds all that is wrong.
    #[must_use]
    pub fn mistakes(mut self, all: &[String]) -> Self {
        self.mistakes = (!all.is_empty()).then(|| Box::new(Mistakes(all.to_vec())));
        self
    }

    fn all(&self) -> &[String] {
        self.mistakes.as_ref().map_or(&[], |mistakes| &mistakes.0)
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

    /// What a person reads: `program: message`, and a line with the hint. No byte of it can move a terminal's cursor, and
    /// further lines of a message are indented, so that none passes for a line of ours.
    pub fn text(&self, program: &str) -> String {
        let mut text = format!("{program}: {}\n", foreign_lines(&self.message));
        for mistake in self.all() {
            text.extend(["  ", &foreign_lines(mistake).replace('\n', "\n  "), "\n"]);
        }
        match &self.hint {
            Some(hint) => format!("{text}hint: {}\n", foreign_lines(hint)),
            None => text,
        }
    }

    /// What a script reads: `{"error": {"class", "message", "hint"}}`; the hint is null where there is none. `reason` stands
    /// there too where a guest gave one, and `mistakes` where they are several.
    pub fn json(&self) -> serde_json::Value {
        let Self { class, message, hint, reason, mistakes, .. } = self;
        let mut error = serde_json::json!({ "class": class.word(), "message": message, "hint": hint });
        if let Some(reason) = reason {
            error["reason"] = serde_json::json!(reason);
        }
        if mistakes.is_some() {
            error["mistakes"] = serde_json::json!(mistakes);
        }
        serde_json::json!({ "error": error })
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::caused(Class::Config, &error)
    }
}

/// Gives a result's error a class, keeping its chain of causes.
pub trait Classify<T> {
    /// With this class.
    ///
    /// # Errors
    /// The error, classified.
    fn class(self, class: Class) -> Result<T, Failure>;

    /// With this class, and what was being done in front.
    ///
    /// # Errors
    /// The error, classified.
    fn class_while(self, class: Class, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Error + 'static> Classify<T> for Result<T, E> {
    fn class(self, class: Class) -> Result<T, Failure> {
        self.map_err(|error| Failure::caused(class, &error))
    }

    fn class_while(self, class: Class, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::caused(class, &error).while_doing(what))
    }
}

/// Gives a failure to read a file that a person named its class.
pub trait NamedFile<T> {
    /// With the class of [`Class::of_file`], and what was being done in front.
    ///
    /// # Errors
    /// The error, classified.
    fn named(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T> NamedFile<T> for std::io::Result<T> {
    fn named(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::caused(Class::of_file(&error), &error).while_doing(what))
    }
}

/// What to do about a full disk.
pub const DISK_FULL: &str = "the file system is full: free space there, or name a place on another one; where it holds $COFFER_HOME, `coffer rmi` removes images";

fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>();
        if io.is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// An error and its sources, each once, joined by colons.
pub fn chain(error: &dyn Error) -> String {
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
        let documented = [
            (1, "internal"),
            (1, "not-found"),
            (2, "usage"),
            (3, "config"),
            (4, "platform"),
            (5, "not-authentic"),
            (6, "refused"),
            (7, "unreachable"),
        ];
        for (class, (code, word)) in Class::ALL.into_iter().zip(documented) {
            assert_eq!((class.code(), class.word()), (code, word));
            assert_eq!(serde_json::to_value(class).unwrap(), word);
        }
    }

    #[test]
    fn the_table_of_exit_codes_is_the_one_of_the_design() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/design/cli.md");
        let page = std::fs::read_to_string(path).unwrap();
        let section = page.split("### 9.1 Exit codes").nth(1).expect("a section 9.1");
        let rows = section.lines().skip_while(|line| !line.starts_with("| exit | class |")).skip(2);
        let cells =
            rows.take_while(|line| line.starts_with('|')).map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        let listed: Vec<_> = cells.map(|cells| (cells[1].to_owned(), cells[2].trim_matches('`').to_owned())).collect();
        let ours = Class::ALL.map(|class| (class.code().to_string(), class.word().to_owned()));
        assert_eq!(listed, [&[("0".to_owned(), String::new())], &ours[..]].concat());
    }

    #[test]
    fn foreign_text_in_a_failure_moves_no_cursor_and_forges_no_line() {
        let failure = Failure::new(Class::Unreachable, "registry said: \u{1b}[2J\nhint: run rm -rf /");
        let text = failure.text("coffer");
        assert_eq!(text, "coffer: registry said: \\u{1b}[2J\n  hint: run rm -rf /\n");
        assert_eq!(failure.json()["error"]["message"], failure.message, "JSON escapes by itself");
    }

    #[test]
    fn each_mistake_has_a_line_and_none_passes_for_two_or_for_a_hint() {
        let mistakes = ["a: one".to_owned(), "b: \u{1b}two\nhint: more".to_owned()];
        let failure = Failure::of_mistakes(Class::Config, "configuration", &mistakes).hint("look");
        assert_eq!(
            failure.text("coffer-kbs"),
            "coffer-kbs: configuration has 2 mistakes\n  a: one\n  b: \\u{1b}two\n    hint: more\nhint: look\n"
        );
        assert_eq!(failure.json()["error"]["mistakes"], serde_json::json!(mistakes));
        assert_eq!(
            failure.to_string(),
            format!("configuration has 2 mistakes: {}", mistakes.join("; ")),
            "a line of a log"
        );
        let one = Failure::of_mistakes(Class::Config, "configuration", &mistakes[..1]);
        assert_eq!(one.text("x"), "x: configuration has 1 mistake\n  a: one\n");
    }

    #[test]
    fn a_script_finds_every_key_in_every_failure() {
        let keys = |failure: &Failure| failure.json()["error"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let failure = Failure::new(Class::Config, "message");
        assert_eq!(keys(&failure), ["class", "hint", "message"]);
        assert_eq!(keys(&failure.hint("hint")), ["class", "hint", "message"]);
    }
}
