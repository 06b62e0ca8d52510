//! Judges a guest's evidence: spec, tenant, authenticity, typed floor. Done at attestation, and again at each release.
//!
//! Trusts: AMD's roots, and for one tenant the simulated roots its operator listed. Believes the workload spec only as
//! far as HOST_DATA and the admitted measurement carry it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coffer_ratls::{Appraiser, Refusal};
use coffer_spec::{Document, SpecError, Tee};
use coffer_verifier::{
    AttestationResult, CrlPolicy, CrlStatus, Endorsements, Evidence, EvidencePolicy, ExpectedReportData, TrustAnchors,
    UnixTime, VerifiedReport, VerifyError,
    abi::{ReportData, SpkiDigest},
    appraise, verify,
};

use crate::{admission::Admission, clock::Clock, crl_floor::CrlFloor, store::GuestFacts, tenant::Tenant};

/// Evidence that is authentic and above the typed floor; nothing is released on it alone.
pub struct Judged {
    /// The verified report.
    pub verified: VerifiedReport,
    /// The guest's spec, whose digest is HOST_DATA.
    pub document: Document,
    /// Tenant the spec names.
    pub tenant: Tenant,
}

/// Why evidence is not admitted: a word for the peer, and every reason for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAdmitted {
    /// Stable word.
    pub code: &'static str,
    /// Reasons, without guest text.
    pub reasons: Vec<String>,
}

/// Judges evidence.
pub struct GuestVerifier {
    anchors: BTreeMap<Tenant, BTreeSet<SpkiDigest>>,
    endorsements: Endorsements,
    floor: EvidencePolicy,
    clock: Clock,
    crl_floor: CrlFloor,
}

impl GuestVerifier {
    /// With what the configuration lists.
    pub fn new(
        anchors: BTreeMap<Tenant, BTreeSet<SpkiDigest>>,
        endorsements: Endorsements,
        floor: EvidencePolicy,
        clock: Clock,
        crl_floor: CrlFloor,
    ) -> Self {
        Self { anchors, endorsements, floor, clock, crl_floor }
    }

    /// Simulated roots a tenant lists.
    pub fn simulated_anchors(&self, tenant: &Tenant) -> impl Iterator<Item = &SpkiDigest> {
        self.anchors.get(tenant).into_iter().flatten()
    }

    /// Judges evidence whose REPORT_DATA must be `expected`. Blocks: the public-key work, and the ledger where a revocation
    /// list is newer than any before.
    ///
    /// # Errors
    /// [`NotAdmitted`] with every reason of the first stage that fails.
    pub fn judge(&self, evidence: &Evidence, expected: &ReportData) -> Result<Judged, NotAdmitted> {
        let document = Document::parse(evidence.workload_spec.clone()).map_err(|error| spec_invalid(&error))?;
        let tenant = document.spec().tenant.clone();
        let verified = self.authentic(evidence, expected, &tenant)?;
        tee_fits(document.spec().tee, &verified)?;
        // The floor holds for whoever wants anything; who is admitted is asked at each release.
        self.appraise(&verified, Admission::FloorOnly)?;
        Ok(Judged { verified, document, tenant })
    }

    /// The typed floor, and what [`Admission`] asks for beside it.
    ///
    /// # Errors
    /// [`NotAdmitted`] with every reason.
    pub fn appraise(&self, verified: &VerifiedReport, admission: Admission) -> Result<AttestationResult, NotAdmitted> {
        let floor = self.floor.clone();
        let policy = match admission {
            Admission::FloorOnly => floor,
            Admission::Listed { pairs, signers } => floor.with_pairs(pairs).with_signers(signers),
        };
        appraise(verified, &policy).map_err(|rejection| NotAdmitted {
            code: "evidence-refused",
            reasons: rejection.reasons().iter().map(ToString::to_string).collect(),
        })
    }

    fn authentic(
        &self,
        evidence: &Evidence,
        expected: &ReportData,
        tenant: &Tenant,
    ) -> Result<VerifiedReport, NotAdmitted> {
        let bad = |reason: String| NotAdmitted { code: "evidence-not-authentic", reasons: vec![reason] };
        let mut endorsements = Endorsements::from_evidence(evidence).map_err(|error| bad(coffer_rim::chain(&error)))?;
        endorsements.merge(&self.endorsements);
        let anchors = self.simulated_anchors(tenant).fold(TrustAnchors::amd(), |all, one| all.with_simulated(*one));
        let now = UnixTime::from_secs(self.clock.now());
        let check = |crl: &CrlPolicy| {
            verify(&evidence.report, &endorsements, &anchors, &ExpectedReportData::Exactly(*expected), crl, now)
        };
        let verified = check(&CrlPolicy::Required).map_err(|error| bad(authenticity(&error, tenant)))?;
        let CrlStatus::Checked { number, .. } = verified.crl() else {
            return Err(bad("revocation was not checked".into()));
        };
        let anchor = verified.anchor().spki_sha256;
        self.crl_floor.admit(anchor, number).map_err(|error| bad(coffer_rim::chain(&error)))?;
        Ok(verified)
    }
}

/// A spec that asks for hardware is not met by a simulator, whatever roots are listed.
fn tee_fits(tee: Tee, verified: &VerifiedReport) -> Result<(), NotAdmitted> {
    let fits = match tee {
        Tee::Snp => !verified.simulated(),
        Tee::Simulated => verified.simulated(),
        Tee::None => false,
    };
    if fits {
        return Ok(());
    }
    let reason = format!("tee: spec says {tee:?}, evidence rests on {}", verified.anchor());
    Err(NotAdmitted { code: "tee-mismatch", reasons: vec![reason] })
}

fn authenticity(error: &VerifyError, tenant: &Tenant) -> String {
    format!("{} (roots: AMD's, and the simulated ones listed for tenant {tenant})", coffer_rim::chain(error))
}

/// The defect without the guest's words.
fn spec_invalid(error: &SpecError) -> NotAdmitted {
    let reason = match error {
        SpecError::TooLong { .. } | SpecError::Encoding => error.to_string(),
        SpecError::Toml { part, .. } => format!("workload spec: {part} does not parse"),
        SpecError::Field { field, expected, .. } => format!("workload spec field {field}: expected {expected}"),
        _ => "workload spec is invalid".into(),
    };
    NotAdmitted { code: "spec-invalid", reasons: vec![reason] }
}

/// What the audit trail keeps of a guest.
pub fn facts(verified: &VerifiedReport) -> GuestFacts {
    let report = verified.report();
    GuestFacts {
        measurement: report.measurement().to_string(),
        workload_digest: report.host_data().to_string(),
        report_id: report.report_id().to_string(),
        chip_id: report.chip_id().to_string(),
        anchor: if verified.simulated() { "simulated" } else { "amd" }.into(),
        anchor_fingerprint: verified.anchor().spki_sha256.to_string(),
    }
}

/// [`GuestVerifier`] as the connection layer wants it.
pub struct AtConnection(pub Arc<GuestVerifier>);

impl Appraiser for AtConnection {
    type Admitted = Judged;

    fn appraise(&self, evidence: &Evidence, expected: &ReportData) -> Result<Judged, Refusal> {
        self.0.judge(evidence, expected).map_err(|no| Refusal { code: no.code, detail: no.reasons.join("; ") })
    }
}
