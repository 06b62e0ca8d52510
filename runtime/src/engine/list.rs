//! Lists boxes.

use super::{Engine, OpenError};
use crate::state::{BoxRecord, BoxState};

/// Which boxes are wanted. Values of one kind are alternatives, kinds add up; no value of a kind admits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Parts of names.
    pub names: Vec<String>,
    /// Beginnings of ids.
    pub ids: Vec<String>,
    /// States.
    pub states: Vec<BoxState>,
}

impl Filter {
    /// True if the box is wanted.
    pub fn admits(&self, found: &BoxRecord) -> bool {
        let any = |values: &[String], fits: &dyn Fn(&str) -> bool| {
            values.is_empty() || values.iter().any(|value| fits(value.as_str()))
        };
        any(&self.names, &|text| found.name.contains(text))
            && any(&self.ids, &|prefix| found.id.as_str().starts_with(prefix))
            && (self.states.is_empty() || self.states.contains(&found.state))
    }
}

impl Engine {
    /// The boxes that a filter admits, newest first.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn list(&self, filter: &Filter) -> Result<Vec<BoxRecord>, OpenError> {
        let state = self.state()?;
        // Whoever wants those that are gone names them.
        let mut boxes = if filter.states.contains(&BoxState::Removed) { state.removed()? } else { Vec::new() };
        boxes.extend(state.all()?);
        boxes.sort_by(|one, other| other.created.cmp(&one.created).then_with(|| one.id.cmp(&other.id)));
        boxes.retain(|found| filter.admits(found));
        Ok(boxes)
    }
}
