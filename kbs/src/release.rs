//! The release decision: one transaction from the question to the audit line, and only then bytes.
//!
//! Order: authentic → typed floor → admitted (a pair, a manifest or an author) → asked for in the spec → the secret's own
//! permissions → its Rego policy. Every stage runs and every reason is kept; the guest learns none of them.
//! Source: docs/design/protocol.md §4.6, docs/design/broker.md §6.

use std::sync::Arc;

use coffer_kbs_client::{GET_SECRET, ResourcePath, secret_aad};
use coffer_ratls::{Attested, HpkeError, HpkeSealed};
use coffer_verifier::{
    VerifiedReport,
    abi::{HostData, WorkloadDigest},
};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    admission::Candidates,
    audit_log::AuditLog,
    clock::Clock,
    guest::{self, GuestVerifier, Judged},
    policies::{DEFAULT, ReleasePolicies},
    store::{AuditEntry, Ledger, Secret, Store, StoreError},
};

/// Decides releases.
#[derive(Clone)]
pub struct Releaser {
    pub(crate) store: Arc<Store>,
    pub(crate) verifier: Arc<GuestVerifier>,
    pub(crate) policies: Arc<ReleasePolicies>,
    pub(crate) log: AuditLog,
    pub(crate) clock: Clock,
}

/// A secret, encrypted to the key of the report it was released on.
pub struct Released {
    /// Its version.
    pub version: u64,
    /// For the guest alone.
    pub sealed: HpkeSealed,
}

/// Leave to release one version of one secret. Only [`Releaser::decide`] makes one, from a decision without a reason
/// against; nothing else opens the road to the guest's key.
struct Permit {
    version: u64,
    value: Zeroizing<Vec<u8>>,
}

impl Permit {
    /// Uses it up: encrypts the value to the key of the report it was decided on.
    fn seal(self, attested: &Attested<Judged>, path: &ResourcePath) -> Result<Released, HpkeError> {
        let aad = secret_aad(attested.admitted().tenant.as_str(), path, self.version);
        let sealed = attested.seal(GET_SECRET, &aad, &self.value)?;
        Ok(Released { version: self.version, sealed })
    }
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

/// What a stored secret says, or what stands in for one that is not there, so that both take the same road.
struct Wanted {
    secret: Option<Secret>,
    value: Zeroizing<Vec<u8>>,
    allow_simulated: bool,
    policy: String,
}

impl Releaser {
    /// Decides about one secret for one attested connection. `id` joins the guest's answer to the audit line. Blocks.
    ///
    /// # Errors
    /// [`NotReleased`].
    pub fn release(&self, attested: &Attested<Judged>, path: &str, id: &str) -> Result<Released, NotReleased> {
        let now = self.clock.now();
        let admitted = attested.admitted();
        let path = path.parse::<ResourcePath>().ok();
        // The evidence is judged again under today's roots, revocations and floor.
        let judged = self.verifier.judge(attested.evidence(), attested.report_data());
        let entry = AuditEntry {
            event: "secret.release",
            id: id.to_owned(),
            peer: attested.peer_spki().to_string(),
            tenant: Some(admitted.tenant.to_string()),
            path: path.as_ref().map(ToString::to_string),
            guest: Some(guest::facts(&admitted.verified)),
            ..AuditEntry::default()
        };
        let (outcome, line) = self.store.transact(|ledger| {
            let mut entry = entry;
            let decided = match (&judged, &path) {
                (Err(no), _) => Err(no.reasons.clone()),
                (Ok(_), None) => Err(vec!["path: not kbs:///repository/type/tag".to_owned()]),
                (Ok(judged), Some(path)) => {
                    self.decide(ledger, judged, path, now, &mut entry)?.map(|permit| (permit, path))
                }
            };
            let outcome = decided.and_then(|(permit, path)| {
                permit.seal(attested, path).map_err(|error| vec![format!("connection: {error}")])
            });
            match &outcome {
                Ok(released) => {
                    entry.outcome = "released";
                    entry.version = Some(released.version);
                }
                Err(reasons) => {
                    entry.outcome = "refused";
                    entry.reasons.clone_from(reasons);
                }
            }
            let line = ledger.append_audit(&entry, now)?;
            Ok::<_, StoreError>((outcome, line))
        })?;
        // Committed: from here on the decision stands in the trail, and bytes may leave.
        self.log.write(&line);
        outcome.map_err(NotReleased::Refused)
    }

    fn decide(
        &self,
        ledger: &Ledger<'_>,
        judged: &Judged,
        path: &ResourcePath,
        now: i64,
        entry: &mut AuditEntry,
    ) -> Result<Result<Permit, Vec<String>>, StoreError> {
        let mut reasons = Vec::new();
        let verified = &judged.verified;
        let candidates = Candidates::gather(ledger, judged, &mut reasons)?;
        let result = match self.verifier.appraise(verified, candidates.admission(now)) {
            Ok(result) if result.is_affirming() => "affirming",
            Ok(result) => {
                reasons.extend(result.downgrades().iter().map(ToString::to_string));
                "warning"
            }
            Err(no) => {
                reasons.extend(no.reasons);
                reasons.extend(candidates.notes(now));
                "contraindicated"
            }
        };
        let wanted = wanted(ledger, judged, path, &mut reasons)?;
        entry.policy = wanted.secret.as_ref().map(|secret| secret.policy.clone());
        let secrets = || judged.document.spec().secrets.iter().map(|one| one.from.as_str());
        if !secrets().any(|one| one == path.as_str()) {
            reasons.push("spec: the workload spec does not ask for this path".to_owned());
        }
        self.anchor(judged, &wanted, &mut reasons);
        let anchors: Vec<String> = self.verifier.simulated_anchors(&judged.tenant).map(ToString::to_string).collect();
        let input = json!({
            "now_unix": now,
            "result": {
                "status": result,
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
        Ok(match wanted.secret {
            Some(secret) if kept.is_empty() => Ok(Permit { version: secret.version, value: wanted.value }),
            _ => Err(kept),
        })
    }

    /// Simulated evidence needs both: the root listed for the tenant, and the secret's own permission. Not Rego's to waive.
    fn anchor(&self, judged: &Judged, wanted: &Wanted, reasons: &mut Vec<String>) {
        let anchor = judged.verified.anchor();
        if !anchor.simulated {
            return;
        }
        if !self.verifier.simulated_anchors(&judged.tenant).any(|one| *one == anchor.spki_sha256) {
            reasons.push(format!("anchor: {anchor} is not listed for tenant {}", judged.tenant));
        }
        if !wanted.allow_simulated {
            reasons.push("anchor: evidence is simulated and this secret does not carry allow_simulated".to_owned());
        }
    }
}

fn wanted(
    ledger: &Ledger<'_>,
    judged: &Judged,
    path: &ResourcePath,
    reasons: &mut Vec<String>,
) -> Result<Wanted, StoreError> {
    let nothing = || Wanted {
        secret: None,
        value: Zeroizing::new(Vec::new()),
        allow_simulated: false,
        policy: DEFAULT.to_owned(),
    };
    let found = ledger.secret(&judged.tenant, path).and_then(|secret| {
        let Some(secret) = secret else { return Ok(None) };
        // What the row says of itself counts only once the value has opened with it.
        let value = ledger.open_secret(&judged.tenant, path, &secret)?;
        Ok(Some((secret, value)))
    });
    match found {
        Ok(Some((secret, value))) => Ok(Wanted {
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

fn host_workload(verified: &VerifiedReport) -> WorkloadDigest {
    let host_data: HostData = verified.report().host_data();
    WorkloadDigest::new(*host_data.as_bytes())
}
