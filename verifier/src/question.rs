//! A relying party's whole question, in bytes and texts: what callers in other languages put together, piece by piece.
//!
//! Takes evidence, what endorses it, a policy as TOML and what REPORT_DATA must hold; gives the judge's [`Appraisal`]. A policy
//! and REPORT_DATA must be said: there is no default that asks less.
//! Trusts: AMD's roots, the roots and the policy of its caller. Believes nothing else.
//! Never: fetches; reads a clock; judges a question of which something is missing.

use crate::{
    Appraisal, ConnectionChain, CrlPolicy, EndorsementError, Endorsements, EvidencePolicy, ExpectedReportData,
    PolicyFileError, Presented, PresentedError, TrustAnchors, UnixTime, Verifier, abi::ReportData,
};

/// What is asked, as far as it was said.
#[derive(Clone, Debug)]
pub struct Question {
    presented: Option<Presented>,
    beside: Endorsements,
    /// The first that is a certificate or a list, and must not be used: the evidence is not authentic for it.
    unusable: Option<EndorsementError>,
    policy: Option<EvidencePolicy>,
    report_data: Option<ExpectedReportData>,
    crl: CrlPolicy,
    anchors: TrustAnchors,
}

/// Why a question cannot be put. Nothing here is about what the evidence is worth.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuestionError {
    /// Bytes are no evidence.
    #[error(transparent)]
    Presented(#[from] PresentedError),
    /// A table beside evidence that brings one, or beside none yet.
    #[error("a certificate table goes with evidence that was given before it and brings none itself")]
    CertTable,
    /// Bytes are no certificate, list or root.
    #[error("{what} cannot be read: {source}")]
    Endorsement {
        /// Which of them.
        what: &'static str,
        /// Why.
        source: EndorsementError,
    },
    /// The policy's text.
    #[error("the policy cannot be read: {0}")]
    Policy(#[from] PolicyFileError),
    /// REPORT_DATA of another length.
    #[error("REPORT_DATA has 64 bytes, not {found}")]
    ReportData {
        /// Bytes given.
        found: usize,
    },
    /// Something that must be said was not.
    #[error("the question does not say {what}")]
    Unsaid {
        /// What is missing.
        what: &'static str,
    },
}

impl QuestionError {
    /// What helps.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Presented(error) => error.hint(),
            Self::CertTable => "leave the table out, or give the bare report",
            Self::Endorsement { .. } => "give DER, or PEM blocks of one kind",
            Self::Policy(_) => "the built-in policy `strict` is a text to begin with",
            Self::ReportData { .. } => "a nonce of another length goes through a hash of 64 bytes first, on both sides",
            Self::Unsaid { .. } => {
                "a question has evidence, a policy, and what REPORT_DATA must hold or the word that waives it"
            }
        }
    }
}

impl Default for Question {
    fn default() -> Self {
        Self {
            presented: None,
            beside: Endorsements::new(),
            unusable: None,
            policy: None,
            report_data: None,
            crl: CrlPolicy::Required,
            anchors: TrustAnchors::amd(),
        }
    }
}

impl Question {
    /// Nothing is said yet, but that a revocation list is required and AMD's roots are believed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The evidence, in any form of [`Presented`].
    ///
    /// # Errors
    /// [`QuestionError::Presented`].
    pub fn evidence(&mut self, bytes: &[u8]) -> Result<(), QuestionError> {
        self.presented = Some(Presented::parse(bytes)?);
        Ok(())
    }

    /// The certificate table that a host gave with a bare report; after [`Self::evidence`].
    ///
    /// # Errors
    /// [`QuestionError::CertTable`].
    pub fn cert_table(&mut self, bytes: &[u8]) -> Result<(), QuestionError> {
        let with = self.presented.as_mut().is_some_and(|presented| presented.with_cert_table(bytes.to_vec()));
        with.then_some(()).ok_or(QuestionError::CertTable)
    }

    /// One more certificate in DER, or all of a PEM text.
    ///
    /// # Errors
    /// [`QuestionError::Endorsement`] of bytes that are no certificate.
    pub fn certificates(&mut self, bytes: &[u8]) -> Result<(), QuestionError> {
        let added = self.beside.add_certificates(bytes);
        self.added("a certificate", added)
    }

    /// One more revocation list in DER, or all of a PEM text.
    ///
    /// # Errors
    /// [`QuestionError::Endorsement`] of bytes that are no list.
    pub fn crl(&mut self, bytes: &[u8]) -> Result<(), QuestionError> {
        let added = self.beside.add_crl(bytes);
        self.added("a revocation list", added)
    }

    fn added(&mut self, what: &'static str, added: Result<(), EndorsementError>) -> Result<(), QuestionError> {
        match added {
            Err(source) if source.is_malformed() => return Err(QuestionError::Endorsement { what, source }),
            Err(source) => self.unusable = self.unusable.take().or(Some(source)),
            Ok(()) => {}
        }
        Ok(())
    }

    /// The policy, TOML; the word `strict` is the built-in one.
    ///
    /// # Errors
    /// [`QuestionError::Policy`].
    pub fn policy(&mut self, text: &str) -> Result<(), QuestionError> {
        let policy = if text == "strict" { EvidencePolicy::strict() } else { EvidencePolicy::from_toml(text)? };
        self.policy = Some(policy.without_rego()?.without_manifests()?);
        Ok(())
    }

    /// The 64 bytes that REPORT_DATA must hold.
    ///
    /// # Errors
    /// [`QuestionError::ReportData`].
    pub fn report_data(&mut self, bytes: &[u8]) -> Result<(), QuestionError> {
        let found = bytes.len();
        let bytes: [u8; 64] = bytes.try_into().map_err(|_| QuestionError::ReportData { found })?;
        self.report_data = Some(ExpectedReportData::Exactly(ReportData::new(bytes)));
        Ok(())
    }

    /// Waives REPORT_DATA: the report may be old, and made for anybody. The result says so.
    pub fn waive_report_data(&mut self) {
        self.report_data = Some(ExpectedReportData::Any);
    }

    /// Waives revocation. The result says so.
    pub fn waive_crl(&mut self) {
        self.crl = CrlPolicy::Waived;
    }

    /// Believes a simulator's root too, by its certificate, DER or PEM. The result says `simulated`.
    ///
    /// # Errors
    /// [`QuestionError::Endorsement`].
    pub fn simulated_root(&mut self, bytes: &[u8]) -> Result<(), QuestionError> {
        let root = crate::root_digest(bytes);
        let root = root.map_err(|source| QuestionError::Endorsement { what: "a simulator's root", source })?;
        self.anchors = core::mem::take(&mut self.anchors).with_simulated(root);
        Ok(())
    }

    /// Asks the judge; the question can be put again, at another time or with more said.
    ///
    /// # Errors
    /// [`QuestionError::Unsaid`]. Evidence that is not authentic, or refused, is an answer.
    pub fn judge(&self, now: UnixTime) -> Result<Appraisal, QuestionError> {
        let unsaid = |what| QuestionError::Unsaid { what };
        let presented = self.presented.as_ref().ok_or(unsaid("what the evidence is"))?;
        let policy = self.policy.clone().ok_or(unsaid("by which policy"))?;
        let report_data = self.report_data.as_ref().ok_or(unsaid("what REPORT_DATA must hold"))?;
        if let Some(error) = &self.unusable {
            return Ok(Appraisal::of_error(error.clone()));
        }
        let verifier = Verifier { anchors: self.anchors.clone(), crl: self.crl.clone(), policy };
        Ok(verifier.judge_presented(&ConnectionChain::new(), presented, &self.beside, report_data, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_789_862_400);

    fn unsaid(question: &Question) -> String {
        question.judge(NOW).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_said_is_asked_for_and_waived_only_by_its_name() {
        let mut question = Question::new();
        assert_eq!(unsaid(&question), "the question does not say what the evidence is");
        question.evidence(&[0; 1184]).unwrap();
        assert_eq!(unsaid(&question), "the question does not say by which policy");
        question.policy("strict").unwrap();
        assert_eq!(unsaid(&question), "the question does not say what REPORT_DATA must hold");
        let mut bound = question.clone();
        bound.report_data(&[1; 64]).unwrap();
        question.waive_report_data();
        for asked in [question, bound] {
            let said = asked.judge(NOW).unwrap();
            assert_eq!(said.reasons()[0].code.as_str(), "report-malformed");
        }
    }

    #[test]
    fn bytes_that_are_nothing_are_refused_and_change_nothing() {
        let mut question = Question::new();
        assert_eq!(question.cert_table(&[0; 24]), Err(QuestionError::CertTable), "before any evidence");
        assert!(matches!(question.evidence(b"x"), Err(QuestionError::Presented(_))));
        assert!(matches!(question.certificates(b"x"), Err(QuestionError::Endorsement { what: "a certificate", .. })));
        assert!(matches!(question.crl(b"-----BEGIN X"), Err(QuestionError::Endorsement { .. })));
        assert!(matches!(question.simulated_root(b"x"), Err(QuestionError::Endorsement { .. })));
        let of_age = |age: &str| format!("measurements = \"any\"\n{age} = \"7d\"");
        for policy in ["vmpls = [0]", &of_age("max_policy_age"), &of_age("max_manifest_age")] {
            assert!(matches!(question.policy(policy), Err(QuestionError::Policy(_))), "{policy}");
        }
        assert_eq!(question.report_data(&[0; 32]), Err(QuestionError::ReportData { found: 32 }));
        assert_eq!(unsaid(&question), "the question does not say what the evidence is");
        question.evidence(&[0; 1184]).unwrap();
        question.cert_table(&[0; 24]).unwrap();
        assert_eq!(question.cert_table(&[0; 24]), Err(QuestionError::CertTable), "one table");
    }
}
