//! The verifier inside a Python process: `coffer_verifier._native`, one function that the package's own Python wraps.
//!
//! The same question and the same judge as everywhere ([`coffer_verifier::Question`]); other threads of Python run while it judges.
//! Trusts: its caller, who says what is believed and demanded. Believes nothing else.
//! Never: fetches, reads a file or a clock, keeps anything.

use coffer_verifier::{Question, QuestionError, UnixTime};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// What a caller hands over, as bytes of its own.
struct Given {
    evidence: Vec<u8>,
    cert_table: Option<Vec<u8>>,
    certificates: Vec<Vec<u8>>,
    crls: Vec<Vec<u8>>,
    policy: String,
    /// None is the waiver; the package asks for its name.
    report_data: Option<Vec<u8>>,
    waive_revocation: bool,
    simulated_roots: Vec<Vec<u8>>,
}

impl Given {
    fn judge(&self, now: UnixTime) -> Result<String, QuestionError> {
        let mut question = Question::new();
        question.evidence(&self.evidence)?;
        if let Some(table) = &self.cert_table {
            question.cert_table(table)?;
        }
        self.certificates.iter().try_for_each(|bytes| question.certificates(bytes))?;
        self.crls.iter().try_for_each(|bytes| question.crl(bytes))?;
        question.policy(&self.policy)?;
        match &self.report_data {
            Some(bytes) => question.report_data(bytes)?,
            None => question.waive_report_data(),
        }
        if self.waive_revocation {
            question.waive_crl();
        }
        self.simulated_roots.iter().try_for_each(|bytes| question.simulated_root(bytes))?;
        let appraisal = question.judge(now)?;
        Ok(serde_json::to_string(&appraisal).expect("keys are words"))
    }
}

/// Judges, as of `now` in seconds since 1970; gives what `coffer verify --json` prints.
///
/// # Errors
/// `ValueError` of a message and a hint, where the question cannot be put.
#[pyfunction]
#[pyo3(signature = (evidence, *, cert_table, certificates, crls, policy, report_data, waive_revocation, simulated_roots, now))]
#[expect(clippy::too_many_arguments, reason = "keywords, all of them, and each is said")]
fn judge(
    py: Python<'_>,
    evidence: Vec<u8>,
    cert_table: Option<Vec<u8>>,
    certificates: Vec<Vec<u8>>,
    crls: Vec<Vec<u8>>,
    policy: String,
    report_data: Option<Vec<u8>>,
    waive_revocation: bool,
    simulated_roots: Vec<Vec<u8>>,
    now: i64,
) -> PyResult<String> {
    let given =
        Given { evidence, cert_table, certificates, crls, policy, report_data, waive_revocation, simulated_roots };
    let judged = py.detach(|| given.judge(UnixTime::from_secs(now)));
    judged.map_err(|error| PyValueError::new_err((error.to_string(), error.hint())))
}

/// What the package imports.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("STRICT", coffer_verifier::STRICT)?;
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(judge, module)?)
}
