//! What a command tells the person or script that called it when it fails: the failures of every program of ours.

pub use coffer_rim::{Class, Classify, Failure as CliError, NamedFile};
use coffer_runtime::engine::Fault;

use crate::words;

/// What an operation's error means on a command line: its class, its chain of causes, its remedy. The one place where the
/// engine's errors become ours.
#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
pub fn of(error: impl Fault) -> CliError {
    let failure = CliError::caused(error.class(), &error);
    CliError {
        hint: error.hint().as_ref().map(words::of).or(failure.hint),
        docker_code: error.docker_code(),
        reason: error.reason(),
        ..failure
    }
}

/// Says what a person should know and nothing fails for, on standard error.
pub fn warn(text: &str) {
    eprintln!("coffer: warning: {}", coffer_rim::foreign(text));
}

/// Prints one of several failures; the command goes on.
pub fn print(failure: &CliError, json: bool) {
    failure.print("coffer", json);
}
