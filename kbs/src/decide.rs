//! The release decision itself: what a guest is held against, and the one thing that lets anything out, a [`Permit`].
//!
//! Order: typed floor → admitted (a pair, a manifest or an author) and not revoked → asked for in the spec → the terms of what is asked for
//! (anchor, typed rules) → its Rego policy. Every stage runs and every reason is kept.
//! Trusts: the verified report, the ledger's rows, the operator's policies. Believes nothing the guest says beside them.
//! Never: writes, waits for a lock, lets a reason go.

use std::sync::Arc;

use coffer_verifier::{
    CheckLine, CrlStatus, VerifiedReport,
    abi::{HostData, ReportData, WorkloadDigest},
};
use serde_json::json;

use crate::{
    admission::{Candidates, ManifestAge},
    asked::Asked,
    crl_floor::older,
    guest::{GuestVerifier, Judged},
    permit::Permit,
    policies::ReleasePolicies,
    store::{Ledger, StoreError},
    terms::Terms,
    token::Said,
    wanted::Wanted,
};

/// What a decision rests on, read from one view of the ledger.
pub struct Basis {
    candidates: Candidates,
    wanted: Wanted,
    /// The text of its policy, where the tenant keeps one of that name.
    stored: Option<String>,
    /// Rows that were not believed, and what is missing.
    reasons: Vec<String>,
}

/// A decision.
pub struct Decided {
    /// The policy that was asked, where there is something to release.
    pub policy: Option<String>,
    /// Leave, or every reason against.
    pub outcome: Result<Permit, Vec<String>>,
    /// Every check of the evidence.
    pub checks: Vec<CheckLine>,
    /// What the policy saw, where there is something to release.
    pub input: Option<PolicyInput>,
}

/// What a policy saw of a decision.
pub struct PolicyInput {
    /// JSON.
    pub json: String,
    /// Something beside the policy spoke against it.
    pub refused_beside: bool,
}

/// Decides.
#[derive(Clone)]
pub struct Decider {
    pub(crate) verifier: Arc<GuestVerifier>,
    pub(crate) policies: Arc<ReleasePolicies>,
}

impl Basis {
    /// Reads it.
    ///
    /// # Errors
    /// As the store; a row that is not believed is a reason, not an error.
    pub async fn gather(
        ledger: &mut Ledger,
        judged: &Judged,
        asked: &Asked,
        manifests: ManifestAge,
    ) -> Result<Self, StoreError> {
        let (mut reasons, now) = (Vec::new(), manifests.now);
        reasons.extend(list_is_older(ledger, judged).await?);
        let candidates = Candidates::gather(ledger, judged, manifests).await?;
        let wanted = Wanted::read(ledger, judged, asked, now, &mut reasons).await?;
        let stored = match ledger.policy(&judged.tenant, &wanted.terms().policy).await {
            Ok(stored) => stored.map(|policy| policy.text),
            Err(error @ StoreError::Tampered { .. }) => {
                reasons.push(not_believed(&error));
                None
            }
            Err(other) => return Err(other),
        };
        Ok(Self { candidates, wanted, stored, reasons })
    }
}

impl Decider {
    /// Changes with the configuration: what was decided under one edition of it may not stand under another.
    pub fn edition(&self) -> (u64, u64) {
        (self.verifier.edition(), self.policies.edition())
    }

    /// Decides. Blocks for as long as a policy may take. `connection`: REPORT_DATA of the evidence that opened it.
    pub fn decide(&self, judged: &Judged, asked: &Asked, basis: Basis, now: i64, connection: &ReportData) -> Decided {
        let Basis { candidates, wanted, stored, mut reasons } = basis;
        reasons.extend(candidates.revocations(self.verifier.chipless()));
        let verified = &judged.verified;
        let appraisal = self.verifier.appraise(verified, candidates.admission(now));
        let status = match appraisal.result() {
            Some(result) if result.is_affirming() => "affirming",
            Some(result) => {
                reasons.extend(result.downgrades().iter().map(ToString::to_string));
                "warning"
            }
            None => {
                reasons.extend(appraisal.reasons().iter().map(ToString::to_string));
                reasons.extend(candidates.notes(now));
                "contraindicated"
            }
        };
        let asked_for = || judged.document.spec().asks_for();
        if let Asked::Secret { path, .. } = asked
            && !asked_for().any(|one| one.as_str() == path.as_str())
        {
            reasons.push("spec: the workload spec does not ask for this path".to_owned());
        }
        let audiences = &judged.document.spec().audiences;
        if let Asked::Token(token) = asked
            && !audiences.iter().any(|one| one == token.audience.as_str())
        {
            reasons.push("spec: the workload spec does not name this audience".to_owned());
        }
        let terms = wanted.terms();
        // Of what is not there nobody has said on what terms it is released.
        let terms_said = wanted.is_there().then_some(&terms);
        self.anchor(judged, terms_said, asked, &mut reasons);
        Self::rules(judged, &terms, &mut reasons);
        let anchors: Vec<String> = self.verifier.simulated_anchors(&judged.tenant).map(|one| one.to_string()).collect();
        let mut input = json!({
            "now_unix": now,
            "result": {
                "status": status,
                "workload_digest": host_workload(verified),
                "claims": verified.claims(),
            },
            "tenant": { "name": judged.tenant.as_str(), "simulated_anchors": anchors },
            "spec": { "secrets": asked_for().map(coffer_spec::SecretPath::as_str).collect::<Vec<_>>(), "tee": judged.document.spec().tee },
            "asked": { "kind": asked.kind(), "name": asked.name(), "allow_simulated": terms.allow_simulated },
            "references": candidates.references_input(),
            "signers": candidates.signers_input(),
        });
        if let Asked::Secret { path, .. } = asked {
            input["secret"] = json!({ "path": path.as_str(), "allow_simulated": terms.allow_simulated });
        }
        let input = input.to_string();
        let policy = self.policies.of(&terms.policy, stored.as_deref());
        let answer = policy.as_ref().map(|policy| policy.decide_text(&input));
        let (beside, mut allowed) = (!reasons.is_empty(), false);
        match answer {
            Ok(decision) if decision.allows() => allowed = true,
            // Nobody has put what is not there under a policy, and what it is told of that is made up.
            _ if !wanted.is_there() => {}
            Ok(decision) => reasons.extend(decision.reasons().iter().cloned()),
            Err(reason) => reasons.push(reason.clone()),
        }
        let mut kept: Vec<String> = Vec::new();
        for reason in reasons {
            if !kept.contains(&reason) {
                kept.push(reason);
            }
        }
        let is_there = wanted.is_there();
        let outcome = match &policy {
            Ok(policy) if kept.is_empty() => {
                let said = Said { appraisal: &appraisal, policy, connection, now };
                wanted.permit(judged, asked, &candidates.authors(now), &said).map_err(|reason| vec![reason])
            }
            _ => Err(kept),
        };
        let refused_beside = beside || allowed && outcome.is_err();
        let input = is_there.then_some(PolicyInput { json: input, refused_beside });
        let policy = is_there.then_some(terms.policy);
        Decided { policy, checks: appraisal.checks(), input, outcome }
    }

    /// Simulated evidence needs both: the root listed for the tenant, and permission of what is asked for. Not Rego's to
    /// waive.
    fn anchor(&self, judged: &Judged, terms: Option<&Terms>, asked: &Asked, reasons: &mut Vec<String>) {
        let anchor = judged.verified.anchor();
        if !anchor.simulated {
            return;
        }
        if !self.verifier.simulated_anchors(&judged.tenant).any(|one| one == anchor.spki_sha256) {
            reasons.push(format!("anchor: {anchor} is not listed for tenant {}", judged.tenant));
        }
        if terms.is_some_and(|terms| !terms.allow_simulated) {
            let what = asked.kind();
            reasons.push(format!("anchor: evidence is simulated and this {what} does not carry allow_simulated"));
        }
    }

    fn rules(judged: &Judged, terms: &Terms, reasons: &mut Vec<String>) {
        if terms.rules.is_empty() {
            return;
        }
        let appraisal = GuestVerifier::appraise_under(&judged.verified, terms.rules.as_policy());
        reasons.extend(appraisal.reasons().iter().map(|reason| format!("rule: {reason}")));
        reasons.extend(terms.rules.author_missing(&judged.verified).map(|reason| format!("rule: {reason}")));
    }
}

/// The number was judged with the evidence; it is part of what the decision rests on, and may have risen since.
async fn list_is_older(ledger: &mut Ledger, judged: &Judged) -> Result<Option<String>, StoreError> {
    let CrlStatus::Checked { number, .. } = judged.verified.crl() else { return Ok(None) };
    match ledger.crl_number(&judged.verified.anchor().spki_sha256).await {
        Ok(Some(highest)) if number < highest => Ok(Some(older(number, highest))),
        Ok(_) => Ok(None),
        Err(error @ StoreError::Tampered { .. }) => Ok(Some(not_believed(&error))),
        Err(error) => Err(error),
    }
}

fn not_believed(error: &StoreError) -> String {
    tracing::error!(error = %coffer_rim::chain(error), hint = error.hint(), "stored row is not believed");
    format!("store: {error}")
}

fn host_workload(verified: &VerifiedReport) -> WorkloadDigest {
    let host_data: HostData = verified.report().host_data();
    WorkloadDigest::new(*host_data.as_bytes())
}
