//! What the judge said: the verdict, every reason, every check. It can be written out, and never read back in.

mod text;

use std::borrow::Cow;

use serde::Serialize;

use crate::{
    Anchor, AttestationResult, CheckLine, Claims, Cost, EndorsementRequest, Reason, Rejection, VerifiedReport,
    VerifyError,
    abi::WorkloadDigest,
    trail::{Trail, complete},
};

/// How a judgement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Authentic, expected and acceptable.
    Accepted,
    /// Not shown to be what AMD, or a listed root, vouches for.
    NotAuthentic,
    /// Authentic, and not what is expected or accepted.
    Refused,
}

impl Verdict {
    /// The word in results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::NotAuthentic => "not-authentic",
            Self::Refused => "refused",
        }
    }
}

impl core::fmt::Display for Verdict {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the judge said of one piece of evidence. Only [`crate::Verifier`] makes one.
///
/// As JSON it is an object of `verdict`, `simulated`, `anchor`, `workload_digest`, `claims` (the last four null unless the
/// evidence is authentic), `missing`, `reasons` and `checks`. Reading one back in would be believing somebody's word for it:
///
/// ```compile_fail,E0277
/// fn read(text: &str) -> coffer_verifier::Appraisal {
///     serde_json::from_str(text).unwrap()
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Appraisal {
    outcome: Outcome,
    missing: Vec<EndorsementRequest>,
    reasons: Vec<Reason>,
    /// Checks made that the outcome does not hold itself.
    made: Vec<CheckLine>,
    cost: Cost,
}

#[derive(Clone, Debug)]
enum Outcome {
    Accepted(Box<AttestationResult>),
    Refused(Box<VerifiedReport>),
    NotAuthentic,
}

impl Appraisal {
    pub(crate) fn accepted(result: AttestationResult) -> Self {
        let cost = result.verified().cost();
        let outcome = Outcome::Accepted(Box::new(result));
        Self { outcome, missing: Vec::new(), reasons: Vec::new(), made: Vec::new(), cost }
    }

    pub(crate) fn refused(verified: VerifiedReport, rejection: Rejection) -> Self {
        let (reasons, made) = rejection.into_parts();
        Self {
            cost: verified.cost(),
            made,
            reasons,
            missing: Vec::new(),
            outcome: Outcome::Refused(Box::new(verified)),
        }
    }

    pub(crate) fn not_authentic(error: &VerifyError, mut trail: Trail) -> Self {
        let reason = error.reason();
        trail.fail(&reason);
        let missing = match error {
            VerifyError::Missing(missing) => missing.requests.clone(),
            _ => Vec::new(),
        };
        Self { outcome: Outcome::NotAuthentic, missing, reasons: vec![reason], made: trail.lines, cost: trail.cost }
    }

    /// The appraisal of evidence that broke before the judge saw it: a file or an endorsement that is none.
    pub fn of_error(error: impl Into<VerifyError>) -> Self {
        Self::not_authentic(&error.into(), Trail::new())
    }

    /// How it ended.
    pub const fn verdict(&self) -> Verdict {
        match self.outcome {
            Outcome::Accepted(_) => Verdict::Accepted,
            Outcome::Refused(_) => Verdict::Refused,
            Outcome::NotAuthentic => Verdict::NotAuthentic,
        }
    }

    /// The result, if it was accepted.
    pub fn result(&self) -> Option<&AttestationResult> {
        match &self.outcome {
            Outcome::Accepted(result) => Some(result),
            Outcome::Refused(_) | Outcome::NotAuthentic => None,
        }
    }

    /// Refused for these reasons too, on top of what the judge said. Without a reason it stays what it is; what is not authentic stays so.
    /// There is no way back: nobody raises an appraisal.
    #[must_use]
    pub fn lowered(self, reasons: Vec<Reason>) -> Self {
        if reasons.is_empty() {
            return self;
        }
        let (verified, made) = match self.outcome {
            Outcome::NotAuthentic => return self,
            Outcome::Refused(verified) => (verified, self.made),
            Outcome::Accepted(result) => {
                let (verified, made) = result.into_parts();
                (Box::new(verified), made)
            }
        };
        let made = made.into_iter().chain(reasons.iter().map(CheckLine::from)).collect();
        let reasons = self.reasons.into_iter().chain(reasons).collect();
        Self { outcome: Outcome::Refused(verified), reasons, made, ..self }
    }

    /// The result, or the appraisal that says why there is none.
    ///
    /// # Errors
    /// This appraisal.
    pub fn into_result(self) -> Result<AttestationResult, Self> {
        match self.outcome {
            Outcome::Accepted(result) => Ok(*result),
            Outcome::Refused(_) | Outcome::NotAuthentic => Err(self),
        }
    }

    /// The authentic report, accepted or refused.
    pub fn verified(&self) -> Option<&VerifiedReport> {
        match &self.outcome {
            Outcome::Accepted(result) => Some(result.verified()),
            Outcome::Refused(verified) => Some(verified),
            Outcome::NotAuthentic => None,
        }
    }

    /// What the evidence lacked, all of it; addresses are the caller's to make.
    pub fn missing(&self) -> &[EndorsementRequest] {
        &self.missing
    }

    /// Every reason against it; none if it was accepted.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// All reasons in one line.
    pub fn why(&self) -> String {
        self.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// Every check there is, in the table's order: as it was made, or why it was not.
    pub fn checks(&self) -> Vec<CheckLine> {
        self.lines().into_iter().map(Cow::into_owned).collect()
    }

    /// The same, lent.
    pub(crate) fn lines(&self) -> Vec<Cow<'_, CheckLine>> {
        let made = || self.made.iter().map(Cow::Borrowed);
        match &self.outcome {
            Outcome::Accepted(result) => complete(result.lines()),
            Outcome::Refused(verified) => complete(verified.checks().chain(made())),
            Outcome::NotAuthentic => complete(made()),
        }
    }

    /// Public-key operations it took.
    pub const fn cost(&self) -> Cost {
        self.cost
    }
}

/// What is written out.
#[derive(Serialize)]
struct View<'a> {
    verdict: Verdict,
    simulated: Option<bool>,
    anchor: Option<Anchor>,
    workload_digest: Option<WorkloadDigest>,
    claims: Option<Claims>,
    missing: &'a [EndorsementRequest],
    reasons: &'a [Reason],
    /// The last.
    checks: Vec<Cow<'a, CheckLine>>,
}

impl Appraisal {
    fn view<'a>(&'a self, checks: Vec<Cow<'a, CheckLine>>) -> View<'a> {
        let verified = self.verified();
        View {
            verdict: self.verdict(),
            simulated: verified.map(VerifiedReport::simulated),
            anchor: verified.map(VerifiedReport::anchor),
            workload_digest: verified.and_then(VerifiedReport::workload),
            claims: verified.map(VerifiedReport::claims),
            missing: &self.missing,
            reasons: &self.reasons,
            checks,
        }
    }
}

impl Serialize for Appraisal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.view(self.lines()).serialize(serializer)
    }
}
