//! What is said of a line that the parser refused, and of one that asks for help: text for people, with `--json` one document.

use std::process::ExitCode;

use clap::error::ErrorKind;
use coffer_rim::{Class, Failure, usage};
use serde_json::json;

/// Says it.
pub fn refuse(error: &clap::Error, as_json: bool) -> ExitCode {
    if !as_json {
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { Class::Usage.code() } else { 0 });
    }
    let rendered = error.render().to_string();
    if !error.use_stderr() {
        let document = match error.kind() {
            ErrorKind::DisplayVersion => json!({ "version": env!("CARGO_PKG_VERSION") }),
            _ => usage::help(&rendered),
        };
        coffer_rim::println!("{document}");
        return ExitCode::SUCCESS;
    }
    let message = match error.kind() {
        // Its text is all of the help, or a list.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "a command is missing".to_owned()
        }
        _ => usage::message(&rendered),
    };
    let read = "`--help` behind a command lists what it takes";
    let hint = usage::tip(&rendered).map_or_else(|| read.to_owned(), |near| format!("{near}; {read}"));
    let failure = Failure::new(Class::Usage, message).hint(hint);
    failure.print("coffer-verifier", true);
    ExitCode::from(failure.class.code())
}
