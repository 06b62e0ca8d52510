//! The command line: one variant per subcommand, each with its own file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Class, Classify as _, CliError};
use crate::kbs;
use crate::report;
use crate::sim;
use crate::verify;
use crate::version;

/// Runs OCI images in attested microVMs.
#[derive(Debug, Parser)]
#[command(name = "coffer", version, propagate_version = false, disable_help_subcommand = true)]
pub struct Cli {
    /// Print JSON instead of tables and text.
    #[arg(long, global = true)]
    pub json: bool,

    /// Where boxes, images and keys are kept [default: /var/lib/coffer as root, else ~/.local/share/coffer].
    #[arg(long, global = true, env = "COFFER_HOME", value_name = "DIR", hide_env_values = true)]
    pub home: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Manage a key broker.
    Kbs(Box<kbs::Args>),
    /// Show what a report says, without deciding about it.
    Report(report::Args),
    /// Make simulated evidence and attacks, and check verifiers with them.
    Sim(sim::Args),
    /// Decide about evidence in a file, offline.
    Verify(Box<verify::Args>),
    /// Print the version.
    Version(version::Args),
}

impl Command {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self {
            Self::Kbs(args) => kbs::run(args, context),
            Self::Report(args) => report::run(&args, context),
            Self::Sim(args) => sim::run(args, context),
            Self::Verify(args) => verify::run(&args, context),
            Self::Version(args) => version::run(&args, context),
        }
    }
}

/// What every subcommand gets besides its own arguments.
#[derive(Clone, Debug)]
pub struct Context {
    /// `--json` was given.
    pub json: bool,
    /// `$COFFER_HOME`, resolved; not yet created.
    pub home: PathBuf,
}

impl Context {
    /// From the global arguments.
    pub fn new(json: bool, home: Option<PathBuf>) -> Self {
        Self { json, home: home.unwrap_or_else(default_home) }
    }

    /// An event loop for this one command.
    ///
    /// # Errors
    /// Class `internal` if the system gives us no threads.
    #[allow(clippy::unused_self, reason = "every command asks its context, whatever it will hold")]
    pub fn runtime(&self) -> Result<tokio::runtime::Runtime, CliError> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .class_while(Class::Internal, "starting the event loop")
    }
}

fn default_home() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/coffer");
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from("/var/lib")).join("coffer")
}

/// Exit code of a failed command line. `run`, `create`, `start` and `exec` give the workload's own codes to the caller,
/// so each failure of ours is 125 there, except that a program is not found (127) or cannot be executed (126).
pub fn failure_code(failure: &CliError, words: &[String]) -> u8 {
    if is_docker_verb(words) { failure.docker_code.unwrap_or(125) } else { failure.class.code() }
}

/// Finds the subcommand among words that clap may have refused. Global flags may stand before it.
fn is_docker_verb(words: &[String]) -> bool {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        if word == "--home" {
            words.next();
        } else if !word.starts_with('-') {
            return matches!(word.as_str(), "run" | "create" | "start" | "exec");
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(String::from).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_dockers_verbs_fail_with_125() {
        let code = |class, line| failure_code(&CliError::new(class, ""), &words(line));
        assert_eq!(code(Class::Usage, "coffer --json --home /x run --nosuch"), 125);
        assert_eq!(code(Class::Platform, "coffer start b"), 125);
        assert_eq!(code(Class::Usage, "coffer ps run"), 2);
        assert_eq!(code(Class::NotFound, "coffer rm run"), 1);
    }
}
