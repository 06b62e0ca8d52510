//! One change by an operator: what is done and its audit line, committed together or not at all.

use tonic::{Response, Status};

use super::{AdminService, fresh_id, store_status};
use crate::{
    audit_log::AuditLog,
    operators::Caller,
    store::{AuditEntry, Ledger, StoreError},
};

/// One change by an operator: what is done and its audit line, committed together.
pub(super) struct Change {
    pub(super) ledger: Ledger,
    pub(super) entry: AuditEntry,
    pub(super) now: i64,
    log: AuditLog,
}

impl Change {
    /// Commits, and answers.
    pub(super) async fn done<T>(self, value: T) -> Result<Response<T>, Status> {
        let Self { ledger, entry, now, log } = self;
        ledger.record_decision(entry, now, move |line| log.write(line)).await.map_err(store_status)?;
        Ok(Response::new(value))
    }

    /// The same for what may have found nothing to do.
    pub(super) async fn done_if<T>(
        mut self,
        done: bool,
        otherwise: &'static str,
        value: T,
    ) -> Result<Response<T>, Status> {
        if !done {
            self.entry.outcome = otherwise;
        }
        self.done(value).await
    }

    /// The same, with what follows from it: done as a whole also where whoever asked has gone away, and where nobody can say
    /// whether the change was written.
    pub(super) async fn done_and<T: Send + 'static>(
        self,
        done: bool,
        otherwise: &'static str,
        value: T,
        then: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let task = tokio::spawn(async move {
            let answer = self.done_if(done, otherwise, value).await;
            then.await;
            answer
        });
        task.await.map_err(|error| store_status(StoreError::interrupted(error)))?
    }
}

impl AdminService {
    /// Begins a change: holds the write lock until it is done or dropped.
    pub(super) async fn change(&self, caller: Caller, entry: AuditEntry) -> Result<Change, Status> {
        // What it finds may be told without a commit, such as the version that is there.
        let mut ledger = self.store.write_on_what_lasts().await.map_err(store_status)?;
        self.still_may(&mut ledger, &caller).await?;
        let entry = AuditEntry { outcome: "done", peer: caller.name, id: fresh_id(), ..entry };
        Ok(Change { ledger, entry, now: self.clock.now(), log: self.log.clone() })
    }
}
