//! What a parser of command lines says, as one document for scripts: the same of every program of ours.
//!
//! Knows no parser: it takes the words that one would print to people.

use std::{net::SocketAddr, process::ExitCode};

use serde_json::{Value, json};

use crate::{Class, Failure, out};

/// What is wrong in one line, with every name that the parser gives: all up to its first empty line.
pub fn message(rendered: &str) -> String {
    let mut lines = rendered.lines().map(str::trim).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    // What is missing stands in lines of its own behind a colon.
    let between = if first.ends_with("were not provided:") { ", " } else { " " };
    let rest = lines.collect::<Vec<_>>().join(between);
    if rest.is_empty() { first.to_owned() } else { format!("{first} {rest}") }
}

/// What the parser finds near, if it says so.
pub fn tip(rendered: &str) -> Option<&str> {
    rendered.lines().find_map(|line| line.trim().strip_prefix("tip: "))
}

/// Help as a document.
pub fn help(rendered: &str) -> Value {
    json!({ "help": rendered })
}

/// What the parser of a server's program wants to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Help that was asked for.
    Help,
    /// The version, which is this.
    Version(&'static str),
    /// That a command is missing: its text is all of the help, or a list.
    NoCommand,
    /// What is wrong with the line.
    Wrong,
}

/// Prints it as one document, as the program of this name, and gives its exit code.
pub fn answer(name: &str, said: Said, rendered: &str) -> ExitCode {
    let message = match said {
        Said::Help => {
            out::document(&help(rendered));
            return ExitCode::SUCCESS;
        }
        Said::Version(version) => {
            out::document(&json!({ "version": version }));
            return ExitCode::SUCCESS;
        }
        Said::NoCommand => "a command is missing".to_owned(),
        Said::Wrong => message(rendered),
    };
    let read = "`--help` behind a command lists what it takes";
    let hint = tip(rendered).map_or_else(|| read.to_owned(), |near| format!("{near}; {read}"));
    Failure::new(Class::Usage, message).hint(hint).print(name, true);
    ExitCode::from(Class::Usage.code())
}

/// An IP address and a port to listen on. A name is none: what it stands for may change.
///
/// # Errors
/// What was expected.
pub fn ip_and_port(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected IP:PORT, such as 127.0.0.1:8443 or [::]:8443, and no name".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_and_what_is_near_is_a_tip() {
        let missing =
            "error: the following required arguments were not provided:\n  --out <FILE>\n  --key <FILE>\n\nUsage: x";
        let said = "the following required arguments were not provided: --out <FILE>, --key <FILE>";
        assert_eq!((message(missing).as_str(), tip(missing)), (said, None));
        let near = "error: unrecognized subcommand 'srve'\n\n  tip: a similar subcommand exists: 'serve'\n\nUsage: x";
        assert_eq!(message(near), "unrecognized subcommand 'srve'");
        assert_eq!(tip(near), Some("a similar subcommand exists: 'serve'"));
        assert_eq!(message("error: one\n  two\n"), "one two");
        assert_eq!(help("text")["help"], "text");
    }
}
