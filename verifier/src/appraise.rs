//! Is an authentic report acceptable: the typed floor, before any policy language.
//!
//! Takes a [`VerifiedReport`] and an [`EvidencePolicy`], gives an [`AttestationResult`] or a [`Rejection`] with every reason.
//! Trusts: the report (signed) and the policy (the operator's). Believes nothing else.
//! Source: RFC 9334 §8.5; SNP ABI, ATTESTATION_REPORT.

mod age;
mod expected;
mod floor;
mod policy;
mod policy_file;

pub use age::{AgeError, MaxAge};
pub use expected::ExpectedGuest;
pub use policy::{
    Accept, BitRule, Chips, EvidencePolicy, FirmwareRule, Pair, PlatformRules, PolicyRules, SignerRule, TcbMinimum,
    TcbRule,
};
pub use policy_file::{PolicyFileError, STRICT};

use std::borrow::Cow;

use crate::{CheckLine, Reason, claims::Claims, verify::VerifiedReport};

/// Evidence that is authentic and meets a policy. Only [`appraise()`] makes one.
#[derive(Clone, Debug)]
pub struct AttestationResult {
    verified: VerifiedReport,
    checks: Vec<CheckLine>,
    downgrades: Vec<Reason>,
}

/// Every reason against authentic evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused by policy: {}", codes(.reasons))]
pub struct Rejection {
    reasons: Vec<Reason>,
    checks: Vec<CheckLine>,
}

fn codes(reasons: &[Reason]) -> String {
    reasons.iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>().join(", ")
}

/// Appraises authentic evidence.
///
/// # Errors
/// [`Rejection`] with all reasons, never only the first.
pub fn appraise(verified: &VerifiedReport, policy: &EvidencePolicy) -> Result<AttestationResult, Rejection> {
    let guest = ExpectedGuest::WhateverThePolicyAdmits;
    appraise_guest(verified.clone(), policy, &guest).map_err(|refused| refused.1)
}

/// The same, where one guest or a few are expected. The evidence is given back with what is said against it.
pub(crate) fn appraise_guest(
    verified: VerifiedReport,
    policy: &EvidencePolicy,
    guest: &ExpectedGuest,
) -> Result<AttestationResult, Box<(VerifiedReport, Rejection)>> {
    let mut floor = floor::apply(&verified, policy, guest);
    let reasons = core::mem::take(&mut floor.reasons);
    let checks = floor.lines();
    if reasons.is_empty() {
        Ok(AttestationResult { verified, checks, downgrades: Vec::new() })
    } else {
        Err(Box::new((verified, Rejection { reasons, checks })))
    }
}

impl AttestationResult {
    /// The evidence it is about.
    pub const fn verified(&self) -> &VerifiedReport {
        &self.verified
    }

    /// The report.
    pub const fn report(&self) -> &crate::abi::Report {
        self.verified.report()
    }

    /// The root it rests on.
    pub const fn anchor(&self) -> crate::Anchor {
        self.verified.anchor()
    }

    /// True iff that root is none of the pinned AMD roots.
    pub const fn simulated(&self) -> bool {
        self.verified.simulated()
    }

    /// Product line, as certified.
    pub const fn product(&self) -> crate::abi::ProductLine {
        self.verified.product()
    }

    /// True unless somebody downgraded it.
    pub fn is_affirming(&self) -> bool {
        self.downgrades.is_empty()
    }

    /// Why it is not affirming.
    pub fn downgrades(&self) -> &[Reason] {
        &self.downgrades
    }

    /// Takes the affirmation away, for a reason. There is no way back.
    pub fn downgrade(&mut self, reason: Reason) {
        self.downgrades.push(reason);
    }

    /// Every check of authenticity and policy, in order.
    pub fn checks(&self) -> Vec<CheckLine> {
        self.lines().map(Cow::into_owned).collect()
    }

    /// The same, lent.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Cow<'_, CheckLine>> {
        let made = self.verified.checks().chain(self.checks.iter().map(Cow::Borrowed));
        made.chain(self.downgrades.iter().map(|reason| Cow::Owned(CheckLine::from(reason))))
    }

    /// The evidence, and the checks of policy with what somebody said against it.
    pub(crate) fn into_parts(self) -> (VerifiedReport, Vec<CheckLine>) {
        let Self { verified, mut checks, downgrades } = self;
        checks.extend(downgrades.iter().map(CheckLine::from));
        (verified, checks)
    }

    /// The serializable view that policies and people read.
    pub fn claims(&self) -> Claims {
        self.verified.claims()
    }
}

impl Rejection {
    /// All reasons.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Every policy check, passed and failed, in order.
    pub fn checks(&self) -> &[CheckLine] {
        &self.checks
    }

    /// Reasons and checks.
    pub(crate) fn into_parts(self) -> (Vec<Reason>, Vec<CheckLine>) {
        (self.reasons, self.checks)
    }
}
