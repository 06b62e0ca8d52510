//! An operator's list of what is revoked, as the commands that give a new date ask it.

use std::path::Path;

use coffer_rim::{Reason, input};
use coffer_verifier::UnixTime;
use coffer_verifier::manifest::Revocations;

use crate::error::{Class, Classify as _, CliError};

/// Reads one whose time is not over.
pub fn read(path: &Path, now: UnixTime) -> Result<Revocations, CliError> {
    let text = input::read_text(path, input::DOCUMENT)
        .class_while(Class::Config, format!("cannot read {}", path.display()))?;
    let list = Revocations::from_toml(&text).class_while(Class::Config, path.display())?;
    if list.is_over(now) {
        let message = format!("the time of {} is over: it says nothing of what was found since", path.display());
        return Err(CliError::new(Class::Config, message).hint("look at it, and give it another `until`"));
    }
    Ok(list)
}

/// The failure of something that is revoked.
pub fn refused(message: String) -> CliError {
    let mut failure = CliError::new(Class::Refused, message);
    failure.reason = Some(Reason { code: "revoked".to_owned(), denial_id: None });
    failure
}
