//! Runs the `test_…` rules of a Rego file against a policy: each must be true.

use regorus::Value;

use crate::{
    PolicyError, builtins, engine,
    policy::{on_large_stack, within_bounds},
};

/// One unit test's name and whether it held; with the engine's words when it could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Rule name.
    pub name: String,
    /// True only if the rule is the boolean true.
    pub passed: bool,
    /// Why it could not be asked.
    pub error: Option<String>,
}

/// Runs all tests in `tests` over the policy `text`.
///
/// # Errors
/// [`PolicyError`] if either does not parse, or no test is there.
pub fn run(name: &str, text: &str, tests: &str) -> Result<Vec<Outcome>, PolicyError> {
    on_large_stack(name, || run_here(name, text, tests))
}

fn run_here(name: &str, text: &str, tests: &str) -> Result<Vec<Outcome>, PolicyError> {
    within_bounds(name, text)?;
    within_bounds(name, tests)?;
    let parse = |error: anyhow::Error| PolicyError::Parse { name: name.into(), message: error.to_string() };
    let mut engine = engine::bounded().map_err(parse)?;
    engine.add_policy(name.into(), text.into()).map_err(parse)?;
    let package = engine.add_policy(format!("{name}#tests"), tests.into()).map_err(parse)?;
    let mut names: Vec<&str> = tests.lines().filter_map(rule_name).collect();
    names.dedup();
    if names.is_empty() {
        return Err(PolicyError::NoTests { name: name.into() });
    }
    let outcome = |rule: &str| {
        builtins::refill();
        match engine.clone().eval_rule(format!("{package}.{rule}")) {
            Ok(value) => Outcome { name: rule.into(), passed: value == Value::Bool(true), error: None },
            Err(error) => Outcome { name: rule.into(), passed: false, error: Some(error.to_string()) },
        }
    };
    Ok(names.into_iter().map(outcome).collect())
}

fn rule_name(line: &str) -> Option<&str> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(line.len());
    line.starts_with("test_").then(|| &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EVIDENCE_SNP, RELEASE};

    #[test]
    fn every_unit_test_of_every_shipped_policy_holds() {
        for shipped in [RELEASE, EVIDENCE_SNP] {
            let outcomes = run(shipped.name, shipped.text, shipped.tests).unwrap();
            assert!(outcomes.len() >= 9);
            let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
            assert!(failed.is_empty(), "{}: {failed:#?}", shipped.name);
        }
    }

    #[test]
    fn a_failing_and_a_broken_test_do_not_pass() {
        let outcomes =
            run("p", "package p\nallow := false", "package p_test\nimport data.p\ntest_a if p.allow\n").unwrap();
        assert_eq!(outcomes, [Outcome { name: "test_a".into(), passed: false, error: None }]);
        assert!(matches!(run("p", "package p\nallow := false", "package q\n"), Err(PolicyError::NoTests { .. })));
    }
}
