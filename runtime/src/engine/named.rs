//! Which of the things that have names and labels are wanted: volumes, networks.

use std::collections::BTreeMap;

use coffer_spec::Name;

/// What is wanted: no value of a kind admits all.
#[derive(Clone, Debug, Default)]
pub struct NamedFilter {
    /// Parts of names.
    pub names: Vec<String>,
    /// Labels, each with its value or with any.
    pub labels: Vec<(String, Option<String>)>,
    /// Whether no box has it.
    pub dangling: Option<bool>,
}

impl NamedFilter {
    /// Of what no box has, the same.
    pub(super) fn unused(&self) -> Self {
        Self { dangling: Some(true), ..self.clone() }
    }

    pub(super) fn admits(&self, name: &Name, labels: &BTreeMap<String, String>, unused: bool) -> bool {
        let labelled = |(key, wanted): &(String, Option<String>)| {
            labels.get(key).is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
        };
        (self.names.is_empty() || self.names.iter().any(|text| name.as_str().contains(text)))
            && self.labels.iter().all(labelled)
            && self.dangling.is_none_or(|dangling| dangling == unused)
    }
}
