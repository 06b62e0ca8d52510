//! What this installation knows of its boxes: one SQLite database, written by commands and supervisors alike.
//!
//! A record says `running` or `paused` only while a supervisor holds the lock of the box; [`State::reconcile`] mends records of
//! supervisors that died. What happens to a box goes into the trail of the home as it is recorded here, and not without.
//! Trusts: the lock. Never: believes a process id.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use serde_json::Map;

use crate::boxes::Timings;
use crate::home::Home;
use crate::id::BoxId;
use crate::lock::BoxLock;
use crate::monitor::Isolation;
use crate::removal::remove_folder;
use crate::trail::Trail;
use crate::volumes::Volumes;

pub use error::{StateError, of_state};
pub use record::{BoxRecord, BoxState, Ending};
use record::{COLUMNS, json, raw, record};
use schema::{VERSION, bring_up_to_date};

/// The open database.
#[derive(Debug)]
pub struct State {
    db: Connection,
    trail: Trail,
}

/// So many boxes that `--rm` took are still known.
const REMEMBERED: u32 = 100;

impl State {
    /// Opens or makes the database of a home.
    ///
    /// # Errors
    /// [`StateError::Database`].
    pub fn open(home: &Home) -> Result<Self, StateError> {
        Self::open_file(&home.database(), Trail::at(home.trail()))
    }

    fn open_file(path: &Path, trail: Trail) -> Result<Self, StateError> {
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
        Ok(Self { db, trail })
    }

    /// A change of several steps, all of them or none. Nobody else writes meanwhile.
    fn change(&self) -> Result<Transaction<'_>, StateError> {
        Ok(Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?)
    }

    /// Records a new box.
    ///
    /// # Errors
    /// [`StateError::NameInUse`] if another box has the name.
    pub fn add(&self, record: &BoxRecord) -> Result<(), StateError> {
        let (options, timings) = (json(&record.options), json(&record.timings));
        let all = self.change()?;
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
        match added {
            Ok(_) => self.tell(record, "box.create", Map::new())?,
            Err(error) => return self.name_in_use(&record.name, error),
        }
        Ok(all.commit()?)
    }

    /// A box is called otherwise from now on.
    ///
    /// # Errors
    /// [`StateError::NameInUse`] if another box has the name, [`StateError::Unknown`] if there is no such box.
    pub fn rename(&self, id: &BoxId, name: &str) -> Result<(), StateError> {
        let all = self.change()?;
        let before = self.box_of(id)?.name;
        if let Err(error) = self.db.execute("update boxes set name = ?2 where id = ?1", params![id.as_str(), name]) {
            return self.name_in_use(name, error);
        }
        self.tell_of(id, "box.rename", Map::from_iter([("from".to_owned(), before.into())]))?;
        Ok(all.commit()?)
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
        let all = self.change()?;
        let changed = self.db.execute(
            "update boxes set state = 'running', supervisor_pid = ?2, vmm_pid = ?3, timings = ?4, started = ?5,
             finished = null, exit_code = null, error = null, reason = null where id = ?1",
            params![id.as_str(), supervisor_pid, vmm_pid, json(timings), now],
        )?;
        if changed != 1 {
            return Err(StateError::Unknown(id.to_string()));
        }
        self.tell_of(id, "box.start", Map::new())?;
        Ok(all.commit()?)
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
        let all = self.change()?;
        let changed = self.db.execute(
            "update boxes set state = ?3 where id = ?1 and state = ?2",
            params![id.as_str(), from.word(), to.word()],
        )?;
        if changed != 1 {
            return Err(StateError::Unknown(id.to_string()));
        }
        self.tell_of(id, if paused { "box.pause" } else { "box.unpause" }, Map::new())?;
        Ok(all.commit()?)
    }

    /// The box ended.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn ended(&self, id: &BoxId, how: &Ending<'_>, now: i64) -> Result<(), StateError> {
        let all = self.change()?;
        self.set_ended(id, how, now)?;
        Ok(all.commit()?)
    }

    fn set_ended(&self, id: &BoxId, how: &Ending<'_>, now: i64) -> Result<(), StateError> {
        let Ending { exit_code, error, reason } = how;
        let changed = self.db.execute(
            "update boxes set state = 'exited', supervisor_pid = null, vmm_pid = null, finished = ?4, exit_code = ?2,
             error = ?3, reason = ?5 where id = ?1",
            params![id.as_str(), exit_code, error, now, reason.map(json)],
        )?;
        if changed == 1 {
            self.tell_end(id, how);
        }
        Ok(())
    }

    /// A box of `--rm` ended without having run its workload: it goes, and why is kept.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn remove_and_remember(&self, id: &BoxId, how: &Ending<'_>, now: i64) -> Result<(), StateError> {
        let all = self.change()?;
        self.set_ended(id, how, now)?;
        self.db.execute("update boxes set state = 'removed' where id = ?1", [id.as_str()])?;
        let keep = format!("insert or replace into removed ({COLUMNS}) select {COLUMNS} from boxes where id = ?1");
        self.db.execute(&keep, [id.as_str()])?;
        self.forget(id)?;
        self.db.execute(
            "delete from removed where id not in (select id from removed order by finished desc, id limit ?1)",
            [REMEMBERED],
        )?;
        Ok(all.commit()?)
    }

    /// A box of `--rm` ended, and goes.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn end_and_remove(&self, id: &BoxId, how: &Ending<'_>, now: i64) -> Result<(), StateError> {
        let all = self.change()?;
        self.set_ended(id, how, now)?;
        self.forget(id)?;
        Ok(all.commit()?)
    }

    /// Forgets the box.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn remove(&self, id: &BoxId) -> Result<(), StateError> {
        let all = self.change()?;
        self.forget(id)?;
        Ok(all.commit()?)
    }

    fn forget(&self, id: &BoxId) -> Result<(), StateError> {
        let gone = self
            .db
            .query_row(&format!("delete from boxes where id = ?1 returning {COLUMNS}"), [id.as_str()], raw)
            .optional()?;
        match gone.map(record).transpose()? {
            Some(gone) => self.tell(&gone, "box.destroy", Map::new()),
            None => Ok(()),
        }
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
                let exit_code = if found.state == BoxState::Restarting { found.exit_code.unwrap_or(137) } else { 137 };
                self.tell_end(&found.id, &Ending { exit_code, error: Some("supervisor died"), reason: None });
                crate::boxes::clean_run_files(&folder);
                if found.options.remove {
                    let _ = remove_folder(&folder);
                    let _ = self.remove_anonymous(&Volumes::at(home.volumes()), &found);
                    self.remove(&found.id)?;
                }
            }
        }
        Ok(())
    }
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

/// The database was made and is of our version.
fn is_ready(db: &Connection) -> Result<bool, StateError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        return Err(StateError::Newer { found: version });
    }
    let mode: String = db.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    Ok(version == VERSION && mode == "wal")
}

mod error;
mod networks;
mod record;
mod restarts;
mod schema;
#[cfg(test)]
pub(crate) mod tests;
mod told;
mod volumes;
