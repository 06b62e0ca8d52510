//! What goes wrong with the programs that keep logins.

use std::io;

use coffer_rim::Foreign;

/// Why a helper did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelperError {
    /// A path would be another program than the one that the name stands for.
    #[error("\"{}\" is no name of a credential helper", Foreign(found))]
    Name {
        /// What the file says.
        found: String,
    },
    /// It does not run.
    #[error("cannot start the credential helper {}: {source}", Foreign(helper))]
    Start {
        /// The program.
        helper: String,
        /// The system's error.
        source: io::Error,
    },
    /// It did not end.
    #[error("the credential helper {} did not end within {seconds} s ({act})", Foreign(helper))]
    Slow {
        /// The program.
        helper: String,
        /// What it was asked to do.
        act: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It says no, or is not spoken with.
    #[error("the credential helper {} fails ({act}): {reason}", Foreign(helper))]
    Failed {
        /// The program.
        helper: String,
        /// What it was asked to do.
        act: &'static str,
        /// How it ended, or the system's error.
        reason: String,
    },
    /// What it gives is no login.
    #[error("the credential helper {} gives no login", Foreign(helper))]
    Answer {
        /// The program.
        helper: String,
    },
}

impl HelperError {
    /// What the operator can do.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Name { .. } => "write NAME for a program docker-credential-NAME on the path".to_owned(),
            Self::Start { helper, .. } => {
                format!("install {}, or take it out of Docker's configuration file", Foreign(helper))
            }
            Self::Slow { helper, .. } | Self::Failed { helper, .. } | Self::Answer { helper } => {
                format!("see what it says: {} list", Foreign(helper))
            }
        }
    }
}
