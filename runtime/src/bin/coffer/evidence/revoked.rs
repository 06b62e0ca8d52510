//! An operator's list of what is revoked, as the commands that give a new date ask it.

use std::path::{Path, PathBuf};

use clap::Args;
use coffer_rim::{Reason, input};
use coffer_verifier::UnixTime;
use coffer_verifier::manifest::Revocations;

use crate::error::{self, Class, Classify as _, CliError};

/// What is endorsed, where it goes, and which list is asked before.
#[derive(Debug, Args)]
pub struct Endorsing {
    /// What is signed already.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Private key that endorses, from `keygen`.
    #[arg(long, value_name = "KEY")]
    pub sign: PathBuf,
    /// Public key that FILE is believed for now, PEM; repeatable [default: that of --sign].
    #[arg(long, value_name = "PEM")]
    pub key: Vec<PathBuf>,
    /// File to write, whole or not at all; one that is there must be signed by --sign [default: FILE].
    #[arg(long, value_name = "OUT")]
    out: Option<PathBuf>,
    /// What is revoked, TOML: `until`, `manifests`, `measurements`, `workloads`, `components`, `policies`.
    #[arg(long, value_name = "LIST", required_unless_present = "no_revocation_list")]
    pub revoked: Option<PathBuf>,
    /// Ask no revocation list of your own. The answer says so.
    #[arg(long, conflicts_with = "revoked")]
    no_revocation_list: bool,
}

impl Endorsing {
    /// The file that is written.
    pub fn out(&self) -> &Path {
        self.out.as_ref().unwrap_or(&self.file)
    }

    /// What lies where it goes, and must be the last endorsement. It may be FILE itself: in the place of what its author signed, an
    /// endorsement would leave nothing to endorse the next time.
    pub fn before(&self) -> Option<&Path> {
        Some(self.out()).filter(|out| out.exists())
    }

    /// What a person is told where no list was asked.
    pub fn print_waived(&self) {
        if self.revoked.is_none() {
            println!("waived    a revocation list of your own");
        }
    }
}

/// Reads one whose time is not over.
pub fn read(path: &Path, now: UnixTime) -> Result<Revocations, CliError> {
    let text = input::read_text(path, input::DOCUMENT)
        .class_while(Class::Config, format!("cannot read {}", path.display()))?;
    let list = Revocations::from_toml(&text).class_while(Class::Config, path.display())?;
    if list.is_over(now) {
        let message = format!("the time of {} is over: it says nothing of what was found since", path.display());
        return Err(CliError::new(Class::Config, message).hint("look at it, and give it another `until`"));
    }
    if list.is_empty() {
        error::warn(&format!(
            "{}: the list names no manifest, measurement, workload, component or policy: whatever is signed is endorsed",
            path.display()
        ));
    }
    Ok(list)
}

/// The failure of something that is revoked.
pub fn refused(message: String) -> CliError {
    because("revoked", message)
}

/// The failure of something older than what lies where the endorsement goes: a date of today would bring it back.
pub fn goes_back(message: String) -> CliError {
    because("older-release", message)
        .hint("endorse the newest one; to go back on purpose its author signs what shall count as a new one")
}

fn because(code: &str, message: String) -> CliError {
    let mut failure = CliError::new(Class::Refused, message);
    failure.reason = Some(Reason { code: code.to_owned(), denial_id: None });
    failure
}
