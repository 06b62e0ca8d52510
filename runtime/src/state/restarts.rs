//! What is recorded of starts that nobody asked for by hand, and of stops that somebody did.

use rusqlite::params;
use serde_json::Map;

use super::record::{UNSENT, json};
use super::{Ending, State, StateError};
use crate::id::BoxId;
use crate::process::Process;
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

    /// This process is about to send the signal that stops the box: a stop by hand, unless it turns out not to be sent
    /// ([`Self::signalled`]) or the process ends before that is known.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn about_to_signal(&self, id: &BoxId) -> Result<(), StateError> {
        self.to_be_signalled_by(id, Process::this().as_ref())
    }

    fn to_be_signalled_by(&self, id: &BoxId, sender: Option<&Process>) -> Result<(), StateError> {
        self.db.execute(
            "update boxes set by_hand = ?2, sender = ?3 where id = ?1 and by_hand in (0, ?2)",
            params![id.as_str(), UNSENT, sender.map(ToString::to_string)],
        )?;
        Ok(())
    }

    /// It was sent, or was not: then only what somebody else said meanwhile, or before, is a stop by hand.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn signalled(&self, id: &BoxId, sent: bool) -> Result<(), StateError> {
        if sent {
            return self.by_hand(id, true);
        }
        self.db.execute(
            "update boxes set by_hand = 0 where id = ?1 and by_hand = ?2 and sender is ?3",
            params![id.as_str(), UNSENT, Process::this().map(|this| this.to_string())],
        )?;
        Ok(())
    }

    /// The box ended and is to be started again by the supervisor that holds its lock.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Unknown`] if the box was removed meanwhile.
    pub fn restarting(&self, id: &BoxId, pid: u32, how: &Ending<'_>, now: i64) -> Result<(), StateError> {
        let Ending { exit_code, error, reason } = how;
        let all = self.change()?;
        let changed = self.db.execute(
            "update boxes set state = 'restarting', supervisor_pid = ?6, vmm_pid = null, finished = ?4, exit_code = ?2,
             error = ?3, reason = ?5, restarts = restarts + 1 where id = ?1",
            params![id.as_str(), exit_code, error, now, reason.map(json), pid],
        )?;
        if changed != 1 {
            return Err(StateError::Unknown(id.to_string()));
        }
        self.tell_end(id, how);
        Ok(all.commit()?)
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
        let all = self.change()?;
        // In one statement: a start may change another option at the same time.
        let changed = self.db.execute(
            "update boxes set options = json_set(options, '$.restart', json(?2)) where id = ?1",
            params![id.as_str(), json(&policy)],
        )?;
        if changed != 1 {
            return Err(StateError::Unknown(id.to_string()));
        }
        self.tell_of(id, "box.update", Map::from_iter([("restart".to_owned(), policy.to_string().into())]))?;
        Ok(all.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{home, made, started};
    use super::*;
    use crate::lock::BoxLock;
    use crate::monitor::Isolation;
    use crate::process::tests::child;
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

    #[test]
    fn a_signal_that_was_not_sent_is_no_stop_and_takes_no_other_stop_away() {
        let (_dir, home) = home();
        let state = State::open(&home).unwrap();
        let record = made(&home, "web");
        state.add(&record).unwrap();
        let by_hand = || state.find("web").unwrap().stopped_by_hand;
        state.about_to_signal(&record.id).unwrap();
        assert!(by_hand(), "until it is known");
        state.signalled(&record.id, false).unwrap();
        assert!(!by_hand());
        // Another one, that is sent, beside it.
        state.about_to_signal(&record.id).unwrap();
        state.signalled(&record.id, false).unwrap();
        state.signalled(&record.id, true).unwrap();
        assert!(by_hand());
        // A stop before it, and one beside it.
        state.about_to_signal(&record.id).unwrap();
        state.signalled(&record.id, false).unwrap();
        assert!(by_hand());
        state.by_hand(&record.id, false).unwrap();
        state.about_to_signal(&record.id).unwrap();
        state.by_hand(&record.id, true).unwrap();
        state.signalled(&record.id, false).unwrap();
        assert!(by_hand());
    }

    #[test]
    fn a_signal_whose_sender_was_killed_is_no_stop() {
        let (_dir, home) = home();
        let state = State::open(&home).unwrap();
        let record = made(&home, "web");
        state.add(&record).unwrap();
        let by_hand = || state.find("web").unwrap().stopped_by_hand;
        let (mut child, sender) = child();
        state.to_be_signalled_by(&record.id, Some(&sender)).unwrap();
        assert!(by_hand(), "it may be sent any moment");
        // Another that sends none says nothing of this one.
        state.signalled(&record.id, false).unwrap();
        assert!(by_hand());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!by_hand());
        // Nor does it stand in another's way.
        state.about_to_signal(&record.id).unwrap();
        assert!(by_hand());
        // A stop is one whoever lives.
        state.signalled(&record.id, true).unwrap();
        state.to_be_signalled_by(&record.id, Some(&sender)).unwrap();
        assert!(by_hand());
    }

    #[test]
    fn another_isolation_and_another_policy_take_nothing_from_each_other() {
        let (_dir, home) = home();
        let state = State::open(&home).unwrap();
        let record = made(&home, "web");
        state.add(&record).unwrap();
        // A start read its record before the policy changed.
        let read = state.find("web").unwrap();
        state.set_restart_policy(&record.id, RestartPolicy::Always).unwrap();
        state.set_isolation(&read.id, Isolation::Process).unwrap();
        let options = state.find("web").unwrap().options;
        assert_eq!((options.restart, options.isolation), (RestartPolicy::Always, Isolation::Process));
        let before =
            crate::boxes::BoxOptions { restart: read.options.restart, isolation: read.options.isolation, ..options };
        assert_eq!(before, read.options);
        started(&state, &record, 5);
        assert!(state.set_isolation(&record.id, Isolation::Qemu).is_err(), "it is up");
    }
}
