//! What is recorded of starts that nobody asked for by hand, and of stops that somebody did.

use rusqlite::params;

use super::{Ending, State, StateError, json};
use crate::id::BoxId;
use crate::restart_policy::RestartPolicy;

impl State {
    /// Somebody wants the box stopped, or started, by hand. A start also begins to count anew.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn by_hand(&self, id: &BoxId, stopped: bool) -> Result<(), StateError> {
        self.db.execute(
            "update boxes set by_hand = ?2, restarts = case when ?2 then restarts else 0 end where id = ?1",
            params![id.as_str(), stopped],
        )?;
        Ok(())
    }

    /// The box ended and is to be started again by the supervisor that holds its lock.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Unknown`] if the box was removed meanwhile.
    pub fn restarting(&self, id: &BoxId, pid: u32, how: &Ending<'_>, now: i64) -> Result<(), StateError> {
        let Ending { exit_code, error, reason } = how;
        let changed = self.db.execute(
            "update boxes set state = 'restarting', supervisor_pid = ?6, vmm_pid = null, finished = ?4, exit_code = ?2,
             error = ?3, reason = ?5, restarts = restarts + 1 where id = ?1",
            params![id.as_str(), exit_code, error, now, reason.map(json), pid],
        )?;
        if changed == 1 { Ok(()) } else { Err(StateError::Unknown(id.to_string())) }
    }

    /// The box that was to be started again is not: it has ended as it last ended.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn given_up(&self, id: &BoxId) -> Result<(), StateError> {
        self.db.execute(
            "update boxes set state = 'exited', supervisor_pid = null where id = ?1 and state = 'restarting'",
            [id.as_str()],
        )?;
        Ok(())
    }

    /// The box has another policy from now on, whether it runs or not.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Unknown`] if there is no such box.
    pub fn set_restart_policy(&self, id: &BoxId, policy: RestartPolicy) -> Result<(), StateError> {
        // In one statement: a start may write the options at the same time.
        let changed = self.db.execute(
            "update boxes set options = json_set(options, '$.restart', ?2) where id = ?1",
            params![id.as_str(), policy.to_string()],
        )?;
        if changed == 1 { Ok(()) } else { Err(StateError::Unknown(id.to_string())) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{home, made, started};
    use super::*;
    use crate::lock::BoxLock;
    use crate::state::BoxState;

    #[test]
    fn a_box_between_two_runs_is_up_as_long_as_its_supervisor_lives() {
        let (_dir, home) = home();
        let state = State::open(&home).unwrap();
        let record = made(&home, "web");
        state.add(&record).unwrap();
        let lock = BoxLock::take(&home.box_folder(&record.id)).unwrap();
        started(&state, &record, 5);
        state.restarting(&record.id, 1, &Ending { exit_code: 3, ..Ending::default() }, 6).unwrap();
        state.reconcile(&home, 9).unwrap();
        let found = state.find("web").unwrap();
        assert_eq!((found.state, found.exit_code, found.restarts), (BoxState::Restarting, Some(3), 1));
        drop(lock);
        state.reconcile(&home, 9).unwrap();
        let found = state.find("web").unwrap();
        assert_eq!((found.state, found.error.as_deref()), (BoxState::Exited, Some("supervisor died")));
        // Not again: it is no longer between two runs.
        state.given_up(&record.id).unwrap();
        assert_eq!(state.find("web").unwrap(), found);
    }

    #[test]
    fn who_starts_by_hand_counts_anew_and_a_policy_changes_whatever_runs() {
        let (_dir, home) = home();
        let state = State::open(&home).unwrap();
        let record = made(&home, "web");
        state.add(&record).unwrap();
        started(&state, &record, 5);
        state.restarting(&record.id, 1, &Ending::default(), 6).unwrap();
        state.by_hand(&record.id, true).unwrap();
        let found = state.find("web").unwrap();
        assert!(found.stopped_by_hand && found.restarts == 1);
        state.by_hand(&record.id, false).unwrap();
        let found = state.find("web").unwrap();
        assert!(!found.stopped_by_hand && found.restarts == 0);
        for policy in [RestartPolicy::OnFailure(Some(3)), RestartPolicy::No] {
            state.set_restart_policy(&record.id, policy).unwrap();
            let options = state.find("web").unwrap().options;
            assert_eq!(options.restart, policy);
            assert_eq!(crate::boxes::BoxOptions { restart: record.options.restart, ..options }, record.options);
        }
        assert!(state.set_restart_policy(&BoxId::random(), RestartPolicy::No).is_err());
    }
}
