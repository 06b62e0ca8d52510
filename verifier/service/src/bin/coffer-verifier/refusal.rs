//! What is said of a line that the parser refused, and of one that asks for help: text for people, with `--json` one document.

use std::process::ExitCode;

use clap::error::ErrorKind;
use coffer_rim::{
    Class,
    usage::{Said, answer},
};

/// Says it.
pub fn refuse(error: &clap::Error, as_json: bool) -> ExitCode {
    if !as_json {
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { Class::Usage.code() } else { 0 });
    }
    let said = match error.kind() {
        ErrorKind::DisplayVersion => Said::Version(env!("CARGO_PKG_VERSION")),
        ErrorKind::DisplayHelp => Said::Help,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => Said::NoCommand,
        _ => Said::Wrong,
    };
    answer("coffer-verifier", said, &error.render().to_string())
}
