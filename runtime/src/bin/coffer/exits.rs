//! Whose exit codes a command has.

use std::process::ExitCode;

use coffer_rim::out;

use crate::error::{Class, CliError};

/// A property of each command, in its row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exits {
    /// Ours: each class of failure has its own.
    Class,
    /// Docker's: the command gives the workload's own status to its caller, so that every failure of ours is 125, except that a
    /// program is not found (127) or cannot be executed (126).
    Docker,
}

impl Exits {
    /// Exit code of a failure.
    pub fn code(self, failure: &CliError) -> u8 {
        match self {
            Self::Class => failure.class.code(),
            Self::Docker => failure.docker_code.unwrap_or(125),
        }
    }

    /// What a command ends with that would have ended with `code`: output that was lost is a failure of ours.
    pub fn verdict(self, code: ExitCode) -> ExitCode {
        let lost = CliError::new(Class::Config, "standard output was lost");
        if out::is_lost() { ExitCode::from(self.code(&lost)) } else { code }
    }

    /// As `coffer --json help` says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Docker => "docker",
        }
    }
}
