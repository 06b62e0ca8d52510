//! The release decision itself: what a guest is held against, and the one thing that lets a value out, a [`Permit`].
//!
//! Order: typed floor → admitted (a pair, a manifest or an author) → asked for in the spec → the secret's own permissions →
//! its Rego policy. Every stage runs and every reason is kept.
//! Trusts: the verified report, the ledger's rows, the operator's policies. Believes nothing the guest says beside them.
//! Never: writes, waits for a lock, lets a reason go.

use std::sync::Arc;

use coffer_kbs_client::{GET_SECRET, ResourcePath, secret_aad};
use coffer_ratls::{Attested, HpkeError, HpkeSealed};
use coffer_verifier::{
    CheckLine, VerifiedReport,
    abi::{HostData, WorkloadDigest},
};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    admission::Candidates,
    guest::{GuestVerifier, Judged},
    policies::{DEFAULT, ReleasePolicies},
    store::{Ledger, Secret, StoreError},
};

/// Leave to release one version of one secret. Only [`Decider::decide`] makes one, from a decision without a reason
/// against; nothing else opens the road to the guest's key.
pub struct Permit {
    version: u64,
    value: Zeroizing<Vec<u8>>,
}

/// A secret, encrypted to the key of the report it was released on.
pub struct Released {
    /// Its version.
    pub version: u64,
    /// For the guest alone.
    pub sealed: HpkeSealed,
}

impl Permit {
    /// Uses it up: encrypts the value to the key of the report it was decided on.
    ///
    /// # Errors
    /// [`HpkeError`].
    pub fn seal(self, attested: &Attested<Judged>, path: &ResourcePath) -> Result<Released, HpkeError> {
        let aad = secret_aad(attested.admitted().tenant.as_str(), path, self.version);
        let sealed = attested.seal(GET_SECRET, &aad, &self.value)?;
        Ok(Released { version: self.version, sealed })
    }
}

/// What a decision rests on, read from one view of the ledger.
pub struct Basis {
    candidates: Candidates,
    wanted: Wanted,
    /// Rows that were not believed, and what is missing.
    reasons: Vec<String>,
}

/// What a stored secret says, or what stands in for one that is not there, so that both take the same road.
struct Wanted {
    secret: Option<Secret>,
    value: Zeroizing<Vec<u8>>,
    allow_simulated: bool,
    policy: String,
}

/// A decision.
pub struct Decided {
    /// The policy that was asked, where there is a secret.
    pub policy: Option<String>,
    /// Leave, or every reason against.
    pub outcome: Result<Permit, Vec<String>>,
    /// Every check of the evidence.
    pub checks: Vec<CheckLine>,
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
    pub async fn gather(ledger: &mut Ledger, judged: &Judged, path: &ResourcePath) -> Result<Self, StoreError> {
        let mut reasons = Vec::new();
        let candidates = Candidates::gather(ledger, judged).await?;
        let wanted = Wanted::read(ledger, judged, path, &mut reasons).await?;
        Ok(Self { candidates, wanted, reasons })
    }
}

impl Decider {
    /// Decides. Blocks for as long as a policy may take.
    pub fn decide(&self, judged: &Judged, path: &ResourcePath, basis: Basis, now: i64) -> Decided {
        let Basis { candidates, wanted, mut reasons } = basis;
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
        let secrets = || judged.document.spec().secrets.iter().map(|one| one.from.as_str());
        if !secrets().any(|one| one == path.as_str()) {
            reasons.push("spec: the workload spec does not ask for this path".to_owned());
        }
        self.anchor(judged, &wanted, &mut reasons);
        let anchors: Vec<String> = self.verifier.simulated_anchors(&judged.tenant).map(|one| one.to_string()).collect();
        let input = json!({
            "now_unix": now,
            "result": {
                "status": status,
                "workload_digest": host_workload(verified),
                "claims": verified.claims(),
            },
            "tenant": { "name": judged.tenant.as_str(), "simulated_anchors": anchors },
            "spec": { "secrets": secrets().collect::<Vec<_>>(), "tee": judged.document.spec().tee },
            "secret": { "path": path.as_str(), "allow_simulated": wanted.allow_simulated },
            "references": candidates.references_input(),
            "signers": candidates.signers_input(),
        });
        match self.policies.decide(&wanted.policy, &input) {
            Ok(decision) if decision.allows() => {}
            Ok(decision) => reasons.extend(decision.reasons().iter().cloned()),
            Err(reason) => reasons.push(reason),
        }
        let mut kept: Vec<String> = Vec::new();
        for reason in reasons {
            if !kept.contains(&reason) {
                kept.push(reason);
            }
        }
        let policy = wanted.secret.as_ref().map(|secret| secret.policy.clone());
        let outcome = match wanted.secret {
            Some(secret) if kept.is_empty() => Ok(Permit { version: secret.version, value: wanted.value }),
            _ => Err(kept),
        };
        Decided { policy, outcome, checks: appraisal.checks() }
    }

    /// Simulated evidence needs both: the root listed for the tenant, and the secret's own permission. Not Rego's to waive.
    fn anchor(&self, judged: &Judged, wanted: &Wanted, reasons: &mut Vec<String>) {
        let anchor = judged.verified.anchor();
        if !anchor.simulated {
            return;
        }
        if !self.verifier.simulated_anchors(&judged.tenant).any(|one| one == anchor.spki_sha256) {
            reasons.push(format!("anchor: {anchor} is not listed for tenant {}", judged.tenant));
        }
        if !wanted.allow_simulated {
            reasons.push("anchor: evidence is simulated and this secret does not carry allow_simulated".to_owned());
        }
    }
}

impl Wanted {
    async fn read(
        ledger: &mut Ledger,
        judged: &Judged,
        path: &ResourcePath,
        reasons: &mut Vec<String>,
    ) -> Result<Self, StoreError> {
        let nothing = || Self {
            secret: None,
            value: Zeroizing::new(Vec::new()),
            allow_simulated: false,
            policy: DEFAULT.to_owned(),
        };
        let found = match ledger.secret(&judged.tenant, path).await {
            Ok(Some(secret)) => ledger.open_secret(&judged.tenant, path, &secret).map(|value| Some((secret, value))),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match found {
            Ok(Some((secret, value))) => Ok(Self {
                allow_simulated: secret.allow_simulated,
                policy: secret.policy.clone(),
                secret: Some(secret),
                value,
            }),
            Ok(None) => {
                reasons.push("secret: there is none at this path".to_owned());
                Ok(nothing())
            }
            Err(error @ StoreError::Tampered { .. }) => {
                tracing::error!(error = %coffer_rim::chain(&error), hint = error.hint(), "stored secret is not believed");
                reasons.push(format!("store: {error}"));
                Ok(nothing())
            }
            Err(other) => Err(other),
        }
    }
}

fn host_workload(verified: &VerifiedReport) -> WorkloadDigest {
    let host_data: HostData = verified.report().host_data();
    WorkloadDigest::new(*host_data.as_bytes())
}
