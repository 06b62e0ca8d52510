//! Judges a guest's evidence: spec, tenant, authenticity, typed floor. Done at attestation, and again at each release.
//!
//! Trusts: AMD's roots, and for one tenant the simulated roots its operator listed. Believes the workload spec only as
//! far as HOST_DATA and the admitted measurement carry it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use coffer_spec::{Document, SpecError, Tee};
use coffer_verifier::{
    Appraisal, CheckLine, ConnectionChain, Cost, CrlPolicy, CrlStatus, Endorsements, Evidence, EvidencePolicy,
    ExpectedGuest, ExpectedReportData, MaxAge, TrustAnchors, UnixTime, VerifiedReport, Verifier,
    abi::{ReportData, SpkiDigest},
    chain::Crl,
    verify_crl,
};

use crate::{
    admission::Admission,
    clock::Clock,
    crl_floor::{CrlFloor, CrlFloorError, older},
    floors::Floors,
    guests::Presence,
    revoked::Chipless,
    shares::Share,
    standing::Standing,
    store::{GuestFacts, Store, StoreError, StoredCrl},
    tenant::Tenant,
};

/// Evidence that is authentic and above the typed floor; nothing is released on it alone.
pub struct Judged {
    /// The verified report.
    pub verified: VerifiedReport,
    /// The guest's spec, whose digest is HOST_DATA.
    pub document: Arc<Document>,
    /// Tenant the spec names.
    pub tenant: Tenant,
    /// Its chain, verified once for the connection it came on.
    chain: Arc<ConnectionChain>,
    /// What this guest holds of its connections: with whoever attested, not with who is judged again.
    pub(crate) share: Option<Share>,
    /// Whether anything that is listed admits it.
    pub(crate) standing: Standing,
    /// Its entry among those who are known.
    presence: Mutex<Option<Presence>>,
}

impl Judged {
    /// It is one of the known from now on.
    pub(crate) fn enter(&self, presence: Presence) {
        *self.presence.lock().unwrap_or_else(PoisonError::into_inner) = Some(presence);
    }

    /// It is no more.
    pub(crate) fn leave(&self) {
        let left = self.presence.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(left);
    }
}

/// Why evidence is not admitted: a word for the peer, and every reason for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAdmitted {
    /// Stable word.
    pub code: &'static str,
    /// Reasons, without guest text.
    pub reasons: Vec<String>,
    /// What was checked; empty if it never came to that.
    pub checks: Vec<CheckLine>,
    /// The tenant its spec names, if it came to that; nothing shows yet that the spec is the guest's.
    pub tenant: Option<Tenant>,
}

impl NotAdmitted {
    /// For a defect that is found before anything is checked.
    pub(crate) fn early(code: &'static str, reason: String) -> Self {
        Self { code, reasons: vec![reason], checks: Vec::new(), tenant: None }
    }

    /// Of a guest whose spec names this tenant.
    pub(crate) fn of(self, tenant: Tenant) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    fn by(code: &'static str, appraisal: &Appraisal) -> Self {
        let reasons = appraisal.reasons().iter().map(ToString::to_string).collect();
        Self { code, reasons, checks: appraisal.checks(), tenant: None }
    }
}

/// What the configuration says about evidence. Replaced as a whole, also while guests ask.
pub struct Rules {
    /// Simulated roots by tenant.
    pub anchors: BTreeMap<Tenant, BTreeSet<SpkiDigest>>,
    /// Certificates and revocation lists at hand.
    pub endorsements: Endorsements,
    /// Typed floors.
    pub floors: Floors,
    /// Whether evidence counts that shows no chip while chips are revoked.
    pub chipless: Chipless,
}

/// Judges evidence.
pub struct GuestVerifier {
    rules: RwLock<Arc<Rules>>,
    /// Revocation lists that operators brought.
    brought: RwLock<Endorsements>,
    /// Held by whoever brings them.
    bringing: tokio::sync::Mutex<()>,
    /// They, and what the configuration has.
    at_hand: RwLock<Arc<Endorsements>>,
    /// How often they were replaced.
    edition: AtomicU64,
    clock: Clock,
    crl_floor: CrlFloor,
    cost: Mutex<Cost>,
}

impl GuestVerifier {
    /// With what the configuration lists.
    pub fn new(rules: Rules, clock: Clock, crl_floor: CrlFloor) -> Self {
        Self {
            at_hand: RwLock::new(Arc::new(rules.endorsements.clone())),
            brought: RwLock::default(),
            bringing: tokio::sync::Mutex::default(),
            rules: RwLock::new(Arc::new(rules)),
            edition: AtomicU64::new(0),
            clock,
            crl_floor,
            cost: Mutex::default(),
        }
    }

    /// Puts other rules in place: they count from the next attestation and release on.
    pub fn replace(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.gather();
    }

    /// Brings what the ledger has, and knows what it has as seen: so that nobody who shows it waits to store it. A row that is not
    /// believed stops no other.
    ///
    /// # Errors
    /// As the store.
    pub async fn bring_what_is_stored(&self, store: &Store) -> Result<(), StoreError> {
        // One after the other: whoever reads later brings more.
        let _alone = self.bringing.lock().await;
        let mut view = store.read().await?;
        let mut lists = Vec::new();
        for list in view.crls().await? {
            match list {
                Ok(list) => lists.push(list),
                Err(error) => {
                    let (error, hint) = (coffer_rim::chain(&error), error.hint());
                    tracing::error!(error = %error, hint, "stored row is not believed");
                }
            }
        }
        for list in &lists {
            if let Ok(Some(highest)) = view.crl_number(&list.root).await {
                self.crl_floor.remember(list.root, highest);
            }
        }
        self.bring(&lists);
        Ok(())
    }

    /// Has these lists at hand, in place of all that were brought before: they count from the next attestation and release on.
    fn bring(&self, lists: &[StoredCrl]) {
        let mut all = Endorsements::new();
        for list in lists {
            if let Err(error) = all.add_crl(&list.der) {
                tracing::error!(root = %list.root, %error, "a stored revocation list does not parse");
            }
        }
        *self.brought.write().unwrap_or_else(PoisonError::into_inner) = all;
        self.gather();
    }

    fn gather(&self) {
        // Held while it reads: what is gathered later is never less.
        let mut at_hand = self.at_hand.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.rules().endorsements.clone();
        all.merge(&self.brought.read().unwrap_or_else(PoisonError::into_inner));
        *at_hand = Arc::new(all);
        self.edition.fetch_add(1, Ordering::Release);
    }

    /// A revocation list, and the root whose it is: AMD's, or one that some tenant lists. `root`: its certificate, where it is not
    /// at hand.
    ///
    /// # Errors
    /// In words, which name `crl` or `root`.
    pub fn issuer_of(&self, crl: &[u8], root: Option<&[u8]>) -> Result<(Crl, SpkiDigest), String> {
        let (mut roots, mut lists) = (Endorsements::new(), Endorsements::new());
        if let Some(root) = root {
            roots.add_certificates(root).map_err(|error| format!("root: {}", coffer_rim::chain(&error)))?;
        }
        lists.add_crl(crl).map_err(|error| format!("crl: {}", coffer_rim::chain(&error)))?;
        let mut lists = lists.crls();
        let (Some(list), None) = (lists.next(), lists.next()) else {
            return Err("crl: expected one revocation list".to_owned());
        };
        let rules = self.rules();
        roots.merge(&rules.endorsements);
        let listed = rules.anchors.values().flatten();
        let anchors = listed.fold(TrustAnchors::amd(), |all, one| all.with_simulated(*one));
        let anchor = verify_crl(list, &roots, &anchors, UnixTime::from_secs(self.clock.now()))
            .map_err(|error| format!("crl: {}", coffer_rim::chain(&error)))?;
        Ok((list.clone(), anchor.spki_sha256))
    }

    /// How old a manifest may be that admits this guest.
    pub fn max_manifest_age(&self, judged: &Judged) -> MaxAge {
        self.rules().floors.max_manifest_age(judged.verified.simulated(), &judged.tenant)
    }

    /// Changes with the rules: what was found out under one edition of them may not hold under another.
    pub fn edition(&self) -> u64 {
        self.edition.load(Ordering::Acquire)
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Simulated roots a tenant lists.
    pub fn simulated_anchors(&self, tenant: &Tenant) -> impl Iterator<Item = SpkiDigest> + use<> {
        self.rules().anchors.get(tenant).cloned().unwrap_or_default().into_iter()
    }

    /// Whether evidence counts that shows no chip while chips are revoked.
    pub fn chipless(&self) -> Chipless {
        self.rules().chipless
    }

    /// Public-key operations since the start.
    pub fn cost(&self) -> Cost {
        *self.cost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges evidence that came on a connection, whose REPORT_DATA must be `expected`. Blocks: the public-key work, and the
    /// ledger where a revocation list is newer than any before.
    ///
    /// # Errors
    /// [`NotAdmitted`] with every reason of the first stage that fails.
    pub fn judge(&self, evidence: &Evidence, expected: &ReportData) -> Result<Judged, NotAdmitted> {
        let document = Document::parse(evidence.workload_spec.clone()).map_err(|error| spec_invalid(&error))?;
        self.judge_on(Arc::default(), Arc::new(document), evidence, expected)
    }

    /// The same evidence of the same connection, under today's roots, revocations and floor. Its chain and signature are verified
    /// anew only if anything they rest on has changed, and the spec is read as it was.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn judge_again(
        &self,
        judged: &Judged,
        evidence: &Evidence,
        expected: &ReportData,
    ) -> Result<Judged, NotAdmitted> {
        if judged.document.bytes() != evidence.workload_spec {
            return self.judge(evidence, expected);
        }
        self.judge_on(judged.chain.clone(), judged.document.clone(), evidence, expected)
    }

    fn judge_on(
        &self,
        chain: Arc<ConnectionChain>,
        document: Arc<Document>,
        evidence: &Evidence,
        expected: &ReportData,
    ) -> Result<Judged, NotAdmitted> {
        let tenant = document.spec().tenant.clone();
        let judged = self.above_the_floor(&chain, &document, evidence, expected);
        let verified = judged.map_err(|no| no.of(tenant.clone()))?;
        let (standing, presence) = (Standing::default(), Mutex::default());
        Ok(Judged { verified, document, tenant, chain, share: None, standing, presence })
    }

    fn above_the_floor(
        &self,
        chain: &ConnectionChain,
        document: &Document,
        evidence: &Evidence,
        expected: &ReportData,
    ) -> Result<VerifiedReport, NotAdmitted> {
        let tenant = &document.spec().tenant;
        let verified = self.authentic(chain, evidence, expected, tenant)?;
        tee_fits(document.spec().tee, &verified)?;
        // The floor holds for whoever wants anything; who is admitted is asked at each release.
        let appraisal = self.appraise(&verified, Admission::FloorOnly);
        if appraisal.result().is_none() {
            return Err(NotAdmitted::by("evidence-refused", &appraisal));
        }
        if let Some(floor) = self.rules().floors.of_tenant(tenant) {
            let verifier = Verifier { policy: floor.clone(), ..Self::verifier(TrustAnchors::amd()) };
            let appraisal = verifier.appraise(verified.clone(), &ExpectedGuest::WhateverThePolicyAdmits);
            if appraisal.result().is_none() {
                return Err(NotAdmitted::by("evidence-refused", &appraisal));
            }
        }
        Ok(verified)
    }

    /// The typed floor, and what [`Admission`] asks for beside it, which the floor can only narrow.
    pub fn appraise(&self, verified: &VerifiedReport, admission: Admission) -> Appraisal {
        let guest = match admission {
            Admission::FloorOnly => ExpectedGuest::WhateverThePolicyAdmits,
            Admission::Listed { pairs, signers } => ExpectedGuest::Admitted { pairs, signers },
        };
        let policy = self.rules().floors.of(verified.simulated()).clone();
        Verifier { policy, ..Self::verifier(TrustAnchors::amd()) }.appraise(verified.clone(), &guest)
    }

    /// What a policy of its own says beside the floor and admission, which it can only narrow.
    pub fn appraise_under(verified: &VerifiedReport, policy: EvidencePolicy) -> Appraisal {
        let verifier = Verifier { policy, ..Self::verifier(TrustAnchors::amd()) };
        verifier.appraise(verified.clone(), &ExpectedGuest::WhateverThePolicyAdmits)
    }

    /// Without a floor: authenticity does not depend on one.
    fn verifier(anchors: TrustAnchors) -> Verifier {
        Verifier { anchors, crl: CrlPolicy::Required, policy: EvidencePolicy::default_floor() }
    }

    fn authentic(
        &self,
        chain: &ConnectionChain,
        evidence: &Evidence,
        expected: &ReportData,
        tenant: &Tenant,
    ) -> Result<VerifiedReport, NotAdmitted> {
        const CODE: &str = "evidence-not-authentic";
        let rules = self.rules();
        let listed = rules.anchors.get(tenant).into_iter().flatten();
        let anchors = listed.fold(TrustAnchors::amd(), |all, one| all.with_simulated(*one));
        let now = UnixTime::from_secs(self.clock.now());
        let expected = ExpectedReportData::Exactly(*expected);
        let at_hand = self.at_hand.read().unwrap_or_else(PoisonError::into_inner).clone();
        let judged = Self::verifier(anchors).authenticate(chain, evidence, &at_hand, &expected, now);
        let cost = judged.as_ref().map_or_else(|appraisal| appraisal.cost(), VerifiedReport::cost);
        *self.cost.lock().unwrap_or_else(PoisonError::into_inner) += cost;
        let verified = judged.map_err(|appraisal| NotAdmitted::by(CODE, &appraisal))?;
        let CrlStatus::Checked { number, .. } = verified.crl() else {
            return Err(NotAdmitted::early(CODE, "revocation was not checked".to_owned()));
        };
        self.crl_floor.admit(verified.anchor().spki_sha256, number).map_err(|error| match &error {
            CrlFloorError::Older { number, highest } => NotAdmitted::early(CODE, older(*number, *highest)),
            CrlFloorError::Store(_) => NotAdmitted::early(CODE, coffer_rim::chain(&error)),
        })?;
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
    Err(NotAdmitted::early("tee-mismatch", reason))
}

/// The defect without the guest's words.
fn spec_invalid(error: &SpecError) -> NotAdmitted {
    let reason = match error {
        SpecError::TooLong { .. } | SpecError::Encoding => error.to_string(),
        SpecError::Toml { part, .. } => format!("workload spec: {part} does not parse"),
        SpecError::Field { field, expected, .. } => format!("workload spec field {field}: expected {expected}"),
        _ => "workload spec is invalid".into(),
    };
    NotAdmitted::early("spec-invalid", reason)
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
