//! What is said about evidence: one line per check as it was made, and for each refusal what was found, what was expected
//! and what helps.

use std::borrow::Cow;

use crate::Code;

/// One reason against evidence, as results, `--json`, logs and audit trails print it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reason {
    /// Which check failed.
    pub code: Code,
    /// What the evidence says.
    pub found: String,
    /// What was demanded.
    pub expected: String,
    /// What the operator can do.
    pub hint: Cow<'static, str>,
}

impl Reason {
    /// A reason.
    #[allow(clippy::needless_pass_by_value, reason = "callers format in place")]
    pub fn new(code: Code, found: impl ToString, expected: impl ToString, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { code, found: found.to_string(), expected: expected.to_string(), hint: hint.into() }
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: found {}, expected {}", self.code, self.found, self.expected)
    }
}

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Made, and met.
    Passed,
    /// Made, and not met.
    Failed,
    /// Not demanded: by a named waiver, or a rule that accepts anything.
    Waived,
    /// Not made: `hint` says why.
    NotRun,
}

impl Outcome {
    /// The word in results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Waived => "waived",
            Self::NotRun => "not-run",
        }
    }
}

/// One check, recorded when it was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CheckLine {
    /// Which check; a failing one has the same code as its reason.
    pub code: Code,
    /// How it ended.
    pub outcome: Outcome,
    /// What the evidence says; empty if it was not looked at.
    pub found: String,
    /// What was demanded; empty if nothing could be.
    pub expected: String,
    /// What helps, for a check that failed; why it was not made, for one that was not.
    pub hint: Cow<'static, str>,
}

impl CheckLine {
    /// True unless it failed or was not made.
    pub const fn is_fine(&self) -> bool {
        matches!(self.outcome, Outcome::Passed | Outcome::Waived)
    }
}

impl core::fmt::Display for CheckLine {
    /// As `--explain` prints it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { code, outcome, found, expected, hint } = self;
        match outcome {
            Outcome::NotRun => write!(f, "{:<7} {code:<24} {hint}", "-"),
            Outcome::Waived => write!(f, "{:<7} {code:<24} found {found}; {expected}", "waived"),
            Outcome::Passed => write!(f, "{:<7} {code:<24} found {found}; expected {expected}", "ok"),
            Outcome::Failed => write!(f, "{:<7} {code:<24} found {found}; expected {expected}", "FAILED"),
        }
    }
}

impl From<&Reason> for CheckLine {
    fn from(reason: &Reason) -> Self {
        let Reason { code, found, expected, hint } = reason.clone();
        Self { code, outcome: Outcome::Failed, found, expected, hint }
    }
}
