//! The end of a run: what is left of it, what is recorded of it, and whether another one follows.

use coffer_rim::{Class, Classify as _, Failure};

use super::{Outcome, Run};
use crate::boxes::{clean_run_files, files, last_line, unix_ms};
use crate::removal::remove_folder;
use crate::state::Ending;
use crate::supervisor::fate::{self, Traces};
use crate::supervisor::message::{Ended, Message};

impl Run {
    /// Removes what only a running box has, records the end of one that ran, and says how it ended, and whether it is to be
    /// started again.
    pub(super) fn conclude(&mut self, outcome: Result<Outcome, Failure>) -> (Message, Result<bool, Failure>) {
        let kept = !self.record.options.remove;
        let (message, ran) = match outcome {
            Err(failure) => (Message::Failed(failure), false),
            Ok(Outcome::NotWanted) => (Message::Failed(fate::not_wanted()), false),
            Ok(Outcome::Ended(end, monitor)) => {
                let console = last_line(&self.folder.join(files::CONSOLE));
                let traces = if kept { Traces::Logs } else { Traces::Nothing(console.as_deref()) };
                (self.fate.conclude(&end, monitor, traces), true)
            }
        };
        clean_run_files(&self.folder);
        let id = &self.record.id;
        if self.restarts(&ending(&message)) {
            let recorded = self.state.restarting(id, std::process::id(), &ending(&message), unix_ms());
            let message = match message {
                Message::Exited(ended) => Message::Restarting(ended),
                other => other,
            };
            return (message, recorded.map(|()| true).map_err(Failure::from));
        }
        let recorded = match (kept, ran) {
            (true, true) => self.state.ended(id, &ending(&message), unix_ms()).map_err(Failure::from),
            // Its record says that it is to be started.
            (true, false) if self.fate.unwanted => self.state.given_up(id).map_err(Failure::from),
            (true, false) if self.follows => self.state.ended(id, &ending(&message), unix_ms()).map_err(Failure::from),
            (true, false) => Ok(()),
            (false, _) => self.remove(ran.then_some(&message)),
        };
        (message, recorded.map(|()| false))
    }

    /// Its policy wants it started again. The first start of all is its caller's: what kept it from its workload is told them.
    fn restarts(&self, how: &Ending<'_>) -> bool {
        let tried = self.fate.ran || self.follows;
        if self.record.options.remove || self.fate.unwanted || !tried {
            return false;
        }
        // As it is now: the policy may be another, and a stop by hand may not have reached us.
        let now = self.state.box_of(&self.record.id);
        now.is_ok_and(|now| !now.stopped_by_hand && now.options.restart.restarts(how.exit_code, now.restarts))
    }

    /// A `--rm` box goes whole. Its record goes last: while there is one, the next command finds it and tries again. Of one whose
    /// guest gave up, why is kept.
    fn remove(&self, message: Option<&Message>) -> Result<(), Failure> {
        remove_folder(&self.folder).class_while(Class::Config, "cannot remove the box")?;
        // One that keeps its name is nobody's, and a prune finds it; one that lost it is removed by who next changes the set.
        let _ = self.state.remove_anonymous(&self.volumes, &self.record);
        let id = &self.record.id;
        match message {
            Some(failed @ Message::Failed(_)) => Ok(self.state.remove_and_remember(id, &ending(failed), unix_ms())?),
            Some(message) => Ok(self.state.end_and_remove(id, &ending(message), unix_ms())?),
            None => Ok(self.state.remove(id)?),
        }
    }
}

fn ending(message: &Message) -> Ending<'_> {
    match message {
        Message::Exited(Ended { code, error }) | Message::Restarting(Ended { code, error }) => {
            Ending { exit_code: *code, error: error.as_deref(), reason: None }
        }
        Message::Failed(failure) => Ending {
            exit_code: i32::from(failure.docker_code.unwrap_or(125)),
            error: Some(&failure.message),
            reason: failure.reason.as_ref(),
        },
        Message::Phase(_) | Message::Log(_) | Message::Lost(_) => Ending { exit_code: 125, error: None, reason: None },
    }
}
