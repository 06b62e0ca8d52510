//! What pages list is what the sources have: a list that somebody keeps by hand is held against the place it is a list of.
//!
//! Texts are compared, so that nothing is built for it. Exit codes stand with their type, in runtime/rim.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

type Words = BTreeSet<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The part of a page under a heading, up to the next of its level or above.
fn section(page: &str, heading: &str) -> String {
    let text = read(page);
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "{page} has no {heading}");
    let ends = |line: &str| {
        let marks = line.bytes().take_while(|byte| *byte == b'#').count();
        (1..=level).contains(&marks)
    };
    lines.take_while(|line| !ends(line)).flat_map(|line| [line, "\n"]).collect()
}

/// Words in backticks of a text.
fn spans(text: &str) -> Words {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// First column of the table whose header begins with this word.
fn column(text: &str, header: &str) -> Words {
    let head = format!("| {header} |");
    let rows =
        text.lines().skip_while(|line| !line.starts_with(&head)).skip(2).take_while(|line| line.starts_with('|'));
    let cells: Vec<&str> = rows.filter_map(|row| row.split('|').nth(1)).collect();
    assert!(!cells.is_empty(), "no table with the header {header}");
    spans(&cells.concat())
}

/// Sources of the key broker, without what only its tests run.
fn broker() -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, all: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    collect(&path, all);
                }
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                all.push((path, product.to_owned()));
            }
        }
    }
    let mut all = Vec::new();
    collect(&root().join("kbs/src"), &mut all);
    assert!(all.len() > 20, "the broker's sources have moved");
    all
}

/// String literals of a text, in their order.
fn literals(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.split('"').skip(1).step_by(2)).collect()
}

/// The literal that follows each place where `before` stands.
fn after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let places = text.match_indices(before).map(|(at, _)| &text[at + before.len()..]);
    places.filter_map(|rest| rest.split('"').nth(1)).collect()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

#[test]
fn every_event_of_the_audit_trail_is_on_its_page() {
    const FILES: &[&str] = &["pem", "key", "toml", "db", "rego", "crl", "der", "json", "sock", "example"];
    let (mut events, mut listed) = (Words::new(), Words::new());
    for (path, text) in broker() {
        let events = if path.ends_with("audit_words.rs") { &mut listed } else { &mut events };
        let named = literals(&text).into_iter().filter(|literal| {
            literal.split_once('.').is_some_and(|(noun, verb)| {
                is_word(noun) && is_word(verb) && verb.split('-').next().is_none_or(|end| !FILES.contains(&end))
            })
        });
        events.extend(named.map(str::to_owned));
    }
    assert!(events.contains("secret.release"), "{events:?}");
    assert_eq!(listed, events, "audit_words.rs has every event, and no other");
    assert_eq!(column(&section("docs/kbs.md", "## Audit trail"), "event"), events, "docs/kbs.md, \"Audit trail\"");
}

#[test]
fn every_outcome_of_the_audit_trail_is_on_its_page() {
    let mut outcomes = Words::new();
    for (path, text) in broker() {
        for before in ["outcome: \"", "outcome = \""] {
            let places = text.split(before).skip(1).filter_map(|rest| rest.split('"').next());
            outcomes.extend(places.map(str::to_owned));
        }
        // Their second argument says what it is where nothing was done.
        if path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("admin")) {
            outcomes.extend(after(&text, "done_if(").iter().map(|word| (*word).to_owned()));
        }
    }
    let page = spans(&section("docs/kbs.md", "## Audit trail"));
    let missing: Vec<_> = outcomes.iter().filter(|word| is_word(word) && !page.contains(*word)).collect();
    assert!(outcomes.contains("done") && outcomes.contains("nothing-there"), "{outcomes:?}");
    assert!(missing.is_empty(), "docs/kbs.md, \"Audit trail\", does not name the outcomes {missing:?}");
    let words = read("kbs/src/store/audit_words.rs");
    let unlisted: Vec<_> =
        outcomes.iter().filter(|word| is_word(word) && !literals(&words).contains(&word.as_str())).collect();
    assert!(unlisted.is_empty(), "audit_words.rs lacks the outcomes {unlisted:?}");
}

#[test]
fn every_key_of_the_audit_trail_is_on_its_page_and_no_other() {
    let source = read("kbs/src/store/audit.rs");
    let mut keys = Words::new();
    for name in ["pub struct AuditEntry {", "pub struct GuestFacts {", "struct Line<'a> {"] {
        let body =
            source.split(name).nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_else(|| panic!("{name}"));
        let mut flattened = false;
        for line in body.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            if line.starts_with('#') {
                flattened = line.contains("(flatten");
            } else if let Some((field, _)) = line.trim_start_matches("pub ").split_once(": ")
                && !std::mem::take(&mut flattened)
            {
                keys.insert(field.to_owned());
            }
        }
    }
    assert!(keys.contains("sequence") && keys.contains("reasons") && keys.contains("chip_id"), "{keys:?}");
    assert_eq!(column(&section("docs/kbs.md", "## Audit trail"), "key"), keys, "docs/kbs.md, \"Audit trail\"");
}

#[test]
fn every_reason_of_the_broker_begins_with_a_word_that_is_on_its_page() {
    let page = column(&section("docs/kbs.md", "### Reasons"), "word");
    let mut words = Words::new();
    let rego = read("policies/results/release.rego");
    for text in [after(&rego, "deny contains "), after(&rego, "message := sprintf(")].concat() {
        words.extend(text.split_once(": ").map(|(word, _)| word.to_owned()));
    }
    let head = |literal: &str| literal.split([':', ' ']).next().unwrap_or_default().to_owned();
    let mut heads: Words = literals(&rego).into_iter().map(head).collect();
    for (_, text) in broker() {
        for before in ["reasons.push(", "notes.push(", "reasons.extend("] {
            let literals = after(&text, before).into_iter().filter_map(|literal| literal.split_once(": "));
            words.extend(literals.map(|(word, _)| word.to_owned()).filter(|word| is_word(word)));
        }
        heads.extend(literals(&text).into_iter().map(head));
    }
    assert!(words.contains("spec") && words.contains("reference"), "{words:?}");
    let missing: Vec<_> = words.difference(&page).collect();
    assert!(missing.is_empty(), "docs/kbs.md, \"Reasons\", does not name {missing:?}");
    let gone: Vec<_> = page.difference(&heads).collect();
    assert!(gone.is_empty(), "docs/kbs.md, \"Reasons\", names what no reason begins with: {gone:?}");
}

#[test]
fn every_key_of_a_policys_input_is_on_its_page() {
    let page = section("docs/kbs.md", "## Policy input");
    let mut keys = Words::new();
    for file in ["kbs/src/decide.rs", "kbs/src/admission.rs"] {
        let text = read(file);
        let objects = text.split("json!(").skip(1).filter_map(|rest| rest.split(')').next().map(|_| rest));
        for object in objects {
            // An object ends where its braces do.
            let mut depth = 0_i32;
            let end = object.char_indices().find(|(_, c)| {
                depth += i32::from(*c == '{') - i32::from(*c == '}');
                *c == '}' && depth == 0
            });
            let object = &object[..end.map_or(object.len(), |(at, _)| at)];
            let named = object.split('"').skip(1).step_by(2).zip(object.split('"').skip(2).step_by(2));
            keys.extend(named.filter(|(_, next)| next.starts_with(':')).map(|(key, _)| key.to_owned()));
        }
    }
    assert!(keys.contains("signers") && keys.contains("author_key_digest") && keys.contains("now_unix"), "{keys:?}");
    let said = |key: &str| page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| word == key);
    let missing: Vec<_> = keys.iter().filter(|key| !said(key)).collect();
    assert!(missing.is_empty(), "docs/kbs.md, \"Policy input\", does not name {missing:?}");
    let schema = read("policies/input.schema.json");
    let missing: Vec<_> = keys.iter().filter(|key| !schema.contains(&format!("\"{key}\": {{"))).collect();
    assert!(missing.is_empty(), "policies/input.schema.json does not describe {missing:?}");
}

/// Paths, types and meanings of a JSON Schema, as rows of a table.
fn rows(path: &str, schema: &serde_json::Value, all: &mut Words) {
    let words = |value: &serde_json::Value| match value {
        serde_json::Value::Array(words) => words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
        other => other.to_string(),
    };
    let kind = if schema["enum"].is_array() { words(&schema["enum"]) } else { words(&schema["type"]).replace('"', "") };
    all.insert(format!("| `{path}` | {kind} | {} |", schema["description"].as_str().unwrap_or_default()));
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        rows(&format!("{path}.{name}"), inner, all);
    }
    if schema["items"].is_object() {
        rows(&format!("{path}[]"), &schema["items"], all);
    }
}

#[test]
fn every_field_of_a_policys_input_stands_in_the_table_as_in_the_schema() {
    let mut wanted = Words::new();
    rows("input", &serde_json::from_str(&read("policies/input.schema.json")).unwrap(), &mut wanted);
    assert!(wanted.len() > 120, "{}", wanted.len());
    let page = section("docs/policies.md", "## The input");
    let there: Words = page.lines().filter(|line| line.starts_with("| `input")).map(str::to_owned).collect();
    assert_eq!(there, wanted, "docs/policies.md, \"The input\"");
}

#[test]
fn every_kind_of_finding_of_lint_is_on_its_page() {
    let source = read("policies/src/lint.rs");
    let table = source.split("pub const FINDINGS").nth(1).and_then(|rest| rest.split("];").next()).unwrap();
    let kinds: Words = after(table, "    (").iter().map(|word| (*word).to_owned()).collect();
    assert!(kinds.contains("unknown-field") && kinds.len() > 5, "{kinds:?}");
    assert_eq!(column(&section("docs/policies.md", "## Lint"), "finding"), kinds);
    let source = read("policies/src/typed.rs");
    let table = source.split("pub const TYPED_FINDINGS").nth(1).and_then(|rest| rest.split("];").next()).unwrap();
    let kinds: Words = after(table, "    (").iter().map(|word| (*word).to_owned()).collect();
    assert!(kinds.contains("any-guest") && kinds.len() > 5, "{kinds:?}");
    assert_eq!(column(&section("docs/policies.md", "## Lint of typed policies"), "finding"), kinds);
}

#[test]
fn codes_that_stand_in_no_list_of_checks_are_named_behind_the_table() {
    let source = read("verifier/src/code.rs");
    let rows = source.lines().filter(|line| line.contains("\" Elsewhere \""));
    let elsewhere: Words = rows.filter_map(|row| row.split('"').nth(1)).map(str::to_owned).collect();
    assert!(elsewhere.contains("rego"), "{elsewhere:?}");
    let codes = section("docs/verifier.md", "## Codes");
    let sentence = codes.lines().find(|line| line.ends_with("stand in no list of checks."));
    assert_eq!(spans(sentence.expect("a sentence behind the table")), elsewhere);
}
