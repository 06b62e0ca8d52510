//! What failed, with its exit code and a hint.

use coffer_kbs::{ConfigError, ServerError, StateError, StoreError, chain};
use serde_json::json;

/// Kind of failure: the word stands in `--json`, the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A defect of ours. Exit 1.
    Internal,
    /// The command line is wrong. Exit 2.
    Usage,
    /// A configuration, file or address does not allow it. Exit 3.
    Config,
    /// The audit trail is not what this server wrote. Exit 5.
    NotAuthentic,
}

impl Class {
    /// Exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::NotAuthentic => 5,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::Config => "config",
            Self::NotAuthentic => "not-authentic",
        }
    }
}

/// A failure as it is printed.
#[derive(Debug)]
pub struct Failure {
    /// Fixes the exit code.
    pub class: Class,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// In our own words.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None }
    }

    /// With what the operator can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// To standard error for people, as one JSON object on standard output for `--json`.
    pub fn print(&self, as_json: bool) {
        if as_json {
            let mut error = json!({ "class": self.class.word(), "message": self.message });
            if let Some(hint) = &self.hint {
                error["hint"] = json!(hint);
            }
            crate::print(&json!({ "error": error }).to_string());
        } else {
            eprintln!("coffer-kbs: {}", self.message);
            if let Some(hint) = &self.hint {
                eprintln!("hint: {hint}");
            }
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let class = match &error {
            StateError::Store(StoreError::Audit(_) | StoreError::Tampered { .. }) => Class::NotAuthentic,
            _ => Class::Config,
        };
        Self::new(class, chain(&error)).hint(error.hint())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        StateError::Store(error).into()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Class::Config, chain(&error)).hint(error.hint())
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::State(error) => error.into(),
            ServerError::Bind { .. } => Self::new(Class::Config, chain(&error)).hint(error.hint()),
            _ => Self::new(Class::Internal, chain(&error)).hint(error.hint()),
        }
    }
}
