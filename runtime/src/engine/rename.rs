//! Gives a box another name.

use super::{Engine, Fault, Hint, OpenError};
use crate::Class;
use crate::id::{NameError, check_name};
use crate::state::StateError;

/// Why a box keeps its name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenameError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It has it already.
    #[error("the box is called {0} already")]
    Same(String),
    /// Another box has it.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Fault for RenameError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Name(_) | Self::Same(_) => Class::Usage,
            Self::State(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::State(error) => Fault::hint(error),
            Self::Name(_) | Self::Same(_) => None,
        }
    }
}

impl Engine {
    /// Gives a box another name, also while it runs.
    ///
    /// # Errors
    /// [`RenameError`]; it keeps the one it has then.
    pub fn rename(&self, word: &str, name: &str) -> Result<(), RenameError> {
        let record = self.find(word)?;
        check_name(name)?;
        if record.name == name {
            return Err(RenameError::Same(record.name));
        }
        Ok(self.state()?.rename(&record.id, name)?)
    }
}
