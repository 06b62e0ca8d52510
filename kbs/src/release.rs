//! A release from the question to the audit line, and only then bytes.
//!
//! The evidence is judged and the policy runs without any lock, on one view of the ledger. The transaction that records the
//! decision holds the write lock, and goes on only if nothing that the decision rests on has changed since; otherwise it
//! is decided again. The guest learns none of the reasons.
//! Source: docs/design/protocol.md §4.6, docs/design/broker.md §6.

use std::sync::Arc;

use coffer_ratls::{Attested, HpkeError};
use coffer_verifier::{CheckLine, Evidence};

use crate::{
    admission::ManifestAge,
    aside::Aside,
    asked::{Asked, Question},
    audit_log::AuditLog,
    clock::Clock,
    decide::{Basis, Decider, PolicyInput},
    guest::{self, Judged, NotAdmitted},
    inputs::{Inputs, LONGEST},
    permit::{Outcome, Released},
    store::{AuditEntry, KeptInput, Ledger, Recorded, Seen, Store, StoreError, drive},
    tenant::Tenant,
    turns::Turns,
};

/// Releases what guests ask for.
#[derive(Clone)]
pub struct Releaser {
    pub(crate) store: Arc<Store>,
    pub(crate) decider: Decider,
    pub(crate) log: AuditLog,
    pub(crate) clock: Clock,
    /// What policies saw of the last decisions.
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) aside: Aside,
    /// At what takes a processor.
    pub(crate) turns: Turns<Tenant>,
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
    /// Decided and recorded, and yet not encrypted: a defect of ours, or the guest's report has grown too old in this moment.
    #[error("what was released could not be encrypted")]
    NotSealed(#[from] HpkeError),
}

/// One question of one guest.
struct Case {
    attested: Arc<Attested<Judged>>,
    /// The evidence, judged again under today's roots, revocations and floor.
    judged: Result<Judged, NotAdmitted>,
    question: Arc<Question>,
    now: i64,
}

/// An answer that waits for its line in the trail.
struct Answer {
    outcome: Result<Outcome, Vec<String>>,
    policy: Option<String>,
    checks: Vec<CheckLine>,
    input: Option<PolicyInput>,
    seen: Seen,
}

/// A decision whose line is being committed. Nothing leaves before it lasts.
struct Decision {
    recorded: Recorded,
    released: Result<Released, NotReleased>,
}

impl Releaser {
    /// Decides about one question of one attested connection. `id` joins the guest's answer to the audit line.
    ///
    /// # Errors
    /// [`NotReleased`].
    pub async fn release(
        &self,
        attested: Arc<Attested<Judged>>,
        question: Question,
        id: &str,
    ) -> Result<Released, NotReleased> {
        self.store.leaves_reserve()?;
        let (question, id): (_, Arc<str>) = (Arc::new(question), id.into());
        for _ in 0..ATTEMPTS {
            let (this, attested, question, id) = (self.clone(), attested.clone(), question.clone(), id.clone());
            let (tenant, guest) = (attested.admitted().tenant.clone(), *attested.report_id());
            let decided = self.aside.run_for(tenant, guest, move || this.decide(attested, question, &id)).await??;
            let Some(Decision { recorded, released }) = decided else { continue };
            recorded.lasts().await?;
            // Committed: from here on the decision stands in the trail, and bytes may leave.
            return released;
        }
        Err(StoreError::Contended { attempts: ATTEMPTS }.into())
    }

    /// Decides on one thread beside the event loop, sets the commit of the decision off, and encrypts what is to leave while the
    /// disk is waited for. Nothing, if what the decision rests on has changed meanwhile.
    fn decide(
        &self,
        attested: Arc<Attested<Judged>>,
        question: Arc<Question>,
        id: &str,
    ) -> Result<Option<Decision>, StoreError> {
        // Each attempt judges the evidence again: what changed may be what it is judged by.
        let (edition, now) = (self.decider.edition(), self.clock.now());
        let judged = self.judge(&attested, &question);
        let case = Case { attested, judged, question, now };
        let Answer { outcome, policy, checks, input, seen } = self.answer(&case)?;
        let recorded = drive(async {
            let mut ledger = self.store.write().await?;
            // Also not by floors, roots and policies that others have replaced meanwhile, and not by a clock that went on: what
            // has expired while the disk or a processor was waited for is not released.
            let late = self.clock.now().abs_diff(now) > MOST_SECONDS;
            if late || !ledger.is_as(&seen) || self.decider.edition() != edition {
                // Perhaps by somebody whose commit is under way: a new view shows it only then.
                ledger.others_are_done().await;
                return Ok(None);
            }
            if let Ok(outcome) = &outcome {
                outcome.apply(&mut ledger).await?;
            }
            let mut entry = case.entry(id, policy, checks, &outcome);
            entry.input = self.keep(&mut ledger, &case.attested.admitted().tenant, input).await;
            let log = self.log.clone();
            ledger.set_down(&entry, now, move |line| log.write(line)).await.map(Some)
        })?;
        let seal = |outcome: Outcome| outcome.seal(&case.attested).map_err(NotReleased::NotSealed);
        let released = |outcome: Result<Outcome, _>| outcome.map_err(NotReleased::Refused).and_then(seal);
        Ok(recorded.map(|recorded| Decision { recorded, released: released(outcome) }))
    }

    /// The connection's evidence, judged anew; of who asks for a token, with the report that was made for it in place of the connection's.
    fn judge(&self, attested: &Attested<Judged>, question: &Question) -> Result<Judged, NotAdmitted> {
        let verifier = &self.decider.verifier;
        let (evidence, connection) = (attested.evidence(), attested.report_data());
        let Ok(Asked::Token(token)) = &question.asked else {
            return verifier.judge_again(attested.admitted(), evidence, connection);
        };
        let expected = token.binding(connection, &token.key.spki_digest(), attested.workload()).report_data();
        let evidence = Evidence { report: token.report.clone(), ..evidence.clone() };
        let judged = verifier.judge_again(attested.admitted(), &evidence, &expected)?;
        if judged.verified.report().report_id() == *attested.report_id() {
            return Ok(judged);
        }
        Err(NotAdmitted::early("report-id", "token: the report is of another guest than the connection's".to_owned()))
    }

    /// Keeps what the policy saw. Gives its SHA-256, for the line. It decides nothing: a decision stands without it.
    async fn keep(&self, ledger: &mut Ledger, tenant: &Tenant, input: Option<PolicyInput>) -> Option<String> {
        let PolicyInput { json, refused_beside } = input.filter(|input| input.json.len() <= LONGEST)?;
        let kept = KeptInput { line: ledger.next_line(), refused_beside, json };
        match self.inputs.keep(ledger, tenant, &kept).await {
            Ok(()) => Some(kept.digest()),
            Err(error) => {
                tracing::warn!(error = %coffer_rim::chain(&error), "what a policy saw of a decision is not kept");
                None
            }
        }
    }

    fn answer(&self, case: &Case) -> Result<Answer, StoreError> {
        let refused = |reasons, checks| {
            let outcome = Err(reasons);
            Answer { outcome, policy: None, checks, input: None, seen: Seen::default() }
        };
        let (judged, asked) = match (&case.judged, &case.question.asked) {
            (Err(no), _) => return Ok(refused(no.reasons.clone(), no.checks.clone())),
            (Ok(_), Err(reason)) => return Ok(refused(vec![reason.clone()], Vec::new())),
            (Ok(judged), Ok(asked)) => (judged, asked),
        };
        let manifests = ManifestAge { now: case.now, most: self.decider.verifier.max_manifest_age(judged) };
        let (basis, seen) = drive(async {
            let mut ledger = self.store.read().await?;
            let basis = Basis::gather(&mut ledger, judged, asked, manifests).await?;
            Ok::<_, StoreError>((basis, ledger.into_seen()))
        })?;
        let decided = {
            let _turn = self.turns.take(judged.tenant.clone());
            self.decider.decide(judged, asked, basis, case.now, case.attested.report_data())
        };
        let (permitted, mut input) = (decided.outcome.is_ok(), decided.input);
        let outcome = decided
            .outcome
            .and_then(|permit| permit.outcome(&case.attested).map_err(|error| vec![format!("connection: {error}")]));
        if let Some(input) = input.as_mut().filter(|_| permitted && outcome.is_err()) {
            input.refused_beside = true;
        }
        Ok(Answer { outcome, policy: decided.policy, checks: decided.checks, input, seen })
    }
}

impl Case {
    fn entry(
        &self,
        id: &str,
        policy: Option<String>,
        checks: Vec<CheckLine>,
        outcome: &Result<Outcome, Vec<String>>,
    ) -> AuditEntry {
        let admitted = self.attested.admitted();
        let mut entry = AuditEntry {
            outcome: "refused",
            id: id.to_owned(),
            peer: self.attested.peer_spki().to_string(),
            tenant: Some(admitted.tenant.to_string()),
            policy,
            guest: Some(guest::facts(&admitted.verified)),
            checks,
            ..self.question.entry()
        };
        match outcome {
            Ok(outcome) => outcome.describe(&mut entry),
            Err(reasons) => entry.reasons.clone_from(reasons),
        }
        entry
    }
}

/// From the clock that a decision rests on to its line.
const MOST_SECONDS: u64 = 5;
/// How often a decision is made anew because its basis changed meanwhile.
const ATTEMPTS: usize = 8;
