//! The files of a policy that decide: all but those of unit tests.
//!
//! Never: leaves out, as a test, what gives a value to a rule that decides: its author would be told by every test that it counts.

use crate::{
    File, PolicyError,
    bounds::{self, on_large_stack},
    syntax::{self, first_name, refr},
};

/// True for the name of a file of unit tests, as `opa test` has it.
pub(crate) fn is_test_file(name: &str) -> bool {
    name.ends_with("_test.rego")
}

/// All but those of unit tests.
///
/// # Errors
/// [`PolicyError::InTest`].
pub fn deciding(name: &str, files: &[File]) -> Result<Vec<File>, PolicyError> {
    let (tests, deciding): (Vec<File>, Vec<File>) = files.iter().cloned().partition(|file| is_test_file(&file.name));
    if tests.is_empty() || deciding.is_empty() {
        return Ok(deciding);
    }
    on_large_stack(name, || apart(&tests, &deciding))?;
    Ok(deciding)
}

fn apart(tests: &[File], deciding: &[File]) -> Result<(), PolicyError> {
    // What does not parse is said where it is read for what it is: a policy is refused, and no test of such a file is ever asked.
    let mut places: Vec<Vec<String>> = Vec::new();
    for module in deciding.iter().filter_map(|file| bounds::module(file).ok()) {
        let package = syntax::package(&module);
        let rules = module.policy.iter().map(|rule| first_name(refr(rule)));
        let rules = rules.chain(["allow", "deny"].map(str::to_owned));
        places.extend(rules.map(|rule| package.iter().cloned().chain([rule]).collect()));
    }
    for file in tests {
        let Ok(module) = bounds::module(file) else { continue };
        let package = syntax::package(&module);
        for rule in &module.policy {
            let given = places.iter().find(|place| syntax::gives(&package, refr(rule), place));
            if let Some(place) = given {
                return Err(PolicyError::InTest {
                    name: file.name.clone(),
                    line: rule.span().line,
                    rule: place.join("."),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_tests_gives_no_value_to_what_decides() {
        let policy = File::new("p.rego", "package p\n\nallow if ours\n\nours if input.now_unix > 0");
        let with = |text: &str| deciding("p", &[policy.clone(), File::new("p_test.rego", text)]);
        for text in [
            "package p\n\ndeny contains \"x\"",
            "package p\n\nallow := true",
            "package p\n\nours := true",
            "package p\n\nallow.x := 1",
            "package p\n\nours[\"a\"] := 1",
            "package p.deny\n\nx := 1",
        ] {
            let Err(PolicyError::InTest { name, line: 3, .. }) = with(text) else { panic!("{text}") };
            assert_eq!(name, "p_test.rego");
        }
        for text in [
            "package p\n\ntest_a if allow with input as {\"now_unix\": 1}\n\nmade_up := {}",
            "package p_test\n\nimport data.p\n\nallow := 1\n\ntest_a if p.allow",
            "no rego",
        ] {
            assert_eq!(with(text).unwrap().len(), 1, "{text}");
        }
    }
}
