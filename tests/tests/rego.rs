//! Policies that we ship stand as `opa fmt` leaves them, as far as lines show it: whoever copies one and runs it through OPA's tools gets
//! no changes but their own.
//!
//! Source: OPA 1.0, `opa fmt`: Rego v1, tabs, one element a line with a comma behind each.

use std::{fs, path::Path};

use anyhow::{Result, ensure};

/// What a line does not have.
fn faults(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fault = |number: usize, what: &str| found.push(format!("line {}: {what}", number + 1));
    let lines: Vec<&str> = text.split('\n').collect();
    if !text.ends_with('\n') || text.ends_with("\n\n") {
        fault(lines.len().saturating_sub(1), "the last line has one line feed behind it");
    }
    for (number, line) in lines.iter().enumerate() {
        let code = without_texts(line);
        let body = code.trim_start_matches('\t');
        if line.ends_with(char::is_whitespace) {
            fault(number, "blanks at its end");
        }
        if body.starts_with(' ') {
            fault(number, "blanks before it, where tabs stand");
        }
        if body.contains('\t') {
            fault(number, "a tab within it");
        }
        if number > 0 && line.is_empty() && lines[number - 1].is_empty() && number + 1 < lines.len() {
            fault(number, "a second empty line");
        }
        if body.starts_with('#') {
            continue;
        }
        if body.contains("  ") {
            fault(number, "two blanks");
        }
        if code.contains(" ,")
            || code.match_indices(',').any(|(at, _)| !matches!(code.as_bytes().get(at + 1), None | Some(b' ')))
        {
            fault(number, "a comma has a blank behind it and none before");
        }
        if code.split_once(" if {").is_some_and(|(_, behind)| !behind.is_empty()) {
            fault(number, "a body in braces has lines of its own");
        }
        for sign in [":=", "==", "!=", ">=", "<="] {
            let apart = |at: usize| {
                at > 0 && code.as_bytes()[at - 1] == b' ' && code.as_bytes().get(at + sign.len()) == Some(&b' ')
            };
            if code.match_indices(sign).any(|(at, _)| !apart(at)) {
                fault(number, "a sign has a blank on either side");
            }
        }
        let head = !line.starts_with('\t')
            && (body.contains(" = ") || body.ends_with('{') && !body.ends_with(" if {") && !body.contains(":="));
        if head && !body.starts_with("default ") && !body.starts_with('}') {
            fault(number, "a rule is written with `if`, `contains` or `:=`");
        }
        let next = lines.get(number + 1).map(|next| next.trim_start_matches('\t')).unwrap_or_default();
        // A text alone.
        let last_of_list = (next.starts_with(']') || next == "}") && body == "\"\"";
        if last_of_list {
            fault(number, "the last of a list has a comma behind it");
        }
    }
    let package = lines.iter().position(|line| line.starts_with("package "));
    match package {
        Some(at) if lines.get(at + 1).is_none_or(|next| next.is_empty()) => {}
        _ => fault(package.unwrap_or(0), "a package, and an empty line behind it"),
    }
    if lines.contains(&"import rego.v1") {
        fault(0, "Rego is v1 by itself");
    }
    found
}

/// A line with nothing in its texts.
fn without_texts(line: &str) -> String {
    let (mut out, mut quote, mut before) = (String::new(), None, ' ');
    for c in line.chars() {
        match quote {
            Some(open) if c == open && before != '\\' => quote = None,
            Some(_) => {
                before = if before == '\\' { ' ' } else { c };
                continue;
            }
            None if matches!(c, '"' | '`') => quote = Some(c),
            None => {}
        }
        before = c;
        out.push(c);
    }
    out
}

fn policies(folder: &Path, all: &mut Vec<(String, String)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            policies(&path, all)?;
        } else if path.extension().is_some_and(|extension| extension == "rego") {
            all.push((path.display().to_string(), fs::read_to_string(path)?));
        }
    }
    Ok(())
}

#[test]
fn policies_stand_as_opa_leaves_them() -> Result<()> {
    let mut all = Vec::new();
    for folder in ["policies", "docs", "deploy", "verifier"] {
        policies(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut all)?;
    }
    ensure!(all.len() >= 6, "policies have moved");
    let wrong: Vec<_> = all
        .iter()
        .flat_map(|(name, text)| faults(text).into_iter().map(move |what| format!("{name}: {what}")))
        .collect();
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn what_opa_would_change_is_named() {
    let good = "# Title.\npackage a\n\nx := {\n\t\"a, b\",\n\t\"c\",\n}\n\ndeny contains \"b  c\" if not y\n\nallow if {\n\tinput.a == 1\n\ty\n}\n";
    assert_eq!(faults(good), [""; 0]);
    for (from, to, what) in [
        ("\tinput.a", "    input.a", "tabs"),
        ("input.a == 1", "input.a  == 1", "two blanks"),
        ("input.a == 1", "input.a==1", "either side"),
        ("\ty\n", "\ty \n", "at its end"),
        ("\n\nallow", "\n\n\nallow", "second empty line"),
        ("allow if {\n", "allow {\n", "is written with"),
        ("allow if {\n\t", "allow if { ", "lines of its own"),
        ("\"c\",\n", "\"c\"\n", "comma behind it"),
        ("\"a, b\",\n\t", "\"a, b\" , ", "comma has"),
        ("package a\n\n", "package a\n", "package"),
        ("package a\n\n", "package a\n\nimport rego.v1\n\n", "v1 by itself"),
        ("x := {", "x = {", "is written with"),
        ("y\n}\n", "y\n}", "one line feed"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(bad != good && faults(&bad).iter().any(|fault| fault.contains(what)), "{what}: {:?}", faults(&bad));
    }
}
