//! Lists boxes.

use super::{Engine, OpenError};
use crate::health::{Health, HealthStatus};
use crate::lock::BoxLock;
use crate::publish::Publish;
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
    /// Labels, each with its value or with any. All of them are wanted.
    pub labels: Vec<(String, Option<String>)>,
    /// Exit codes of boxes that have ended.
    pub exits: Vec<i32>,
    /// Images: names as they are typed, or beginnings of ids.
    pub images: Vec<String>,
    /// Made before this box.
    pub before: Option<String>,
    /// Made after this box.
    pub since: Option<String>,
    /// Published ports.
    pub ports: Vec<Port>,
    /// Networks.
    pub networks: Vec<String>,
    /// Health; `None` of those at which nobody looks.
    pub healths: Vec<Option<HealthStatus>>,
}

/// Which published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// One of the host's.
    OfHost(u16),
    /// One of the box's.
    OfBox(u16),
}

impl Port {
    fn is(self, publish: &Publish) -> bool {
        match self {
            Self::OfHost(port) => publish.host.port() == port,
            Self::OfBox(port) => publish.port() == Some(port),
        }
    }
}

impl Filter {
    /// True if the box is wanted, as far as it says that by itself.
    pub fn admits(&self, found: &BoxRecord) -> bool {
        let any = |values: &[String], fits: &dyn Fn(&str) -> bool| {
            values.is_empty() || values.iter().any(|value| fits(value.as_str()))
        };
        let options = &found.options;
        let labelled = |(key, wanted): &(String, Option<String>)| {
            options.labels.get(key).is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
        };
        any(&self.names, &|text| found.name.contains(text))
            && any(&self.ids, &|prefix| found.id.as_str().starts_with(prefix))
            && any(&self.images, &|image| is_image(found, image))
            && (self.states.is_empty() || self.states.contains(&found.state))
            && self.labels.iter().all(labelled)
            && (self.networks.is_empty()
                || options
                    .networks
                    .iter()
                    .any(|place| self.networks.iter().any(|wanted| *wanted == place.name.as_str())))
            && (self.exits.is_empty() || found.exit_code.is_some_and(|code| self.exits.contains(&code)))
            && (self.ports.is_empty()
                || self.ports.iter().any(|port| options.publish.iter().any(|publish| port.is(publish))))
    }
}

/// Made from the image of this name or id; without a tag, whatever its tag.
fn is_image(found: &BoxRecord, wanted: &str) -> bool {
    let plain = |name: &str| {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name).to_owned()
    };
    let (has, wanted_name) = (plain(&found.image), plain(wanted));
    let digest = &found.options.image_digest;
    let is_id = |wanted: &str| wanted.len() >= 4 && digest.trim_start_matches("sha256:").starts_with(wanted);
    has == wanted_name
        || has.strip_prefix(wanted_name.as_str()).is_some_and(|rest| rest.starts_with([':', '@']))
        || wanted_name.strip_suffix(":latest") == Some(has.as_str())
        || is_id(wanted.trim_start_matches("sha256:"))
}

impl Engine {
    /// The boxes that a filter admits, newest first.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::is_unknown`] where a box that others are to be older or newer than is none.
    pub fn list(&self, filter: &Filter) -> Result<Vec<BoxRecord>, OpenError> {
        let made = |word: &Option<String>| {
            word.as_ref().map(|word| self.find(word).map(|found| (found.created, found.id))).transpose()
        };
        let (before, since) = (made(&filter.before)?, made(&filter.since)?);
        let state = self.state()?;
        // Whoever wants those that are gone names them.
        let mut boxes = if filter.states.contains(&BoxState::Removed) { state.removed()? } else { Vec::new() };
        boxes.extend(state.all()?);
        boxes.sort_by(|one, other| other.created.cmp(&one.created).then_with(|| one.id.cmp(&other.id)));
        let is_well = |found: &BoxRecord| {
            filter.healths.is_empty() || filter.healths.contains(&self.health(found).map(|health| health.status))
        };
        boxes.retain(|found| {
            filter.admits(found)
                && is_well(found)
                && before.as_ref().is_none_or(|(created, id)| found.created < *created && found.id != *id)
                && since.as_ref().is_none_or(|(created, id)| found.created > *created && found.id != *id)
        });
        Ok(boxes)
    }

    /// Health of a box that runs and is looked at. One that cannot be read is starting: it is written at each look.
    pub fn health(&self, record: &BoxRecord) -> Option<Health> {
        record.options.health.as_ref().filter(|_| record.state.is_up())?;
        Some(Health::read(&self.home().ok()?.box_folder(&record.id)).unwrap_or_default())
    }

    /// A supervisor has it: it runs, or is just being started, which its record does not say yet.
    pub(super) fn is_busy(&self, record: &BoxRecord) -> Result<bool, OpenError> {
        Ok(record.state.is_up() || BoxLock::is_held(&self.home()?.box_folder(&record.id)))
    }
}
