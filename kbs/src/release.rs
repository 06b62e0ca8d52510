//! A release from the question to the audit line, and only then bytes.
//!
//! The evidence is judged and the policy runs without any lock, on one view of the ledger. The transaction that records the
//! decision holds the write lock, and goes on only if nothing that the decision rests on has changed since; otherwise it
//! is decided again. The guest learns none of the reasons.
//! Source: docs/design/protocol.md §4.6, docs/design/broker.md §6.

use std::sync::Arc;

use coffer_kbs_client::ResourcePath;
use coffer_ratls::Attested;
use coffer_verifier::CheckLine;

use crate::{
    audit_log::AuditLog,
    clock::Clock,
    decide::{Basis, Decider, Released},
    guest::{self, Judged, NotAdmitted},
    store::{AuditEntry, Seen, Store, StoreError},
};

/// Releases secrets.
#[derive(Clone)]
pub struct Releaser {
    pub(crate) store: Arc<Store>,
    pub(crate) decider: Decider,
    pub(crate) log: AuditLog,
    pub(crate) clock: Clock,
}

/// Why nothing was released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotReleased {
    /// Decided, and recorded with every reason.
    #[error("not released: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// Not decided: what cannot be recorded is not released.
    #[error("no decision could be recorded")]
    Failed(#[from] StoreError),
}

/// One question of one guest.
struct Question {
    attested: Arc<Attested<Judged>>,
    /// The evidence, judged again under today's roots, revocations and floor.
    judged: Result<Judged, NotAdmitted>,
    path: Option<ResourcePath>,
    now: i64,
}

/// An answer that waits for its line in the trail.
struct Answer {
    outcome: Result<Released, Vec<String>>,
    policy: Option<String>,
    checks: Vec<CheckLine>,
    seen: Seen,
}

impl Releaser {
    /// Decides about one secret for one attested connection. `id` joins the guest's answer to the audit line.
    ///
    /// # Errors
    /// [`NotReleased`].
    pub async fn release(
        &self,
        attested: Arc<Attested<Judged>>,
        path: &str,
        id: &str,
    ) -> Result<Released, NotReleased> {
        let question = Arc::new(self.question(attested, path).await?);
        for _ in 0..ATTEMPTS {
            let Answer { outcome, policy, checks, seen } = self.answer(&question).await?;
            let ledger = self.store.write().await?;
            if !ledger.is_as(&seen) {
                continue;
            }
            let entry = question.entry(id, policy, checks, &outcome);
            let log = self.log.clone();
            ledger.record_decision(entry, question.now, move |line| log.write(line)).await?;
            // Committed: from here on the decision stands in the trail, and bytes may leave.
            return outcome.map_err(NotReleased::Refused);
        }
        Err(StoreError::Contended { attempts: ATTEMPTS }.into())
    }

    async fn question(&self, attested: Arc<Attested<Judged>>, path: &str) -> Result<Question, StoreError> {
        let (verifier, now) = (self.decider.verifier.clone(), self.clock.now());
        let path = path.parse::<ResourcePath>().ok();
        off_the_loop(move || {
            let judged = verifier.judge_again(attested.admitted(), attested.evidence(), attested.report_data());
            Question { attested, judged, path, now }
        })
        .await
    }

    async fn answer(&self, question: &Arc<Question>) -> Result<Answer, StoreError> {
        let refused = |reasons, checks| Answer { outcome: Err(reasons), policy: None, checks, seen: Seen::default() };
        let (judged, path) = match (&question.judged, &question.path) {
            (Err(no), _) => return Ok(refused(no.reasons.clone(), no.checks.clone())),
            (Ok(_), None) => {
                return Ok(refused(vec!["path: not kbs:///repository/type/tag".to_owned()], Vec::new()));
            }
            (Ok(judged), Some(path)) => (judged, path),
        };
        let mut ledger = self.store.read().await?;
        let basis = Basis::gather(&mut ledger, judged, path).await?;
        let seen = ledger.into_seen();
        let (decider, question) = (self.decider.clone(), question.clone());
        off_the_loop(move || {
            let (Ok(judged), Some(path)) = (&question.judged, &question.path) else {
                return refused(Vec::new(), Vec::new());
            };
            let decided = decider.decide(judged, path, basis, question.now);
            let outcome = decided.outcome.and_then(|permit| {
                permit.seal(&question.attested, path).map_err(|error| vec![format!("connection: {error}")])
            });
            Answer { outcome, policy: decided.policy, checks: decided.checks, seen }
        })
        .await
    }
}

impl Question {
    fn entry(
        &self,
        id: &str,
        policy: Option<String>,
        checks: Vec<CheckLine>,
        outcome: &Result<Released, Vec<String>>,
    ) -> AuditEntry {
        let admitted = self.attested.admitted();
        let (outcome, version, reasons) = match outcome {
            Ok(released) => ("released", Some(released.version), Vec::new()),
            Err(reasons) => ("refused", None, reasons.clone()),
        };
        AuditEntry {
            event: "secret.release",
            outcome,
            id: id.to_owned(),
            peer: self.attested.peer_spki().to_string(),
            tenant: Some(admitted.tenant.to_string()),
            path: self.path.as_ref().map(ToString::to_string),
            version,
            policy,
            guest: Some(guest::facts(&admitted.verified)),
            reasons,
            checks,
            ..AuditEntry::default()
        }
    }
}

async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(StoreError::interrupted)
}

/// How often a decision is made anew because its basis changed meanwhile.
const ATTEMPTS: usize = 8;
