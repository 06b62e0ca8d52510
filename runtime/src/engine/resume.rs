//! Starts again what a boot ended, and changes what is started again.

use super::{Engine, OpenError, StartError, Started, Wait};
use crate::restart_policy::RestartPolicy;
use crate::state::BoxRecord;

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
            let policy = found.options.restart;
            let resumes = policy.resumes(found.exit_code.unwrap_or(0), found.restarts, found.stopped_by_hand);
            if found.started.is_some() && resumes && !self.is_busy(&found)? {
                wanted.push(found);
            }
        }
        Ok(wanted)
    }

    /// Starts one of them, and lets it live on once its workload runs.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn resume(&self, record: &BoxRecord) -> Result<(), StartError> {
        let Started::Live(mut live) = self.start(record.id.as_str(), None).await? else { return Ok(()) };
        match live.until_running().await? {
            Wait::Running => Ok(live.detach()?),
            Wait::Exited(_) => Ok(()),
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
