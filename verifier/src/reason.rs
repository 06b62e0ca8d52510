//! What is said about evidence: one line per check, and for each refusal what was found, what was expected and what helps.

use std::borrow::Cow;

/// One reason against evidence, as results and `--json` print it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reason {
    /// Stable code, kebab-case.
    pub code: &'static str,
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
    pub fn new(
        code: &'static str,
        found: impl ToString,
        expected: impl ToString,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code, found: found.to_string(), expected: expected.to_string(), hint: hint.into() }
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: found {}, expected {}", self.code, self.found, self.expected)
    }
}

/// One check that was made, for `--explain`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CheckLine {
    /// Stable code, the same a failing check has as its reason.
    pub code: &'static str,
    /// Passed.
    pub ok: bool,
    /// What the evidence says.
    pub found: String,
    /// What was demanded.
    pub expected: String,
}

impl CheckLine {
    /// A check that passed.
    #[allow(clippy::needless_pass_by_value, reason = "callers format in place")]
    pub fn passed(code: &'static str, found: impl ToString, expected: impl ToString) -> Self {
        Self { code, ok: true, found: found.to_string(), expected: expected.to_string() }
    }
}

impl From<&Reason> for CheckLine {
    fn from(reason: &Reason) -> Self {
        Self { code: reason.code, ok: false, found: reason.found.clone(), expected: reason.expected.clone() }
    }
}
