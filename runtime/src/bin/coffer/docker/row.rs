//! A row of the tables of Docker's words.

use crate::error::{Class, CliError};

/// A word of Docker's, and what to do in its place.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its spellings; of a flag with the commands that Docker has it for.
    pub words: &'static [&'static str],
    /// Why it is not here.
    pub why: &'static str,
    /// What to do instead, if there is something.
    pub instead: Option<&'static str>,
}

/// A row without a remedy.
pub const fn no(words: &'static [&'static str], why: &'static str) -> Row {
    Row { words, why, instead: None }
}

/// A row with what to do instead.
pub const fn but(words: &'static [&'static str], why: &'static str, instead: &'static str) -> Row {
    Row { words, why, instead: Some(instead) }
}

impl Row {
    /// The long name of a short flag: it stands behind it.
    pub fn long(&self, given: &str) -> Option<&'static str> {
        let at = self.words.iter().position(|word| *word == given)?;
        self.words.get(at + 1).copied().filter(|long| !given.starts_with("--") && long.starts_with("--"))
    }

    /// What the caller is told. `what`: the word, as it was used.
    pub fn failure(&self, what: &str) -> CliError {
        let failure = CliError::new(Class::Usage, format!("{what}: {}", self.why));
        match self.instead {
            Some(instead) => failure.hint(instead),
            None => failure,
        }
    }
}
