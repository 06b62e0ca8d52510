//! The one JSON document of a command that finds things.

use std::process::ExitCode;

use coffer_rim::Failure;

/// Prints what was found as the one document there is, with what is wrong under `error`; gives the exit code of that.
pub fn document(mut value: serde_json::Value, failure: Option<Failure>) -> ExitCode {
    let code = failure.as_ref().map_or(0, |failure| failure.class.code());
    if let Some(failure) = failure {
        value["error"] = failure.json()["error"].take();
    }
    coffer_rim::println!("{value}");
    ExitCode::from(code)
}
