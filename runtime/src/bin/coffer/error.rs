//! What a command tells the person or script that called it when it fails: the failures of every program of ours.

pub use coffer_rim::{Class, Classify, Failure as CliError};

/// Prints one of several failures; the command goes on.
pub fn print(failure: &CliError, json: bool) {
    failure.print("coffer", json);
}
