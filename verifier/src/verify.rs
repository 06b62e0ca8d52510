//! Is a report authentic: signed by a key that chains to an anchor, over exactly these bytes, for this use, now.
//!
//! Two steps. [`VerifiedChain::verify`] takes the certificates once; [`VerifiedChain::verify_report`] takes any number of
//! reports under that leaf. [`verify()`] does both. ECDSA is malleable: where (r, s) verifies, (r, n-s) does as well, so
//! the hash of a report is no identity. REPORT_ID is.
//! Source: SNP ABI, ATTESTATION_REPORT and "Signature"; AMD 57230; RFC 5280 §6.

use aws_lc_rs::signature::ParsedPublicKey;

mod error;
mod verified;

pub use error::{ChainError, VerifyError};
pub use verified::{CrlStatus, VerifiedReport};

use crate::{
    UnixTime,
    abi::{ProductLine, Report, ReportData, SigningKey, WorkloadDigest, report::VMPL_HOST},
    anchors::{Anchor, TrustAnchors},
    chain::{Certificate, CertificateRole, Crl, LeafFacts},
    endorsements::{EndorsementKind, EndorsementRequest, Endorsements},
    evidence::Evidence,
};

/// What REPORT_DATA must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedReportData {
    /// Exactly this; see [`crate::binding`].
    Exactly(ReportData),
    /// Waives the binding: the report may be old, and made for anybody.
    Any,
}

/// What a revocation list is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CrlPolicy {
    /// A fresh list by the root must be there and must not name a certificate of the chain.
    #[default]
    Required,
    /// The same, and its number must be at least this: the highest one seen for that root.
    AtLeast(u64),
    /// Waives revocation; the result says so.
    Waived,
}

/// A chain from leaf to anchor whose signatures, dates, CA bits and revocations are checked. Reusable for every report
/// under that leaf while its dates last; key a cache by [`Self::leaf_spki`], since AMD re-issues certificates.
#[derive(Clone)]
pub struct VerifiedChain {
    leaf_key: ParsedPublicKey,
    leaf: LeafFacts,
    leaf_spki: crate::abi::SpkiDigest,
    anchor: Anchor,
    not_before: UnixTime,
    not_after: UnixTime,
    crl: CrlStatus,
}

/// Verifies one report: chain, then report.
///
/// # Errors
/// [`VerifyError`], the first check that fails; [`VerifyError::Missing`] names what to fetch.
pub fn verify(
    report: &[u8],
    endorsements: &Endorsements,
    anchors: &TrustAnchors,
    expected: &ExpectedReportData,
    crl: &CrlPolicy,
    now: UnixTime,
) -> Result<VerifiedReport, VerifyError> {
    let report = Report::parse(report)?;
    precheck(&report)?;
    let candidates = leaf_candidates(&report, endorsements)?;
    let mut first_error = None;
    for leaf in candidates {
        match VerifiedChain::build(&report, leaf, endorsements, anchors, crl, now)
            .and_then(|chain| chain.check_report(report.clone(), expected, now))
        {
            Ok(verified) => return Ok(verified),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| missing(&report, EndorsementKind::Leaf(report.signing_key()), None)))
}

/// Verifies evidence as it travelled: what came with it is tried first, then `others`; the workload spec it carries must be
/// the one HOST_DATA names.
///
/// # Errors
/// [`VerifyError`], the first check that fails.
pub fn verify_evidence(
    evidence: &Evidence,
    others: &Endorsements,
    anchors: &TrustAnchors,
    expected: &ExpectedReportData,
    crl: &CrlPolicy,
    now: UnixTime,
) -> Result<VerifiedReport, VerifyError> {
    let mut endorsements = Endorsements::from_evidence(evidence)?;
    endorsements.merge(others)?;
    let verified = verify(&evidence.report, &endorsements, anchors, expected, crl, now)?;
    if !evidence.workload_spec.is_empty() {
        let computed = WorkloadDigest::of(&evidence.workload_spec);
        let stated = verified.report.host_data();
        if computed.host_data() != stated {
            return Err(VerifyError::WorkloadSpec { computed, stated });
        }
    }
    Ok(verified)
}

/// What can be refused without any certificate.
fn precheck(report: &Report) -> Result<(), VerifyError> {
    if report.vmpl() == VMPL_HOST {
        return Err(VerifyError::HostRequested);
    }
    let key = report.key_info();
    if key.signing_key == SigningKey::None || (key.mask_chip_key && key.signing_key == SigningKey::Vcek) {
        return Err(VerifyError::NotSigned);
    }
    if let (Some(cpu), None) = (report.cpuid(), report.product()) {
        return Err(VerifyError::UnknownProduct { family: cpu.family, model: cpu.model });
    }
    Ok(())
}

/// Leaves of the stated kind, those that fit the report by their extensions first; at most two are tried.
fn leaf_candidates<'a>(report: &Report, endorsements: &'a Endorsements) -> Result<Vec<&'a Certificate>, VerifyError> {
    let kind = report.signing_key();
    let mut leaves: Vec<(bool, &Certificate)> = endorsements
        .certificates()
        .iter()
        .filter_map(|certificate| match certificate.leaf() {
            Some(facts) if facts.key == kind => Some((check_facts(report, facts).is_err(), certificate)),
            _ => None,
        })
        .collect();
    leaves.sort_by_key(|(misfit, _)| *misfit);
    if leaves.is_empty() {
        return Err(missing(report, EndorsementKind::Leaf(kind), None));
    }
    Ok(leaves.into_iter().take(2).map(|(_, certificate)| certificate).collect())
}

fn missing(report: &Report, kind: EndorsementKind, product: Option<ProductLine>) -> VerifyError {
    VerifyError::Missing(Box::new(EndorsementRequest::for_report(report, kind, product)))
}

/// What the leaf certifies against what the report says.
fn check_facts(report: &Report, leaf: &LeafFacts) -> Result<(), VerifyError> {
    if report.signing_key() != leaf.key {
        return Err(VerifyError::SigningKey { stated: report.signing_key(), certified: leaf.key });
    }
    if let Some(stated) = report.product()
        && stated != leaf.product
    {
        return Err(VerifyError::Product { stated, certified: leaf.product });
    }
    let tcbs = report.tcbs(leaf.product).map_err(crate::abi::ReportError::from)?;
    if tcbs.reported != leaf.tcb {
        return Err(VerifyError::Tcb { key: leaf.key, reported: tcbs.reported, certified: leaf.tcb });
    }
    if let Some(hwid) = &leaf.hwid {
        let chip = report.chip_id();
        let (id, rest) = chip.as_bytes().split_at(leaf.product.hwid_len());
        // A masked CHIP_ID is all zero; then the signature alone ties the report to the certified chip.
        if !chip.is_zero() && (id != hwid || rest.iter().any(|byte| *byte != 0)) {
            return Err(VerifyError::ChipId { reported: Box::new(chip), certified: hwid.clone() });
        }
    }
    Ok(())
}

impl VerifiedChain {
    /// Verifies the chain that `report` needs, for use with any report under the same leaf.
    ///
    /// # Errors
    /// [`VerifyError`] about the chain; the report's own signature is not looked at.
    pub fn verify(
        report: &Report,
        endorsements: &Endorsements,
        anchors: &TrustAnchors,
        crl: &CrlPolicy,
        now: UnixTime,
    ) -> Result<Self, VerifyError> {
        precheck(report)?;
        let mut first_error = None;
        for leaf in leaf_candidates(report, endorsements)? {
            match Self::build(report, leaf, endorsements, anchors, crl, now) {
                Ok(chain) => return Ok(chain),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| missing(report, EndorsementKind::Leaf(report.signing_key()), None)))
    }

    fn build(
        report: &Report,
        leaf: &Certificate,
        endorsements: &Endorsements,
        anchors: &TrustAnchors,
        crl: &CrlPolicy,
        now: UnixTime,
    ) -> Result<Self, VerifyError> {
        let facts = leaf.leaf().ok_or(ChainError::Key { certificate: leaf.role() })?;
        check_facts(report, facts)?;
        // AMD replaced a Genoa ASK under the same name, and a host may send the old one beside the right one: two are tried.
        let intermediates = endorsements.certificates().iter().filter(|c| {
            matches!(c.role(), CertificateRole::Intermediate(_, key) if key == facts.key)
                && c.subject() == leaf.issuer()
        });
        let mut first_error = None;
        for intermediate in intermediates.take(2) {
            match Self::build_under(report, (leaf, facts), intermediate, endorsements, anchors, crl, now) {
                Ok(chain) => return Ok(chain),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error
            .unwrap_or_else(|| missing(report, EndorsementKind::Intermediate(facts.key), Some(facts.product))))
    }

    fn build_under(
        report: &Report,
        (leaf, facts): (&Certificate, &LeafFacts),
        intermediate: &Certificate,
        endorsements: &Endorsements,
        anchors: &TrustAnchors,
        crl: &CrlPolicy,
        now: UnixTime,
    ) -> Result<Self, VerifyError> {
        if intermediate.role() != CertificateRole::Intermediate(facts.product, facts.key) {
            return Err(ChainError::ForeignIssuer { leaf: facts.product, issuer: intermediate.role() }.into());
        }
        let (root, anchor) = find_root(report, facts, intermediate, endorsements, anchors)?;

        let mut not_before = UnixTime(i64::MIN);
        let mut not_after = UnixTime(i64::MAX);
        for certificate in [root, intermediate, leaf] {
            let (from, to) = certificate.validity();
            if now < from || now > to {
                return Err(ChainError::Dates { certificate: certificate.role(), from, to, now }.into());
            }
            not_before = not_before.max(from);
            not_after = not_after.min(to);
        }

        let root_key = root.authority_key().ok_or(ChainError::Key { certificate: root.role() })?;
        let issuer_key = intermediate.authority_key().ok_or(ChainError::Key { certificate: intermediate.role() })?;
        let leaf_key = leaf.leaf_key().ok_or(ChainError::Key { certificate: leaf.role() })?;
        for (certificate, key, issuer) in
            [(root, &root_key, root), (intermediate, &root_key, root), (leaf, &issuer_key, intermediate)]
        {
            if !certificate.is_signed_by(key) {
                let (certificate, issuer) = (certificate.role(), issuer.role());
                return Err(ChainError::Signature { certificate, issuer }.into());
            }
        }

        let crl = match crl {
            CrlPolicy::Waived => CrlStatus::Waived,
            CrlPolicy::Required | CrlPolicy::AtLeast(_) => {
                let least = if let CrlPolicy::AtLeast(number) = crl { *number } else { 0 };
                let list = find_crl(report, facts, root, &root_key, endorsements, least, now)?;
                for certificate in [root, intermediate, leaf] {
                    if list.revokes(certificate.serial()) {
                        let (certificate, number) = (certificate.role(), list.number());
                        return Err(ChainError::Revoked { certificate, number }.into());
                    }
                }
                let (_, next_update) = list.validity();
                not_after = not_after.min(next_update);
                CrlStatus::Checked { number: list.number(), next_update }
            }
        };
        let (leaf, leaf_spki) = (facts.clone(), leaf.spki_digest());
        Ok(Self { leaf_key, leaf, leaf_spki, anchor, not_before, not_after, crl })
    }

    /// Verifies a report under this chain's leaf: dates, what the leaf certifies, signature, REPORT_DATA.
    ///
    /// # Errors
    /// [`VerifyError`], the first check that fails.
    pub fn verify_report(
        &self,
        report: &[u8],
        expected: &ExpectedReportData,
        now: UnixTime,
    ) -> Result<VerifiedReport, VerifyError> {
        let report = Report::parse(report)?;
        precheck(&report)?;
        self.check_report(report, expected, now)
    }

    fn check_report(
        &self,
        report: Report,
        expected: &ExpectedReportData,
        now: UnixTime,
    ) -> Result<VerifiedReport, VerifyError> {
        if now < self.not_before || now > self.not_after {
            let (from, to) = (self.not_before, self.not_after);
            return Err(ChainError::Dates { certificate: CertificateRole::Leaf(self.leaf.key), from, to, now }.into());
        }
        check_facts(&report, &self.leaf)?;
        // R and S are little-endian in the report; aws-lc takes them big-endian and refuses 0 and values not below n.
        let (mut r, mut s) = report.signature();
        r.reverse();
        s.reverse();
        let mut signature = [0; 96];
        signature[..48].copy_from_slice(&r);
        signature[48..].copy_from_slice(&s);
        self.leaf_key
            .verify_sig(report.signed_bytes(), &signature)
            .map_err(|_| VerifyError::Signature { key: self.leaf.key })?;
        if let ExpectedReportData::Exactly(expected) = expected {
            let found = report.report_data();
            if found != *expected {
                return Err(VerifyError::ReportData { found: Box::new(found), expected: Box::new(*expected) });
            }
        }
        let tcbs = report.tcbs(self.leaf.product).map_err(crate::abi::ReportError::from)?;
        Ok(VerifiedReport {
            report,
            tcbs,
            leaf: self.leaf.clone(),
            leaf_spki: self.leaf_spki,
            anchor: self.anchor,
            valid: (self.not_before, self.not_after),
            crl: self.crl,
            bound: matches!(expected, ExpectedReportData::Exactly(_)),
            verified_at: now,
        })
    }

    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    pub const fn leaf_spki(&self) -> crate::abi::SpkiDigest {
        self.leaf_spki
    }

    /// First and last second at which every certificate and the revocation list are valid.
    pub const fn validity(&self) -> (UnixTime, UnixTime) {
        (self.not_before, self.not_after)
    }

    /// The root it rests on.
    pub const fn anchor(&self) -> Anchor {
        self.anchor
    }
}

/// The root the intermediate names, if it is an anchor.
fn find_root<'a>(
    report: &Report,
    facts: &LeafFacts,
    intermediate: &Certificate,
    endorsements: &'a Endorsements,
    anchors: &TrustAnchors,
) -> Result<(&'a Certificate, Anchor), VerifyError> {
    let roots = || {
        endorsements.certificates().iter().filter(|c| {
            matches!(c.role(), CertificateRole::Root(_))
                && c.subject() == intermediate.issuer()
                && c.issuer() == c.subject()
        })
    };
    let anchored = roots().find_map(|root| {
        if root.role() != CertificateRole::Root(facts.product) {
            return None;
        }
        Some((root, anchors.find(root.spki_digest(), facts.product)?))
    });
    match (anchored, roots().next()) {
        (Some(found), _) => Ok(found),
        (None, Some(root)) => {
            Err(ChainError::UntrustedRoot { spki: root.spki_digest(), product: facts.product }.into())
        }
        (None, None) => Err(missing(report, EndorsementKind::Root(facts.key), Some(facts.product))),
    }
}

/// The newest list by this root that is valid now. A list that fails its own checks is passed over, unless there is
/// no other: then its failure is the answer.
fn find_crl<'a>(
    report: &Report,
    facts: &LeafFacts,
    root: &Certificate,
    root_key: &ParsedPublicKey,
    endorsements: &'a Endorsements,
    least: u64,
    now: UnixTime,
) -> Result<&'a Crl, VerifyError> {
    let mut lists: Vec<&Crl> = endorsements.crls().iter().filter(|list| list.issuer() == root.subject()).collect();
    lists.sort_by_key(|list| core::cmp::Reverse(list.number()));
    let mut first_error = None;
    for list in lists {
        let (from, to) = list.validity();
        let number = list.number();
        let error = if !list.is_signed_by(root_key) {
            ChainError::CrlSignature { issuer: root.role() }
        } else if now < from || now > to {
            ChainError::CrlDates { number, from, to, now }
        } else if number < least {
            ChainError::CrlNumber { found: number, least }
        } else {
            return Ok(list);
        };
        first_error.get_or_insert(error);
    }
    Err(match first_error {
        Some(error) => error.into(),
        None => missing(report, EndorsementKind::Crl(facts.key), Some(facts.product)),
    })
}
