//! One box as recorded: where it is in its life, how it was asked for, how it ended, and the row that says so.

use coffer_rim::Reason;
use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::error::StateError;
use crate::boxes::{BoxOptions, Timings};
use crate::id::BoxId;
use crate::process::Process;

/// Where a box is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxState {
    /// Never started.
    Created,
    /// Supervised.
    Running,
    /// Supervised, and no virtual processor of it runs.
    Paused,
    /// Ended; supervised, and to be started again by itself.
    Restarting,
    /// Ended; there is an exit code.
    Exited,
    /// Being removed, and that failed.
    Dead,
    /// Made with `--rm` and gone, because it did not come to run its workload. Only why is still known.
    Removed,
}

impl BoxState {
    /// The word in tables and filters.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
            Self::Removed => "removed",
        }
    }

    /// From the word.
    pub fn from_word(word: &str) -> Option<Self> {
        let up = [Self::Running, Self::Paused, Self::Restarting];
        let mut all = up.into_iter().chain([Self::Created, Self::Exited, Self::Dead, Self::Removed]);
        all.find(|state| state.word() == word)
    }

    /// Whether a supervisor has it: it runs, is paused, or is to be started again.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// One box as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxRecord {
    /// Id.
    pub id: BoxId,
    /// Name.
    pub name: String,
    /// Image as the user wrote it.
    pub image: String,
    /// Where it is in its life.
    pub state: BoxState,
    /// Supervisor's process id, while running.
    pub supervisor_pid: Option<u32>,
    /// The guest's process id, while running.
    pub vmm_pid: Option<u32>,
    /// Unix milliseconds.
    pub created: i64,
    /// Unix milliseconds of the last start.
    pub started: Option<i64>,
    /// Unix milliseconds of the last end.
    pub finished: Option<i64>,
    /// Exit code of the last run.
    pub exit_code: Option<i32>,
    /// Why the last run ended, where it was not the workload's own doing.
    pub error: Option<String>,
    /// The guest's own word for it, where it gave up before its workload ran.
    pub reason: Option<Reason>,
    /// How it was asked for.
    pub options: BoxOptions,
    /// When what happened in the last start.
    pub timings: Timings,
    /// How often it was started again by itself, since it was last started by hand.
    pub restarts: u32,
    /// Somebody stopped it, and nobody has started it since.
    pub stopped_by_hand: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending<'a> {
    /// With this code.
    pub exit_code: i32,
    /// Why, where it was not the workload's own doing.
    pub error: Option<&'a str>,
    /// The guest's own word for it.
    pub reason: Option<&'a Reason>,
}

pub(super) const COLUMNS: &str =
    "id, name, image, state, supervisor_pid, vmm_pid, created, started, finished, exit_code, error, options,
    timings, reason, restarts, by_hand, sender";

/// In `by_hand`, beside 0 and 1: a stop by a signal of which nobody knows yet whether it was sent. It is read as one as long as
/// `sender` lives, which will say.
pub(super) const UNSENT: i64 = 2;

/// A row as it lies there, in the order of [`COLUMNS`].
pub(super) struct Raw {
    id: String,
    state: String,
    options: String,
    timings: String,
    name: String,
    image: String,
    supervisor_pid: Option<u32>,
    vmm_pid: Option<u32>,
    created: i64,
    started: Option<i64>,
    finished: Option<i64>,
    exit_code: Option<i32>,
    error: Option<String>,
    reason: Option<String>,
    restarts: u32,
    by_hand: i64,
    sender: Option<String>,
}

/// Reads a row.
pub(super) fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        id: row.get(0)?,
        name: row.get(1)?,
        image: row.get(2)?,
        state: row.get(3)?,
        supervisor_pid: row.get(4)?,
        vmm_pid: row.get(5)?,
        created: row.get(6)?,
        started: row.get(7)?,
        finished: row.get(8)?,
        exit_code: row.get(9)?,
        error: row.get(10)?,
        options: row.get(11)?,
        timings: row.get(12)?,
        reason: row.get(13)?,
        restarts: row.get(14)?,
        by_hand: row.get(15)?,
        sender: row.get(16)?,
    })
}

/// What it says, if it is what we write.
pub(super) fn record(raw: Raw) -> Result<BoxRecord, StateError> {
    let unreadable = |field| StateError::Record { id: raw.id.clone(), field };
    let stopped_by_hand = match raw.by_hand {
        0 => false,
        // Who was killed before it could say whether it sent the signal has most likely not.
        UNSENT => raw.sender.as_deref().and_then(|text| text.parse::<Process>().ok()).is_some_and(|it| it.lives()),
        _ => true,
    };
    Ok(BoxRecord {
        id: BoxId::try_from(raw.id.clone()).map_err(|_| unreadable("id"))?,
        state: BoxState::from_word(&raw.state).ok_or_else(|| unreadable("state"))?,
        options: serde_json::from_str(&raw.options).map_err(|_| unreadable("options"))?,
        timings: serde_json::from_str(&raw.timings).map_err(|_| unreadable("timings"))?,
        reason: raw
            .reason
            .as_deref()
            .map(|text| serde_json::from_str(text).map_err(|_| unreadable("reason")))
            .transpose()?,
        name: raw.name,
        image: raw.image,
        supervisor_pid: raw.supervisor_pid,
        vmm_pid: raw.vmm_pid,
        created: raw.created,
        started: raw.started,
        finished: raw.finished,
        exit_code: raw.exit_code,
        error: raw.error,
        restarts: raw.restarts,
        stopped_by_hand,
    })
}

/// As it stands in a column.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}
