//! What happens to boxes, as a stream: created, started, each phase, paused, going on, exited, removed.
//!
//! Read from the database, which every command and supervisor writes: whoever listens needs no line to either, and misses
//! nothing that lasts. What happened between two looks comes at once, in its order. Of a box that was started twice
//! between two looks, only the last start is seen.
//! Trusts: the database. Never: keeps more than what one look found.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Engine, OpenError};
use crate::boxes::unix_ms;
use crate::id::BoxId;
use crate::state::{BoxRecord, BoxState};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxEvent {
    /// Which box.
    pub id: BoxId,
    /// Its name.
    pub name: String,
    /// What happened.
    pub change: Change,
}

/// What happened to a box.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It is there.
    Created,
    /// A supervisor took it over.
    Started,
    /// Its start reached a phase; its fixed word.
    Phase(String),
    /// No virtual processor of it runs.
    Paused,
    /// They run again.
    Unpaused,
    /// It ended.
    Exited {
        /// With this code.
        code: i32,
        /// Why, where it was not the workload's own doing.
        error: Option<String>,
    },
    /// It is gone.
    Removed,
}

/// The stream. Dropping it ends it.
#[derive(Debug)]
pub struct Events {
    engine: Engine,
    seen: BTreeMap<BoxId, BoxRecord>,
    found: VecDeque<BoxEvent>,
}

impl Engine {
    /// What happens from now on.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn events(&self) -> Result<Events, OpenError> {
        let seen = index(self.state()?.all()?);
        Ok(Events { engine: self.clone(), seen, found: VecDeque::new() })
    }

    /// Mends the records of supervisors that died.
    pub(super) fn mend(&self) -> Result<(), OpenError> {
        let home = self.home()?;
        Ok(self.state()?.reconcile(home, unix_ms())?)
    }
}

impl Events {
    /// Waits for the next event. Looks again a few times per second, and at nothing while nobody waits.
    ///
    /// # Errors
    /// [`OpenError`] if the database does not answer; the stream may be asked again.
    pub async fn next(&mut self) -> Result<BoxEvent, OpenError> {
        loop {
            if let Some(event) = self.found.pop_front() {
                return Ok(event);
            }
            self.look()?;
            if self.found.is_empty() {
                tokio::time::sleep(INTERVAL).await;
            }
        }
    }

    fn look(&mut self) -> Result<(), OpenError> {
        self.engine.mend()?;
        let now = index(self.engine.state()?.all()?);
        self.found.extend(changes(&self.seen, &now));
        self.seen = now;
        Ok(())
    }
}

const INTERVAL: Duration = Duration::from_millis(200);

fn index(boxes: Vec<BoxRecord>) -> BTreeMap<BoxId, BoxRecord> {
    boxes.into_iter().map(|found| (found.id.clone(), found)).collect()
}

/// What happened between two looks, box by box; removals last.
fn changes(before: &BTreeMap<BoxId, BoxRecord>, now: &BTreeMap<BoxId, BoxRecord>) -> Vec<BoxEvent> {
    let mut events = Vec::new();
    for (id, found) in now {
        let mut tell = |change| events.push(BoxEvent { id: id.clone(), name: found.name.clone(), change });
        let old = before.get(id);
        if old.is_none() {
            tell(Change::Created);
        }
        let restarted = found.started.is_some() && old.and_then(|old| old.started) != found.started;
        let same_start = old.filter(|old| old.timings.origin_unix_us == found.timings.origin_unix_us);
        let known = same_start.map_or(0, |old| old.timings.steps.len());
        let mut start = restarted.then_some(found.started.unwrap_or(0));
        for step in found.timings.steps.iter().skip(known) {
            let at_ms = found.timings.origin_unix_us.saturating_add_unsigned(step.at_us) / 1000;
            if start.take_if(|start| *start <= at_ms).is_some() {
                tell(Change::Started);
            }
            tell(Change::Phase(step.phase.clone()));
        }
        if start.is_some() {
            tell(Change::Started);
        }
        match (found.state, old.map(|old| old.state)) {
            (BoxState::Paused, Some(BoxState::Paused)) => {}
            (BoxState::Paused, _) => tell(Change::Paused),
            (BoxState::Running, Some(BoxState::Paused)) if !restarted => tell(Change::Unpaused),
            _ => {}
        }
        let ended = |record: &BoxRecord| matches!(record.state, BoxState::Exited | BoxState::Restarting);
        if ended(found) && (restarted || !old.is_some_and(ended)) {
            tell(Change::Exited { code: found.exit_code.unwrap_or(0), error: found.error.clone() });
        }
    }
    let gone = before.iter().filter(|(id, _)| !now.contains_key(*id));
    events.extend(gone.map(|(id, old)| BoxEvent { id: id.clone(), name: old.name.clone(), change: Change::Removed }));
    events
}
