//! Which boxes have which volumes. Said by their records alone.

use coffer_spec::Name;

use super::{BoxRecord, State};
use crate::Failure;
use crate::volumes::{VolumeStoreError, Volumes};

impl State {
    /// Names of the boxes that have a volume.
    ///
    /// # Errors
    /// [`super::StateError`].
    pub fn boxes_with(&self, volume: &Name) -> Result<Vec<String>, super::StateError> {
        let has = |found: &BoxRecord| found.options.data.iter().any(|had| had.name == *volume);
        Ok(self.all()?.into_iter().filter(has).map(|found| found.name).collect())
    }

    /// Takes away the volumes of a box that nobody named and no other box has. The box is one that goes.
    ///
    /// # Errors
    /// Of the last that stays.
    pub fn remove_anonymous(&self, volumes: &Volumes, of: &BoxRecord) -> Result<(), Failure> {
        let mut anonymous = of.options.data.iter().filter(|had| had.anonymous).peekable();
        if anonymous.peek().is_none() {
            return Ok(());
        }
        let guard = volumes.guard()?;
        let mut result = Ok(());
        for had in anonymous {
            if self.boxes_with(&had.name)?.iter().any(|name| *name != of.name) {
                continue;
            }
            match volumes.remove(&guard, &had.name) {
                Ok(()) | Err(VolumeStoreError::Unknown(_)) => {}
                Err(error) => result = Err(error.into()),
            }
        }
        result
    }
}
