//! Starts again what a boot ended, and changes what is started again.

use std::time::Duration;

use super::{Engine, OpenError, StartError, Started, Wait};
use crate::restart_policy::RestartPolicy;
use crate::state::BoxRecord;

/// How long the boxes behind one wait for it: it may need its owner's word before its workload runs.
const PATIENCE: Duration = Duration::from_mins(2);

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

    /// Gives a box another policy, whether it runs or not.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn set_restart_policy(&self, word: &str, policy: RestartPolicy) -> Result<(), OpenError> {
        let record = self.find(word)?;
        Ok(self.state()?.set_restart_policy(&record.id, policy)?)
    }
}
