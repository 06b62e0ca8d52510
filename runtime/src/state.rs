//! What this installation knows of its boxes: one SQLite database, written by commands and supervisors alike.
//!
//! A record says `running` or `paused` only while a supervisor holds the lock of the box; [`State::reconcile`] mends records of
//! supervisors that died. Trusts: the lock. Never: believes a process id.

use std::path::Path;
use std::time::Duration;

use coffer_rim::failure::DISK_FULL;
use coffer_rim::{Class, Failure, Reason};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use crate::boxes::{BoxOptions, Timings};
use crate::home::Home;
use crate::id::BoxId;
use crate::lock::BoxLock;
use crate::monitor::Isolation;
use crate::volumes::Volumes;

/// Why the database does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// SQLite says no.
    #[error("box database")]
    Database(#[from] rusqlite::Error),
    /// Two first uses cannot take turns.
    #[error("box database cannot be locked")]
    Lock(#[source] std::io::Error),
    /// A later version of ours made it.
    #[error("box database has version {found}, this program reads up to {VERSION}")]
    Newer {
        /// Its version.
        found: i64,
    },
    /// A record is not what we write.
    #[error("box database holds an unreadable {field} for {id}")]
    Record {
        /// Which box.
        id: String,
        /// Which column.
        field: &'static str,
    },
    /// The name is taken.
    #[error("the box name \"/{name}\" is already in use by box \"{holder}\"; remove that box to reuse the name")]
    NameInUse {
        /// Which name.
        name: String,
        /// Who has it.
        holder: BoxId,
    },
    /// No such box.
    #[error("no such box: {0}")]
    Unknown(String),
    /// More than one box.
    #[error("{prefix} is the beginning of {count} box ids")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many fit.
        count: usize,
    },
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let failure = Self::caused(error.class(), &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl StateError {
    /// What kind it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Unknown(_) => Class::NotFound,
            Self::Ambiguous { .. } => Class::Usage,
            _ => Class::Config,
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            _ if self.is_disk_full() => Some(DISK_FULL.into()),
            Self::Ambiguous { .. } => Some("give more digits of the id".into()),
            Self::Newer { .. } => Some("use the version of coffer that made it, or another --home".into()),
            _ => None,
        }
    }

    /// SQLite found no room. It calls that an I/O error where it grows its shared memory (SQLITE_IOERR_SHMSIZE).
    fn is_disk_full(&self) -> bool {
        let Self::Database(error) = self else { return false };
        error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            || error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
    }
}

/// A database error as a failure.
#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
pub fn of_state(error: StateError) -> Failure {
    error.into()
}

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

/// The open database.
#[derive(Debug)]
pub struct State {
    db: Connection,
}

/// Of what [`STEPS`] make.
const VERSION: i64 = 3;

/// From each version to the next; an empty database is of version 0.
const STEPS: [&str; 3] = [
    "create table boxes (
        id text primary key, name text not null unique, image text not null, state text not null,
        supervisor_pid integer, vmm_pid integer,
        created integer not null, started integer, finished integer,
        exit_code integer, error text, options text not null, timings text not null
    ) strict;",
    "alter table boxes add column reason text;
    create table removed (
        id text primary key, name text not null, image text not null, state text not null,
        supervisor_pid integer, vmm_pid integer,
        created integer not null, started integer, finished integer,
        exit_code integer, error text, options text not null, timings text not null, reason text
    ) strict;",
    "alter table boxes add column restarts integer not null default 0;
    alter table boxes add column by_hand integer not null default 0;
    alter table removed add column restarts integer not null default 0;
    alter table removed add column by_hand integer not null default 0;",
];

const COLUMNS: &str =
    "id, name, image, state, supervisor_pid, vmm_pid, created, started, finished, exit_code, error, options,
    timings, reason, restarts, by_hand";

/// So many boxes that `--rm` took are still known.
const REMEMBERED: u32 = 100;

impl State {
    /// Opens or makes the database of a home.
    ///
    /// # Errors
    /// [`StateError::Database`].
    pub fn open(home: &Home) -> Result<Self, StateError> {
        Self::open_file(&home.database())
    }

    fn open_file(path: &Path) -> Result<Self, StateError> {
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_secs(10))?;
        if !is_ready(&db)? {
            // SQLite does not wait for others when it switches to write-ahead logging: two first uses would fail.
            let folder = path.parent().unwrap_or(Path::new("."));
            let lock = std::fs::File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
            let _lock = lock.map_err(StateError::Lock)?;
            if !is_ready(&db)? {
                db.pragma_update(None, "journal_mode", "wal")?;
                bring_up_to_date(&db)?;
            }
        }
        db.pragma_update(None, "synchronous", "normal")?;
        Ok(Self { db })
    }

    /// Records a new box.
    ///
    /// # Errors
    /// [`StateError::NameInUse`] if another box has the name.
    pub fn add(&self, record: &BoxRecord) -> Result<(), StateError> {
        let (options, timings) = (json(&record.options), json(&record.timings));
        let added = self.db.execute(
            "insert into boxes (id, name, image, state, created, options, timings) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                record.id.as_str(),
                record.name,
                record.image,
                record.state.word(),
                record.created,
                options,
                timings
            ],
        );
        added.map(drop).or_else(|error| self.name_in_use(&record.name, error))
    }

    /// A box is called otherwise from now on.
    ///
    /// # Errors
    /// [`StateError::NameInUse`] if another box has the name, [`StateError::Unknown`] if there is no such box.
    pub fn rename(&self, id: &BoxId, name: &str) -> Result<(), StateError> {
        match self.db.execute("update boxes set name = ?2 where id = ?1", params![id.as_str(), name]) {
            Ok(1) => Ok(()),
            Ok(_) => Err(StateError::Unknown(id.to_string())),
            Err(error) => self.name_in_use(name, error),
        }
    }

    /// Who has the name, where that is what the database refused.
    fn name_in_use(&self, name: &str, error: rusqlite::Error) -> Result<(), StateError> {
        if error.sqlite_error_code() != Some(rusqlite::ErrorCode::ConstraintViolation) {
            return Err(error.into());
        }
        let holder: Option<String> =
            self.db.query_row("select id from boxes where name = ?1", [name], |row| row.get(0)).optional()?;
        match holder.and_then(|id| BoxId::try_from(id).ok()) {
            Some(holder) => Err(StateError::NameInUse { name: name.into(), holder }),
            None => Err(error.into()),
        }
    }

    /// Every box, newest first.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn all(&self) -> Result<Vec<BoxRecord>, StateError> {
        self.list("boxes")
    }

    /// Boxes made with `--rm` that did not come to run their workload, newest first. They are gone: no other box lacks their
    /// name, and nothing but this can be done with them.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn removed(&self) -> Result<Vec<BoxRecord>, StateError> {
        self.list("removed")
    }

    fn list(&self, table: &str) -> Result<Vec<BoxRecord>, StateError> {
        let mut query = self.db.prepare(&format!("select {COLUMNS} from {table} order by created desc, id"))?;
        let rows = query.query_map([], raw)?;
        rows.map(|row| row.map_err(StateError::from).and_then(record)).collect()
    }

    /// The box of this name, id or unique beginning of an id.
    ///
    /// # Errors
    /// [`StateError::Unknown`] or [`StateError::Ambiguous`].
    pub fn find(&self, word: &str) -> Result<BoxRecord, StateError> {
        among(self.all()?, word)
    }

    /// The box of this name, id or unique beginning of an id; where there is none, the newest of those that `--rm` took.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_even_removed(&self, word: &str) -> Result<BoxRecord, StateError> {
        match self.find(word) {
            Err(StateError::Unknown(_)) => among(self.removed()?, word),
            found => found,
        }
    }

    /// The box of this id.
    ///
    /// # Errors
    /// [`StateError::Unknown`].
    pub fn box_of(&self, id: &BoxId) -> Result<BoxRecord, StateError> {
        let found =
            self.db.query_row(&format!("select {COLUMNS} from boxes where id = ?1"), [id.as_str()], raw).optional()?;
        found.map(record).transpose()?.ok_or_else(|| StateError::Unknown(id.to_string()))
    }

    /// A supervisor runs the box's guest, whose process is `vmm_pid`. Said by the holder of the box's lock, once all else
    /// stands.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Unknown`] if the box was removed meanwhile.
    pub fn started(
        &self,
        id: &BoxId,
        supervisor_pid: u32,
        vmm_pid: Option<u32>,
        timings: &Timings,
        now: i64,
    ) -> Result<(), StateError> {
        let changed = self.db.execute(
            "update boxes set state = 'running', supervisor_pid = ?2, vmm_pid = ?3, timings = ?4, started = ?5,
             finished = null, exit_code = null, error = null, reason = null where id = ?1",
            params![id.as_str(), supervisor_pid, vmm_pid, json(timings), now],
        )?;
        if changed == 1 { Ok(()) } else { Err(StateError::Unknown(id.to_string())) }
    }

    /// What the last start took so far.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set_timings(&self, id: &BoxId, timings: &Timings) -> Result<(), StateError> {
        self.db.execute("update boxes set timings = ?2 where id = ?1", params![id.as_str(), json(timings)])?;
        Ok(())
    }

    /// A box that does not run is isolated otherwise from now on.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set_isolation(&self, id: &BoxId, isolation: Isolation) -> Result<(), StateError> {
        // That option alone: its policy may change at the same time.
        let changed = self.db.execute(
            "update boxes set options = json_set(options, '$.isolation', json(?2))
             where id = ?1 and state not in ('running', 'paused', 'restarting')",
            params![id.as_str(), json(&isolation)],
        )?;
        if changed == 1 { Ok(()) } else { Err(StateError::Unknown(id.to_string())) }
    }

    /// The box that runs is paused, or goes on. Said by the holder of the box's lock, once it is so.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Unknown`] if the record does not say the other.
    pub fn set_paused(&self, id: &BoxId, paused: bool) -> Result<(), StateError> {
        let (from, to) =
            if paused { (BoxState::Running, BoxState::Paused) } else { (BoxState::Paused, BoxState::Running) };
        let changed = self.db.execute(
            "update boxes set state = ?3 where id = ?1 and state = ?2",
            params![id.as_str(), from.word(), to.word()],
        )?;
        if changed == 1 { Ok(()) } else { Err(StateError::Unknown(id.to_string())) }
    }

    /// The box ended.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn ended(&self, id: &BoxId, how: &Ending<'_>, now: i64) -> Result<(), StateError> {
        let Ending { exit_code, error, reason } = how;
        self.db.execute(
            "update boxes set state = 'exited', supervisor_pid = null, vmm_pid = null, finished = ?4, exit_code = ?2,
             error = ?3, reason = ?5 where id = ?1",
            params![id.as_str(), exit_code, error, now, reason.map(json)],
        )?;
        Ok(())
    }

    /// A box of `--rm` ended without having run its workload: it goes, and why is kept.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn remove_and_remember(&self, id: &BoxId, how: &Ending<'_>, now: i64) -> Result<(), StateError> {
        let all = self.db.unchecked_transaction()?;
        self.ended(id, how, now)?;
        self.db.execute("update boxes set state = 'removed' where id = ?1", [id.as_str()])?;
        let keep = format!("insert or replace into removed ({COLUMNS}) select {COLUMNS} from boxes where id = ?1");
        self.db.execute(&keep, [id.as_str()])?;
        self.remove(id)?;
        self.db.execute(
            "delete from removed where id not in (select id from removed order by finished desc, id limit ?1)",
            [REMEMBERED],
        )?;
        Ok(all.commit()?)
    }

    /// Forgets the box.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn remove(&self, id: &BoxId) -> Result<(), StateError> {
        self.db.execute("delete from boxes where id = ?1", [id.as_str()])?;
        Ok(())
    }

    /// Mends the records of boxes whose supervisor died: they have exited with 137, and those made with `--rm` go.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn reconcile(&self, home: &Home, now: i64) -> Result<(), StateError> {
        for found in self.all()? {
            let Some(pid) = found.supervisor_pid.filter(|_| found.state.is_up()) else { continue };
            let folder = home.box_folder(&found.id);
            if BoxLock::is_held(&folder) {
                continue;
            }
            // The supervisor may have ended in good order since we read: only the record we read is mended.
            let mended = self.db.execute(
                "update boxes set state = 'exited', supervisor_pid = null, vmm_pid = null, finished = ?3,
                 exit_code = case when state = 'restarting' then exit_code else 137 end,
                 error = 'supervisor died' where id = ?1 and state in ('running', 'paused', 'restarting')
                 and supervisor_pid = ?2",
                params![found.id.as_str(), pid, now],
            )?;
            if mended == 1 {
                crate::boxes::clean_run_files(&folder);
                if found.options.remove {
                    let _ = std::fs::remove_dir_all(&folder);
                    let _ = self.remove_anonymous(&Volumes::at(home.volumes()), &found);
                    self.remove(&found.id)?;
                }
            }
        }
        Ok(())
    }
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

fn among(boxes: Vec<BoxRecord>, word: &str) -> Result<BoxRecord, StateError> {
    let word_name = word.strip_prefix('/').unwrap_or(word);
    if let Some(found) = boxes.iter().find(|b| b.name == word_name || b.id.as_str() == word) {
        return Ok(found.clone());
    }
    let mut fitting: Vec<_> =
        boxes.into_iter().filter(|b| !word.is_empty() && b.id.as_str().starts_with(word)).collect();
    match (fitting.len(), fitting.pop()) {
        (1, Some(found)) => Ok(found),
        (0, _) => Err(StateError::Unknown(word.into())),
        (count, _) => Err(StateError::Ambiguous { prefix: word.into(), count }),
    }
}

/// Takes the steps that the database lacks, all of them or none.
fn bring_up_to_date(db: &Connection) -> Result<(), StateError> {
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let steps = STEPS.iter().skip(usize::try_from(found).unwrap_or(0)).copied().collect::<Vec<_>>().concat();
    db.execute_batch(&format!("begin immediate; {steps} pragma user_version = {VERSION}; commit;"))?;
    Ok(())
}

/// The database was made and is of our version.
fn is_ready(db: &Connection) -> Result<bool, StateError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        return Err(StateError::Newer { found: version });
    }
    let mode: String = db.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    Ok(version == VERSION && mode == "wal")
}

struct Raw {
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
    stopped_by_hand: bool,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
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
        stopped_by_hand: row.get(15)?,
    })
}

fn record(raw: Raw) -> Result<BoxRecord, StateError> {
    let unreadable = |field| StateError::Record { id: raw.id.clone(), field };
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
        stopped_by_hand: raw.stopped_by_hand,
    })
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

mod restarts;
#[cfg(test)]
pub(crate) mod tests;
mod volumes;
