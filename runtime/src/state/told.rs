//! What happens to boxes, as the trail of the home has it. Written before the change is committed: a line may tell of what was then not
//! done because the writer was killed; nothing is done that no line tells of.

use serde_json::{Map, Value, json};

use super::{BoxRecord, Ending, State, StateError};
use crate::health::HealthStatus;
use crate::id::BoxId;
use crate::trail::{Act, LineBox, OF_BOXES, Outcome};

impl State {
    /// Waits until what the trail tells of is recorded.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn settled(&self) -> Result<(), StateError> {
        // Lines are written by whoever holds this.
        Ok(self.change()?.commit()?)
    }

    /// A box that runs has another health.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn tell_health(&self, id: &BoxId, status: HealthStatus) -> Result<(), StateError> {
        let all = self.change()?;
        self.tell_of(id, "box.health", Map::from_iter([("health".to_owned(), status.word().into())]))?;
        Ok(all.commit()?)
    }

    /// What happens to a box, with what it is found by.
    pub(super) fn tell(&self, record: &BoxRecord, action: &str, details: Map<String, Value>) -> Result<(), StateError> {
        debug_assert!(OF_BOXES.contains(&action), "{action}");
        let BoxRecord { id, name, image, options, .. } = record;
        let mut act = Act::new(action, Outcome::Done);
        act.boxes.push(LineBox { id: id.to_string(), name: name.clone() });
        act.details = Map::from_iter([("image".to_owned(), image.clone().into())]);
        if !options.labels.is_empty() {
            act.details.insert("labels".into(), json!(options.labels));
        }
        if matches!(action, "box.start" | "box.die") && !options.networks.is_empty() {
            let names: Vec<_> = options.networks.iter().map(|place| place.name.as_str()).collect();
            act.details.insert("networks".into(), names.into());
        }
        act.details.extend(details);
        self.trail.add(&act)?;
        Ok(())
    }

    /// The same of the box of this id, as it is by now.
    pub(super) fn tell_of(&self, id: &BoxId, action: &str, details: Map<String, Value>) -> Result<(), StateError> {
        self.tell(&self.box_of(id)?, action, details)
    }

    /// A box ended. That is so, whether it can be told or not.
    pub(super) fn tell_end(&self, id: &BoxId, how: &Ending<'_>) {
        let mut details = Map::from_iter([("exit_code".to_owned(), Value::from(how.exit_code))]);
        details.extend(how.error.map(|error| ("error".to_owned(), error.into())));
        details.extend(how.reason.map(|reason| ("reason".to_owned(), json!(reason))));
        if let Err(error) = self.tell_of(id, "box.die", details) {
            tracing::warn!(%id, error = &error as &dyn std::error::Error, "the end of a box is not in the trail");
        }
    }
}
