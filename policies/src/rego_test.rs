//! Runs the `test_…` rules of Rego files over a policy: each must be true. What `opa test` calls a test is one here.

use std::collections::BTreeMap;

use regorus::{Value, unstable::Module};

use crate::{
    PolicyError,
    bounds::{File, on_large_stack},
    builtins,
    error::last_line,
    policy::filled,
    syntax,
};

/// One unit test and whether it held; with the engine's words when it could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// Package and rule.
    pub name: String,
    /// The file it stands in.
    pub file: String,
    /// Its line there, from 1.
    pub line: u32,
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
    run_all(name, &[File::new(name, text), File::new(format!("{name}#tests"), tests)], None)
}

/// Runs every test of these files, which see each other and the data.
///
/// # Errors
/// [`PolicyError`] if one does not parse, or no test is there.
pub fn run_all(name: &str, files: &[File], data: Option<&serde_json::Value>) -> Result<Vec<Outcome>, PolicyError> {
    on_large_stack(name, || run_here(name, files, data))
}

fn run_here(name: &str, files: &[File], data: Option<&serde_json::Value>) -> Result<Vec<Outcome>, PolicyError> {
    let (engine, _, modules) = filled(name, files, data)?;
    let mut outcomes: Vec<Outcome> =
        files.iter().zip(&modules).flat_map(|(file, module)| found(file, module)).collect();
    if outcomes.is_empty() {
        return Err(PolicyError::NoTests { name: name.into() });
    }
    let mut so_called = BTreeMap::<String, u32>::new();
    for outcome in &outcomes {
        *so_called.entry(outcome.name.clone()).or_default() += 1;
    }
    for outcome in &mut outcomes {
        // Asked by its name, one that holds would answer for the other.
        if so_called.get(&outcome.name).is_some_and(|count| *count > 1) {
            outcome.error = Some("more than one test is called so: give each a name of its own".to_owned());
            continue;
        }
        builtins::refill();
        match engine.clone().eval_rule(format!("data.{}", outcome.name)) {
            Ok(value) => outcome.passed = value == Value::Bool(true),
            Err(error) => outcome.error = Some(last_line(&error)),
        }
    }
    Ok(outcomes)
}

/// The tests of a file, not asked yet.
fn found(file: &File, module: &Module) -> Vec<Outcome> {
    let package = syntax::package(module).join(".");
    let mut all: Vec<Outcome> = Vec::new();
    for rule in &module.policy {
        let name = format!("{package}.{}", syntax::first_name(syntax::refr(rule)));
        let is_test = name[package.len() + 1..].starts_with("test_");
        if is_test {
            all.push(Outcome { name, file: file.name.clone(), line: rule.span().line, passed: false, error: None });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SHIPPED;

    #[test]
    fn every_unit_test_of_every_shipped_policy_holds() {
        for shipped in SHIPPED {
            let outcomes = run(shipped.name, shipped.text, shipped.tests).unwrap();
            assert!(outcomes.len() >= 9);
            let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
            assert!(failed.is_empty(), "{}: {failed:#?}", shipped.name);
        }
    }

    #[test]
    fn a_failing_and_a_broken_test_do_not_pass() {
        let tests = "package p_test\nimport data.p\ntest_a if p.allow\n  test_b if to_number(\"x\")";
        let outcomes = run("p", "package p\nallow := false", tests).unwrap();
        let shown: Vec<_> = outcomes.iter().map(|one| (one.name.as_str(), one.line, one.passed)).collect();
        assert_eq!(shown, [("p_test.test_a", 3, false), ("p_test.test_b", 4, false)]);
        assert!(outcomes[0].error.is_none() && outcomes[1].error.is_some(), "{outcomes:?}");
        assert!(matches!(run("p", "package p\nallow := false", "package q\n"), Err(PolicyError::NoTests { .. })));
        let twice = "package p_test\nimport data.p\ntest_a if p.allow\ntest_a if not p.allow\ntest_b if true";
        let outcomes = run("p", "package p\nallow := false", twice).unwrap();
        let shown: Vec<_> = outcomes.iter().map(|one| (one.line, one.passed, one.error.is_some())).collect();
        assert_eq!(shown, [(3, false, true), (4, false, true), (5, true, false)]);
        let circle = run("p", "package p\nallow if data.q.x", "package q\nx if data.p.allow\ntest_x if x");
        assert!(matches!(circle, Err(PolicyError::TooDeep { .. })), "{circle:?}");
    }
}
