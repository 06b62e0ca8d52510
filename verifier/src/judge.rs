//! The one judge: evidence, endorsements, what is expected and a time in; an [`Appraisal`] out. `coffer verify`, `coffer
//! attest`, an owner's connection and the key broker all ask it, so that the same evidence gets the same answer in the same
//! words.
//!
//! Trusts: the anchors and the policy of its caller. Believes nothing the evidence says before its signature holds.
//! Never: lets a policy admit a guest that is not the expected one; fetches; reads a clock.

use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::{
    Appraisal, Code, CrlPolicy, Endorsements, Evidence, EvidencePolicy, ExpectedGuest, ExpectedReportData,
    TrustAnchors, UnixTime, VerifiedChain, VerifiedReport, VerifyError,
    abi::Report,
    appraise::appraise_guest,
    binding::length_prefixed,
    trail::Trail,
    verify::{Given, ReportSignature, well_formed},
};

/// What is expected of evidence, beside any policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What REPORT_DATA must hold.
    pub report_data: ExpectedReportData,
    /// Which guest it must be.
    pub guest: ExpectedGuest,
}

/// Decides about evidence.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// Roots that are believed.
    pub anchors: TrustAnchors,
    /// What is demanded about revocation.
    pub crl: CrlPolicy,
    /// The typed floor: it narrows what is expected, and never widens it.
    pub policy: EvidencePolicy,
}

/// The verified chain of one connection, with the digest of everything it rests on: certificates and lists, anchors, what is
/// demanded about revocation; and the last report whose signature held under it. While none of that changes and no date passes,
/// further decisions on the same report take no public-key operation. All else is checked each time.
#[derive(Default)]
pub struct ConnectionChain(Mutex<Option<Kept>>);

struct Kept {
    rests_on: [u8; 32],
    chain: VerifiedChain,
    /// SHA-256 of the report, its signature included.
    report: [u8; 32],
}

impl ConnectionChain {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn get(&self, rests_on: &[u8; 32], report: &[u8], now: UnixTime) -> Option<(VerifiedChain, ReportSignature)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_ref().filter(|kept| kept.rests_on == *rests_on)?;
        let (from, to) = kept.chain.validity();
        let held = kept.report == digest(report);
        let signature = if held { ReportSignature::HeldForTheseBytes } else { ReportSignature::Unchecked };
        (from <= now && now <= to).then(|| (kept.chain.clone(), signature))
    }

    fn keep(&self, rests_on: [u8; 32], chain: VerifiedChain, report: &[u8]) {
        let kept = Kept { rests_on, chain, report: digest(report) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}

/// What is asked of evidence in the first half.
struct Asked<'a> {
    endorsements: &'a Endorsements,
    report_data: &'a ExpectedReportData,
    now: UnixTime,
    soonest: bool,
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Verifier {
    /// Decides about evidence. Certificates it brings are tried first, then `endorsements`, then AMD's own
    /// ([`Endorsements::amd`]).
    pub fn judge(
        &self,
        evidence: &Evidence,
        endorsements: &Endorsements,
        expected: &Expected,
        now: UnixTime,
    ) -> Appraisal {
        self.judge_on(&ConnectionChain::new(), evidence, endorsements, expected, now)
    }

    /// The same on one connection, whose chain is verified once.
    pub fn judge_on(
        &self,
        connection: &ConnectionChain,
        evidence: &Evidence,
        endorsements: &Endorsements,
        expected: &Expected,
        now: UnixTime,
    ) -> Appraisal {
        let asked = Asked { endorsements, report_data: &expected.report_data, now, soonest: false };
        self.judge_as(connection, evidence, &asked, &expected.guest)
    }

    /// The same for one who waits: where the chain is not verified yet, the report's signature is looked at on a thread of its own
    /// meanwhile. It takes more of the processors in all; who judges for many does better with [`Self::judge_on`].
    pub fn judge_soonest(
        &self,
        connection: &ConnectionChain,
        evidence: &Evidence,
        endorsements: &Endorsements,
        expected: &Expected,
        now: UnixTime,
    ) -> Appraisal {
        let asked = Asked { endorsements, report_data: &expected.report_data, now, soonest: true };
        self.judge_as(connection, evidence, &asked, &expected.guest)
    }

    fn judge_as(
        &self,
        connection: &ConnectionChain,
        evidence: &Evidence,
        asked: &Asked<'_>,
        guest: &ExpectedGuest,
    ) -> Appraisal {
        match self.authenticate_as(connection, evidence, asked) {
            Ok(verified) => self.appraise(verified, guest),
            Err(appraisal) => *appraisal,
        }
    }

    /// The first half: is it authentic, for whoever must ask something else before it appraises.
    ///
    /// # Errors
    /// The [`Appraisal`] of evidence that is not.
    pub fn authenticate(
        &self,
        connection: &ConnectionChain,
        evidence: &Evidence,
        endorsements: &Endorsements,
        report_data: &ExpectedReportData,
        now: UnixTime,
    ) -> Result<VerifiedReport, Box<Appraisal>> {
        self.authenticate_as(connection, evidence, &Asked { endorsements, report_data, now, soonest: false })
    }

    fn authenticate_as(
        &self,
        connection: &ConnectionChain,
        evidence: &Evidence,
        asked: &Asked<'_>,
    ) -> Result<VerifiedReport, Box<Appraisal>> {
        let mut trail = Trail::new();
        match self.authentic(connection, evidence, asked, &mut trail) {
            Ok(verified) => Ok(verified.with_trail(trail)),
            Err(error) => Err(Box::new(Appraisal::not_authentic(&error, trail))),
        }
    }

    /// The second half: is authentic evidence the expected guest's, and acceptable.
    pub fn appraise(&self, verified: VerifiedReport, guest: &ExpectedGuest) -> Appraisal {
        match appraise_guest(verified, &self.policy, guest) {
            Ok(result) => Appraisal::accepted(result),
            Err(refused) => Appraisal::refused(refused.0, refused.1),
        }
    }

    fn authentic(
        &self,
        connection: &ConnectionChain,
        evidence: &Evidence,
        asked: &Asked<'_>,
        trail: &mut Trail,
    ) -> Result<VerifiedReport, VerifyError> {
        let &Asked { endorsements, report_data, now, soonest } = asked;
        let report = well_formed(&evidence.report, trail)?;
        let rests_on = self.rests_on(&report, evidence, endorsements);
        if let Some((chain, signature)) = connection.get(&rests_on, &evidence.report, now) {
            let verified = chain.check_report(&report, signature, report_data, now, trail).and_then(|verified| {
                if signature == ReportSignature::Unchecked {
                    connection.keep(rests_on, chain.clone(), &evidence.report);
                }
                verified.with_spec(&evidence.workload_spec, trail)
            });
            // A report that fails has nothing to hold the chain's lines, and they are said of it all the same.
            return match verified {
                Ok(verified) => Ok(verified.under(&chain)),
                Err(error) => {
                    trail.lines.extend(chain.lines_at(now));
                    Err(error)
                }
            };
        }
        let mut own = Trail::new();
        let found = sent(evidence, &mut own).and_then(|sent| {
            let lines = own.lines.clone();
            let bags = [&sent, endorsements, Endorsements::amd()];
            let given = Given { bags: &bags, anchors: &self.anchors, crl: &self.crl, now, soonest };
            let (chain, verified) = VerifiedChain::authenticate(&report, &given, report_data, &mut own)?;
            Ok((chain.behind(lines), verified))
        });
        trail.append(own);
        let (chain, verified) = found?;
        connection.keep(rests_on, chain, &evidence.report);
        verified.with_spec(&evidence.workload_spec, trail)
    }

    /// Digest of everything a chain is made from, but the time: what picks the leaf, the certificates and lists at hand,
    /// anchors, and what is demanded about revocation.
    fn rests_on(&self, report: &Report, evidence: &Evidence, endorsements: &Endorsements) -> [u8; 32] {
        let (chip, tcb) = (report.chip_id(), report.reported_tcb_raw().to_be_bytes());
        let picked = format!("{} {:?}", report.signing_key(), report.product());
        let mut fields: Vec<&[u8]> = vec![picked.as_bytes(), chip.as_bytes(), &tcb];
        fields.extend([evidence.cert_table.as_slice(), endorsements.fingerprint()]);
        let mut owned = Vec::new();
        for anchor in self.anchors.simulated() {
            owned.extend_from_slice(anchor.as_bytes());
        }
        fields.push(&owned);
        let mut crl = Vec::new();
        match &self.crl {
            CrlPolicy::Required => crl.push(0),
            CrlPolicy::Waived => crl.push(1),
            CrlPolicy::AtLeast(number) => {
                crl.push(2);
                crl.extend_from_slice(&number.to_be_bytes());
            }
        }
        fields.push(&crl);
        fields.extend(evidence.crls.iter().map(Vec::as_slice));
        digest(&length_prefixed(&fields))
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// What came with the evidence, read and bounded.
fn sent(evidence: &Evidence, trail: &mut Trail) -> Result<Endorsements, VerifyError> {
    let sent = Endorsements::from_evidence(evidence)?;
    let (certificates, lists) = (sent.certificates().len(), sent.crls().len());
    if evidence.cert_table.is_empty() {
        trail.skip(Code::CertificateTable, "the evidence brings no certificate table");
    } else {
        trail.pass(Code::CertificateTable, format_args!("{} bytes", evidence.cert_table.len()), "a certificate table");
    }
    let counts = format!("{} and {}", counted(certificates, "certificate"), counted(lists, "list"));
    trail.pass(Code::TooManyEndorsements, counts, "no more than a few chains have");
    if certificates == 0 {
        trail.skip(Code::CertificateForm, "the evidence brings no certificate");
    } else {
        trail.pass(
            Code::CertificateForm,
            format_args!("{certificates} with the evidence"),
            "certificates in AMD's form",
        );
    }
    if lists == 0 {
        trail.skip(Code::CrlForm, "the evidence brings no revocation list");
    } else {
        trail.pass(Code::CrlForm, format_args!("{lists} with the evidence"), "complete lists in AMD's form");
    }
    Ok(sent)
}
