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
        Ok(self.with(volume)?.into_iter().map(|found| found.name).collect())
    }

    fn with(&self, volume: &Name) -> Result<Vec<BoxRecord>, super::StateError> {
        let mut all = self.all()?;
        all.retain(|found| found.options.data.iter().any(|had| had.name == *volume));
        Ok(all)
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
            // By its id: it may have another name than when it was read.
            if self.with(&had.name)?.iter().any(|found| found.id != of.id) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::{home, made};
    use super::*;
    use crate::volumes::{BoxVolume, VolumeRecord};

    #[test]
    fn what_nobody_named_goes_with_its_box_whatever_it_is_called_by_then_and_stays_with_another() {
        let (_dir, home) = home();
        let (state, volumes) = (State::open(&home).unwrap(), Volumes::at(home.volumes()));
        let name: Name = "unnamed".parse().unwrap();
        volumes.make(&volumes.guard().unwrap(), &name, &VolumeRecord::new(1, None, true, BTreeMap::new())).unwrap();
        let with = |called: &str| {
            let mut record = made(&home, called);
            record.options.data = vec![BoxVolume { name: name.clone(), read_only: false, anonymous: true }];
            state.add(&record).unwrap();
            record
        };
        let (goes, other) = (with("goes"), with("other"));
        state.rename(&goes.id, "renamed").unwrap();
        state.remove_anonymous(&volumes, &goes).unwrap();
        assert!(volumes.find(&name).is_ok(), "another box has it");
        state.remove(&other.id).unwrap();
        state.remove_anonymous(&volumes, &goes).unwrap();
        assert!(matches!(volumes.find(&name), Err(VolumeStoreError::Unknown(_))));
    }
}
