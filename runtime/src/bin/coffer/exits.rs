//! Whose exit codes a command has.

use crate::error::CliError;

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

    /// As `coffer --json help` says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Docker => "docker",
        }
    }
}
