//! Starts again what a boot ended, and changes what is started again.

use std::time::Duration;

use super::{Engine, Fault, Hint, OpenError, StartError, Started, Wait};
use crate::Class;
use crate::restart_policy::RestartPolicy;
use crate::state::BoxRecord;

/// How long the boxes behind one wait for it: it may need its owner's word before its workload runs.
const PATIENCE: Duration = Duration::from_mins(2);

/// Why a box keeps its policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was made with `--rm`.
    #[error("box {0} is removed when it ends, so that nothing is left of it to start again")]
    Removed(String),
}

impl Fault for UpdateError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Removed(_) => Class::Config,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Removed(_) => None,
        }
    }
}

impl Engine {
    /// The boxes that their policies want started, now that the machine has booted: each has run, and does not.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn to_resume(&self) -> Result<Vec<BoxRecord>, OpenError> {
        let mut boxes = self.state()?.all()?;
        // In the order in which they were made: what others need tends to be older.
        boxes.reverse();
        let mut wanted = Vec::new();
        for found in boxes {
            if self.is_to_resume(&found)? {
                wanted.push(found);
            }
        }
        Ok(wanted)
    }

    fn is_to_resume(&self, found: &BoxRecord) -> Result<bool, OpenError> {
        let policy = found.options.restart;
        let resumes = policy.resumes(found.exit_code.unwrap_or(0), found.restarts, found.stopped_by_hand);
        Ok(found.started.is_some() && resumes && !self.is_busy(found)?)
    }

    /// Starts one of them, unless somebody decided otherwise since, and lets it live on once its workload runs, or where that
    /// takes longer than the others may wait.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn resume(&self, record: &BoxRecord) -> Result<(), StartError> {
        // The ones before it may have taken minutes.
        let now = self.state()?.all().map_err(OpenError::from)?.into_iter().find(|now| now.id == record.id);
        if !now.map(|now| self.is_to_resume(&now)).transpose()?.unwrap_or(false) {
            return Ok(());
        }
        let Started::Live(mut live) = self.start(record.id.as_str(), None).await? else { return Ok(()) };
        match tokio::time::timeout(PATIENCE, live.until_running()).await {
            Err(_) => Ok(live.detach()?),
            Ok(waited) => match waited? {
                Wait::Running => Ok(live.detach()?),
                Wait::Exited(_) => Ok(()),
            },
        }
    }

    /// Gives a box another policy, whether it runs or not. One that is removed at its end has none.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn set_restart_policy(&self, word: &str, policy: RestartPolicy) -> Result<(), UpdateError> {
        let record = self.find(word)?;
        if record.options.remove && policy != RestartPolicy::No {
            return Err(UpdateError::Removed(record.name));
        }
        Ok(self.state()?.set_restart_policy(&record.id, policy).map_err(OpenError::from)?)
    }
}
