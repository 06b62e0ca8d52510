//! What a command tells the person or script that called it when it fails.
//!
//! A [`CliError`] has a class, which fixes the exit code; one line that says what is wrong; and, where the operator can
//! mend it, a hint. `coffer run|create|start|exec` exit 125 whatever the class, as Docker users expect.

use std::error::Error;
use std::fmt;

pub use coffer_runtime::{Class, Failure as CliError};

/// Prints a failure: to standard error for people, as one JSON object on standard output for `--json`.
pub fn print(failure: &CliError, json: bool) {
    if json {
        let mut error = serde_json::json!({ "class": failure.class.word(), "message": failure.message });
        if let Some(hint) = &failure.hint {
            error["hint"] = serde_json::json!(hint);
        }
        println!("{}", serde_json::json!({ "error": error }));
    } else {
        eprintln!("coffer: {}", failure.message);
        if let Some(hint) = &failure.hint {
            eprintln!("hint: {hint}");
        }
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
