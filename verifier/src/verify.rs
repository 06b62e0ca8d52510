//! Is a report authentic: signed by a key that chains to an anchor, over exactly these bytes, for this use, now.
//!
//! Two steps. [`VerifiedChain::verify`] takes the certificates once; [`VerifiedChain::verify_report`] takes any number of
//! reports under that leaf. [`verify()`] does both. ECDSA is malleable: where (r, s) verifies, (r, n-s) does as well, so
//! the hash of a report is no identity. REPORT_ID is.
//! Source: SNP ABI, ATTESTATION_REPORT and "Signature"; AMD 57230; RFC 5280 §6.

use std::{borrow::Cow, sync::Arc};

use aws_lc_rs::signature::ParsedPublicKey;

mod candidates;
mod error;
mod facts;
mod given;
mod issued;
mod list;
mod verified;

use candidates::{find_crl, find_root, intermediates_of, leaf_candidates, missing};

use facts::check_facts;
pub(crate) use given::Given;

pub use error::{ChainError, VerifyError};
pub use given::CrlPolicy;
pub use issued::{CertificateIssuerError, revoked_issuers, verify_certificate};
pub use list::{CrlIssuerError, verify_crl};
pub use verified::{CrlStatus, ReportBinding, VerifiedReport};

use crate::{
    CheckLine, Code, Cost, Outcome, UnixTime,
    abi::{Report, ReportData, SigningKey, SpkiDigest, report::VMPL_HOST},
    anchors::{Anchor, TrustAnchors},
    chain::{Certificate, CertificateRole, LeafFacts, authorities},
    endorsement_request::EndorsementKind,
    endorsements::Endorsements,
    evidence::Evidence,
    trail::Trail,
};

/// What REPORT_DATA must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedReportData {
    /// Exactly this, which the caller computed from its own challenge or connection; see [`crate::binding`].
    Exactly(ReportData),
    /// The hash of data the report travelled with. It shows that the two belong together, and neither when nor for whom the
    /// report was made: whoever has both may show both again.
    Attachment(ReportData),
    /// Waives the binding: the report may be old, and made for anybody.
    Any,
}

/// A chain from leaf to anchor whose signatures, dates, CA bits and revocations are checked. Reusable for every report
/// under that leaf while its dates last; key a cache by [`Self::leaf_spki`], since AMD re-issues certificates.
#[derive(Clone)]
pub struct VerifiedChain {
    leaf_key: ParsedPublicKey,
    leaf: LeafFacts,
    leaf_spki: SpkiDigest,
    leaf_validity: (UnixTime, UnixTime),
    anchor: Anchor,
    not_before: UnixTime,
    not_after: UnixTime,
    crl: CrlStatus,
    /// What was checked, as it was checked.
    lines: Arc<[CheckLine]>,
}

/// Whether the signature of a report is known to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportSignature {
    /// It is not.
    Unchecked,
    /// It held, of these very bytes under the leaf of this very chain.
    HeldForTheseBytes,
}

/// The first of several attempts that succeeds; else the first failure, with what had been checked until then.
fn first_of<T, R>(
    attempts: impl IntoIterator<Item = T>,
    trail: &mut Trail,
    mut attempt: impl FnMut(T, &mut Trail) -> Result<R, VerifyError>,
) -> Option<Result<R, VerifyError>> {
    let mut first_error = None;
    for one in attempts {
        let mut own = Trail::new();
        match attempt(one, &mut own) {
            Ok(done) => {
                trail.append(own);
                return Some(Ok(done));
            }
            Err(error) => {
                trail.cost += core::mem::take(&mut own.cost);
                first_error.get_or_insert((error, own));
            }
        }
    }
    first_error.map(|(error, own)| {
        trail.append(own);
        Err(error)
    })
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
    let given = Given { bags: &[endorsements], anchors, crl, now, soonest: false };
    let mut trail = Trail::new();
    let report = well_formed(report, &mut trail)?;
    let (_, verified) = VerifiedChain::authenticate(&report, &given, expected, &mut trail)?;
    Ok(verified.with_trail(trail))
}

/// A report worth looking for certificates for.
pub(crate) fn well_formed(bytes: &[u8], trail: &mut Trail) -> Result<Report, VerifyError> {
    let report = Report::parse(bytes)?;
    trail.pass(
        Code::ReportMalformed,
        format_args!("version {}", report.version()),
        "version 2 to 5, reserved bytes and bits as they must be",
    );
    precheck(&report, trail)?;
    Ok(report)
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
    let sent = Endorsements::from_evidence(evidence)?;
    let given = Given { bags: &[&sent, others], anchors, crl, now, soonest: false };
    let mut trail = Trail::new();
    let report = well_formed(&evidence.report, &mut trail)?;
    let (_, verified) = VerifiedChain::authenticate(&report, &given, expected, &mut trail)?;
    verified.with_spec(&evidence.workload_spec, &mut trail).map(|verified| verified.with_trail(trail))
}

/// What can be refused without any certificate.
fn precheck(report: &Report, trail: &mut Trail) -> Result<(), VerifyError> {
    if report.vmpl() == VMPL_HOST {
        return Err(VerifyError::HostRequested);
    }
    trail.pass(Code::HostRequested, format_args!("VMPL {}", report.vmpl()), "VMPL 0 to 3");
    let key = report.key_info();
    if key.signing_key == SigningKey::None || (key.mask_chip_key && key.signing_key == SigningKey::Vcek) {
        return Err(VerifyError::NotSigned);
    }
    trail.pass(Code::NotSigned, format_args!("by a {}", key.signing_key), "a VCEK or VLEK signature");
    if let (Some(cpu), None) = (report.cpuid(), report.product()) {
        return Err(VerifyError::UnknownProduct { family: cpu.family, model: cpu.model });
    }
    match report.product() {
        Some(product) => trail.pass(Code::ProductUnknown, product, "Milan, Genoa or Turin"),
        None => trail.skip(Code::ProductUnknown, "a version 2 report does not state its processor"),
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
        let mut trail = Trail::new();
        precheck(report, &mut trail)?;
        Self::find(report, &Given { bags: &[endorsements], anchors, crl, now, soonest: false }, &mut trail)
    }

    /// The chain this report needs, from what is given. Its lines stay with it.
    fn find(report: &Report, given: &Given<'_>, trail: &mut Trail) -> Result<Self, VerifyError> {
        let leaves = leaf_candidates(report, given)?;
        first_of(leaves, trail, |leaf, trail| Self::build(report, leaf, given, trail))
            .unwrap_or_else(|| Err(missing(report, EndorsementKind::Leaf(report.signing_key()), None, given)))
    }

    /// The chain under which this report holds: where two leaves fit by what they certify, the signature decides.
    pub(crate) fn authenticate(
        report: &Report,
        given: &Given<'_>,
        expected: &ExpectedReportData,
        trail: &mut Trail,
    ) -> Result<(Self, VerifiedReport), VerifyError> {
        let leaves = leaf_candidates(report, given)?;
        first_of(leaves, trail, |leaf, trail| {
            let (chain, signature) = if given.soonest {
                Self::build_beside_signature(report, leaf, given, trail)?
            } else {
                (Self::build(report, leaf, given, trail)?, ReportSignature::Unchecked)
            };
            let verified = chain.check_report(report, signature, expected, given.now, trail)?;
            Ok((chain, verified))
        })
        .unwrap_or_else(|| Err(missing(report, EndorsementKind::Leaf(report.signing_key()), None, given)))
    }

    /// As [`Self::build`], while another thread looks at the report's signature. One that does not hold is looked at again where its
    /// turn is, and so is each where there is no other thread.
    fn build_beside_signature(
        report: &Report,
        leaf: &Certificate,
        given: &Given<'_>,
        trail: &mut Trail,
    ) -> Result<(Self, ReportSignature), VerifyError> {
        std::thread::scope(|scope| {
            let look = || leaf.leaf_key().is_some_and(|key| signature_holds(&key, report));
            let beside = std::thread::Builder::new().spawn_scoped(scope, look).ok();
            let chain = Self::build(report, leaf, given, trail);
            let holds = beside.is_some_and(|beside| {
                trail.cost.ecdsa += 1;
                beside.join().unwrap_or(false)
            });
            let signature = if holds { ReportSignature::HeldForTheseBytes } else { ReportSignature::Unchecked };
            chain.map(|chain| (chain, signature))
        })
    }

    fn build(report: &Report, leaf: &Certificate, given: &Given<'_>, trail: &mut Trail) -> Result<Self, VerifyError> {
        let facts = leaf.leaf().ok_or(ChainError::Key { certificate: leaf.role() })?;
        check_facts(report, facts, &mut Trail::silent())?;
        // AMD replaced a Genoa ASK under the same name, and a host may send the old one beside the right one: two are tried.
        let intermediates = intermediates_of(leaf, facts, given);
        first_of(intermediates.into_iter().take(2), trail, |intermediate, trail| {
            Self::build_under(report, (leaf, facts), intermediate, given, trail)
        })
        .unwrap_or_else(|| Err(missing(report, EndorsementKind::Intermediate(facts.key), Some(facts.product), given)))
    }

    fn build_under(
        report: &Report,
        (leaf, facts): (&Certificate, &LeafFacts),
        intermediate: &Certificate,
        given: &Given<'_>,
        trail: &mut Trail,
    ) -> Result<Self, VerifyError> {
        let now = given.now;
        if intermediate.role() != CertificateRole::Intermediate(facts.product, facts.key) {
            return Err(ChainError::ForeignIssuer { leaf: facts.product, issuer: intermediate.role() }.into());
        }
        trail.pass(Code::Issuer, intermediate.role(), format_args!("the issuer for {}", facts.product));
        let (root, anchor) = find_root(report, facts, intermediate, given)?;
        trail.pass(Code::UntrustedRoot, anchor, "a pinned or listed root");

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
        trail.pass(
            Code::CertificateDates,
            format_args!("all valid from {not_before} to {not_after}"),
            format_args!("valid at {now}"),
        );

        let root_key = root.authority_key().ok_or(ChainError::Key { certificate: root.role() })?;
        let issuer_key = intermediate.authority_key().ok_or(ChainError::Key { certificate: intermediate.role() })?;
        let leaf_key = leaf.leaf_key().ok_or(ChainError::Key { certificate: leaf.role() })?;
        trail.pass(Code::CertificateKey, "RSA-4096, RSA-4096, P-384", "usable public keys");
        for (certificate, key, issuer) in
            [(root, root_key, root), (intermediate, root_key, root), (leaf, issuer_key, intermediate)]
        {
            trail.cost.rsa += 1;
            if !certificate.is_signed_by(key) {
                let (certificate, issuer) = (certificate.role(), issuer.role());
                return Err(ChainError::Signature { certificate, issuer }.into());
            }
        }
        trail.pass(
            Code::CertificateSignature,
            format_args!("{}, {}, {}", root.role(), intermediate.role(), leaf.role()),
            "each signed by the one before it, RSA-PSS with SHA-384",
        );

        let crl = match given.crl {
            CrlPolicy::Waived => {
                for code in [Code::CrlSignature, Code::CrlDates, Code::CrlNumber, Code::Revoked] {
                    trail.waive(code, "nothing", "waived by the caller");
                }
                CrlStatus::Waived
            }
            CrlPolicy::Required | CrlPolicy::AtLeast(_) => {
                let least = if let CrlPolicy::AtLeast(number) = given.crl { *number } else { 0 };
                let list = find_crl(report, facts, [root, intermediate, leaf], root_key, given, least, trail)?;
                for certificate in [root, intermediate, leaf] {
                    if list.revokes(certificate.serial()) {
                        let (certificate, number) = (certificate.role(), list.number());
                        return Err(ChainError::Revoked { certificate, number }.into());
                    }
                }
                trail.pass(Code::Revoked, format_args!("none of the chain on list {}", list.number()), "not revoked");
                let (this_update, next_update) = list.validity();
                not_after = not_after.min(next_update);
                CrlStatus::Checked { number: list.number(), this_update, next_update }
            }
        };
        authorities::keep([root, intermediate]);
        let (leaf_spki, leaf_validity, leaf) = (leaf.spki_digest(), leaf.validity(), facts.clone());
        trail.pass(Code::EndorsementMissing, "all of the chain", "leaf, intermediate, root and revocation list");
        let lines = trail.lines.as_slice().into();
        Ok(Self { leaf_key, leaf, leaf_spki, leaf_validity, anchor, not_before, not_after, crl, lines })
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
        let mut trail = Trail::new();
        let report = well_formed(report, &mut trail)?;
        let verified = self.check_report(&report, ReportSignature::Unchecked, expected, now, &mut trail)?;
        Ok(verified.with_trail(trail).under(self))
    }

    /// The report's own checks, written behind those in `trail`, which the caller hands to the report when it is done.
    pub(crate) fn check_report(
        &self,
        report: &Report,
        signature: ReportSignature,
        expected: &ExpectedReportData,
        now: UnixTime,
        trail: &mut Trail,
    ) -> Result<VerifiedReport, VerifyError> {
        if now < self.not_before || now > self.not_after {
            return Err(self.out_of_date(now).into());
        }
        check_facts(report, &self.leaf, trail)?;
        if signature == ReportSignature::Unchecked {
            trail.cost.ecdsa += 1;
            self.check_signature(report)?;
        }
        trail.pass(Code::Signature, "verifies", format_args!("ECDSA P-384 by the {}", self.leaf.key));
        check_binding(report, expected, trail)?;
        let tcbs = report.tcbs(self.leaf.product).map_err(crate::abi::ReportError::from)?;
        Ok(VerifiedReport {
            report: report.clone(),
            tcbs,
            leaf: self.leaf.clone(),
            leaf_spki: self.leaf_spki,
            leaf_validity: self.leaf_validity,
            anchor: self.anchor,
            valid: (self.not_before, self.not_after),
            crl: self.crl,
            binding: expected.into(),
            verified_at: now,
            of_chain: Arc::default(),
            lines: Vec::new(),
            cost: Cost::default(),
            workload: None,
        })
    }

    fn check_signature(&self, report: &Report) -> Result<(), VerifyError> {
        let holds = signature_holds(&self.leaf_key, report);
        if holds { Ok(()) } else { Err(VerifyError::Signature { key: self.leaf.key }) }
    }

    /// What was checked when it was made.
    pub(crate) fn lines_at(&self, now: UnixTime) -> impl Iterator<Item = CheckLine> {
        lines_at(&self.lines, now).map(Cow::into_owned)
    }

    /// With lines of what was checked on the way to it before its own.
    pub(crate) fn behind(mut self, mut lines: Vec<CheckLine>) -> Self {
        lines.extend_from_slice(&self.lines);
        self.lines = lines.into();
        self
    }

    /// Which of its dates has passed: a certificate's, or the revocation list's.
    fn out_of_date(&self, now: UnixTime) -> ChainError {
        match self.crl {
            CrlStatus::Checked { number, this_update, next_update } if now > next_update => {
                ChainError::CrlDates { number, from: this_update, to: next_update, now }
            }
            _ => {
                let (from, to) = (self.not_before, self.not_after);
                ChainError::Dates { certificate: CertificateRole::Leaf(self.leaf.key), from, to, now }
            }
        }
    }

    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    pub const fn leaf_spki(&self) -> SpkiDigest {
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

fn signature_holds(key: &ParsedPublicKey, report: &Report) -> bool {
    // R and S are little-endian in the report; aws-lc takes them big-endian and refuses 0 and values not below n.
    let (mut r, mut s) = report.signature();
    r.reverse();
    s.reverse();
    let mut signature = [0; 96];
    signature[..48].copy_from_slice(&r);
    signature[48..].copy_from_slice(&s);
    key.verify_sig(report.signed_bytes(), &signature).is_ok()
}

/// Lines of a kept chain. Its dates are asked again each time, so their lines say when that is.
fn lines_at(lines: &[CheckLine], now: UnixTime) -> impl Iterator<Item = Cow<'_, CheckLine>> {
    lines.iter().map(move |line| {
        let is_dates = matches!(line.code, Code::CertificateDates | Code::CrlDates);
        if is_dates && line.outcome == Outcome::Passed {
            Cow::Owned(CheckLine { expected: format!("valid at {now}"), ..line.clone() })
        } else {
            Cow::Borrowed(line)
        }
    })
}

/// REPORT_DATA against what is expected of it.
fn check_binding(report: &Report, expected: &ExpectedReportData, trail: &mut Trail) -> Result<(), VerifyError> {
    let found = report.report_data();
    match expected {
        ExpectedReportData::Exactly(expected) => {
            if found != *expected {
                return Err(VerifyError::ReportData { found: Box::new(found), expected: Box::new(*expected) });
            }
            trail.pass(Code::ReportData, found, format_args!("{expected}, as this verifier demands"));
            trail.skip(Code::RuntimeData, "nothing came with the report that REPORT_DATA should hash");
        }
        ExpectedReportData::Attachment(hash) => {
            if found != *hash {
                return Err(VerifyError::Attachment { found: Box::new(found), expected: Box::new(*hash) });
            }
            trail.waive(Code::ReportData, found, "nothing demanded: it may have been made at any time, for anybody");
            trail.pass(Code::RuntimeData, found, format_args!("{hash}, the hash of the runtime data"));
        }
        ExpectedReportData::Any => {
            trail.waive(
                Code::ReportData,
                found,
                "waived by the caller: it may have been made at any time, for anybody",
            );
            trail.skip(Code::RuntimeData, "nothing came with the report that REPORT_DATA should hash");
        }
    }
    Ok(())
}
