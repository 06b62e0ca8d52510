//! A line of the trail as people read it: what was asked, how it ended, every reason, and the checks that were not passed.
//!
//! Never: leaves a key out. What has no place of its own stands with its name, and text of others is made harmless.

use std::fmt::Write as _;

use coffer_rim::foreign;
use serde_json::{Map, Value};

/// A line in words; nothing where it is no object.
pub fn in_words(line: &str) -> Option<String> {
    let mut line: Map<String, Value> = serde_json::from_str(line).ok()?;
    let mut take = |key: &str| line.remove(key).map(|value| word(&value)).unwrap_or_default();
    let (event, outcome, time, sequence) = (take("event"), take("outcome"), take("time"), take("sequence"));
    let mut said = format!("{event}: {outcome}\n  {:<17} {time}\n  {:<17} {sequence}\n", "time", "line");
    let (reasons, checks) = (line.remove("reasons"), line.remove("checks"));
    for (key, value) in &line {
        let _ = writeln!(said, "  {:<17} {}", foreign(&key.replace('_', " ")), word(value));
    }
    for reason in reasons.iter().flat_map(each) {
        let _ = writeln!(said, "reason: {}", word(reason));
    }
    let checks: Vec<&Value> = checks.iter().flat_map(each).collect();
    let passed = checks.iter().filter(|check| check["outcome"] == "pass").count();
    for check in checks.iter().filter(|check| check["outcome"] != "pass") {
        let part = |key: &str| word(&check[key]);
        let _ = writeln!(said, "check {} {}: {}", part("code"), part("outcome"), part("found"));
        for key in ["expected", "hint"] {
            let text = part(key);
            if !text.is_empty() {
                let _ = writeln!(said, "  {key}: {text}");
            }
        }
    }
    match passed {
        0 => {}
        1 => said.push_str("1 check of the evidence passed\n"),
        many => {
            let _ = writeln!(said, "{many} checks of the evidence passed");
        }
    }
    Some(said)
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A value on one line: text as it is, lists with commas, anything else as JSON.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => foreign(text).into_owned(),
        Value::Array(list) if list.iter().all(|one| !one.is_object()) => {
            list.iter().map(word).collect::<Vec<_>>().join(", ")
        }
        other => foreign(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_all_that_its_line_says_and_nothing_that_acts_on_a_terminal() {
        let line = r#"{"sequence":7,"time":"2026-11-27T20:00:00Z","event":"secret.release","outcome":"refused","id":"ab","tenant":"acme",
            "path":"kbs:///a/b/c\u001b[2J","chip_id":"01","reasons":["reference: not listed","policy: no"],"previous":"00",
            "checks":[{"code":"signature","outcome":"pass","found":"x","expected":"x","hint":""},
                {"code":"tcb","outcome":"fail","found":"3","expected":"4","hint":"update"}]}"#;
        let said = in_words(line).unwrap();
        let begins = "secret.release: refused\n  time              2026-11-27T20:00:00Z\n  line              7\n";
        assert!(said.starts_with(begins), "{said}");
        for part in [
            "  tenant            acme\n",
            "  chip id           01\n",
            "reason: reference: not listed\nreason: policy: no\n",
            "check tcb fail: 3\n  expected: 4\n  hint: update\n",
            "1 check of the evidence passed\n",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains('\u{1b}'), "{said}");
        assert_eq!(in_words("[]"), None);
    }
}
