use super::*;
use crate::SHIPPED;

/// Place and code of everything that is found in a policy.
fn found(text: &str) -> Vec<(u32, u32, &'static str)> {
    let findings = lint("p.rego", &[File::new("p.rego", text)], None).unwrap();
    findings.into_iter().map(|one| (one.line, one.column, one.code)).collect()
}

#[test]
fn what_we_ship_has_nothing_to_say() {
    for shipped in SHIPPED {
        let tests = shipped.name.replace(".rego", "_test.rego");
        let files = [File::new(shipped.name, shipped.text), File::new(tests, shipped.tests)];
        assert_eq!(lint(shipped.name, &files, None).unwrap(), [], "{}", shipped.name);
    }
}

#[test]
fn every_kind_is_found_at_its_place_and_what_is_right_is_not() {
    let mut kinds = BTreeSet::new();
    for (text, expected) in [
        ("package p\nallow if {", (2, 11, "parse")),
        ("package p\n\nallow if no_such(1)", (3, 10, "parse")),
        ("package p\nallow if allow", (2, 1, "parse")),
        ("package p\npermit := true", (1, 1, "no-allow")),
        ("package p\nallow := \"yes\"", (2, 1, "allow-no-boolean")),
        ("package p\n\ndefault allow := 0\nallow if input.now_unix > 0", (3, 9, "allow-no-boolean")),
        ("package p\nallow := true if input.now_unix > 0\nelse := [false]", (2, 1, "allow-no-boolean")),
        ("package p\nimport data.lib\nallow := true", (2, 1, "unused-import")),
        ("package p\nallow if {\n\tx := 1\n}", (3, 5, "unused-variable")),
        ("package p\nallow if some x in [1]", (2, 15, "unused-variable")),
        ("package p\nallow if { some x; input.now_unix > 0 }", (2, 17, "unused-variable")),
        ("package p\nf(x) := 1\nallow if f(1) == 1", (2, 3, "unused-argument")),
        ("package p\nf(input) := input\nallow if f(1)", (2, 3, "shadows-input")),
        ("package p\nallow if any([true])", (2, 10, "deprecated-function")),
        ("package p\nallow if {\n\thttp.send({}).x == 1\n}", (3, 5, "forbidden-function")),
        ("package p\nallow if time.now_ns() > 0", (2, 10, "forbidden-function")),
        ("package p\nallow if input.result.claims.report.debug == false", (2, 10, "unknown-field")),
        ("package p\nallow if input[\"result\"].claim", (2, 10, "unknown-field")),
        ("package p\nimport input.result as r\nallow if r.claims.vmpl == 0", (3, 10, "unknown-field")),
        ("package p\nimport input.results as r\nallow if r.x", (2, 1, "unknown-field")),
        ("package p\nallow := true\ndeny contains 1 if data.blocked[input.now_unix]", (3, 20, "unknown-data")),
        ("package p\nimport data.lib\nallow if lib.ok", (2, 1, "unknown-data")),
        ("package p\nallow := true\ndeny if input.now_unix > 0", (3, 1, "deny-no-set")),
        ("package p\nallow := true\ndeny := {}", (3, 1, "deny-no-set")),
        ("package p\nallow := true\ndefault deny := false", (3, 9, "deny-no-set")),
        ("package p\nallow := true\ndeny[\"x\"] if true", (3, 5, "deny-no-set")),
        ("package p\nx := 1\nallow if data.p.y == 1", (3, 10, "unknown-data")),
    ] {
        let all = found(text);
        assert!(all.contains(&expected), "{text}: {all:?}");
        kinds.insert(expected.2);
    }
    let in_test =
        [File::new("p.rego", "package p\nallow := true"), File::new("p_test.rego", "package p\ndeny contains 1")];
    let found_there = lint("p", &in_test, None).unwrap();
    assert!(
        found_there.iter().any(|one| (one.file.as_str(), one.line, one.code) == ("p_test.rego", 2, "rule-in-test"))
    );
    kinds.insert("rule-in-test");
    let all: BTreeSet<&str> = FINDINGS.iter().map(|(code, _)| *code).collect();
    assert_eq!(kinds, all);
    for text in [
        "package p\nimport rego.v1\nimport data.p as own\nallow if own.ok\nok if input.now_unix > 0",
        "package p\nok := {\"a\": 1}\nallow if data.p.ok.a == data.p.ok[input.result.status]",
        "package p\nallow if { some r in input.references; r.name == \"x\" }",
        "package p\nallow if { some i; input.references[i].name == \"x\" }",
        "package p\nallow if { x := input.result.claims[input.result.status]; x == 1 }",
        "package p\nany(xs) if xs[_] == 1\nallow if any([1])",
        "package p\nwords := \"yes\"\ndefault allow := false\nallow := input.now_unix > 0",
        "package p\nf(_) := 1\nallow if f(1) == 1",
        "package p\nallow if { r := {\"debug\": 1}; r.debug == 1 }",
        "package p\nallow if every x in input.references { x.name != \"\" }",
        "package p\nallow := true\ndeny := {\"x\" | input.now_unix > 0}",
        "package p\nallow := true\ndeny := set()",
        "package p\nallow := true\ndeny contains \"x\" if input.now_unix > 0",
    ] {
        let all = found(text);
        assert_eq!(all, [], "{text}");
    }
}

#[test]
fn what_data_holds_is_found_and_what_it_does_not_is_named_with_what_is_there() {
    let data = serde_json::json!({"lists": {"bad": {"y": 1}, "good": [{"z": 1}]}, "lib": {"n": 1}});
    let lib = File::new("lib.rego", "package lib.deep\n\nok := input.now_unix > 0");
    let of = |reference: &str| {
        let text = format!("package p\nallow if {reference}");
        let findings = lint("p", &[File::new("p.rego", text), lib.clone()], Some(&data)).unwrap();
        findings.into_iter().map(|one| format!("{} {}", one.code, one.message)).collect::<Vec<_>>()
    };
    for known in [
        "data.lists.bad[input.result.status]",
        "data.lists.bad.y == 1",
        "data.lists.good[0].z == 1",
        "data.lib.n == 1",
        "data.lib.deep.ok",
        "data.lib[input.result.status]",
    ] {
        assert_eq!(of(known), [""; 0], "{known}");
    }
    for (unknown, says) in [
        ("data.list.bad", "data.list: there are lib, lists, p"),
        ("data.lists.bda[1]", "data.lists.bda: there are bad, good"),
        ("data.lists.bad.x", "data.lists.bad.x: there are y"),
        ("data.lists.bad.y.z", "data.lists.bad.y.z: nothing is there"),
        ("data.lib.depp.ok", "data.lib.depp: there are deep, n"),
        ("data.lib.deep.no", "data.lib.deep.no: there are ok"),
    ] {
        let found = of(unknown);
        assert!(found.len() == 1 && found[0].starts_with("unknown-data") && found[0].ends_with(says), "{found:?}");
    }
}

#[test]
fn what_tests_make_up_is_there_for_tests_alone_and_a_deny_elsewhere_is_nobodys() {
    let files = [
        File::new("p.rego", "package p\nimport data.lib\nallow if data.lists.bad == lib.deny(1)"),
        File::new("lib.rego", "package lib\ndeny(x) := x"),
        File::new("lists_test.rego", "package lists\nbad := 1"),
        File::new(
            "p_test.rego",
            "package p_test\nimport data.lists\nimport data.p\ntest_a if p.allow == (lists.bad == 1)",
        ),
    ];
    let all = lint("p", &files, None).unwrap();
    let found: Vec<_> = all.iter().map(|one| (one.file.as_str(), one.line, one.code)).collect();
    assert_eq!(found, [("p.rego", 3, "unknown-data")], "{all:?}");
}

#[test]
fn a_file_that_is_no_rego_hides_nothing_of_the_others() {
    let files = [
        File::new("a.rego", "package a\nallow if {"),
        File::new("b.rego", "package b\n\nx := no_such(1)\n\ny := http.send({})\n\nz if w := 1"),
        File::new("c.rego", "no rego"),
    ];
    let found = |files: &[File]| -> Vec<(String, u32, &'static str)> {
        let findings = lint("b", files, None).unwrap();
        findings.into_iter().map(|one| (one.file, one.line, one.code)).collect()
    };
    let of = |file: &str, line: u32, code: &'static str| (file.to_owned(), line, code);
    // What b calls may stand in a or c.
    let all = [
        of("a.rego", 2, "parse"),
        of("b.rego", 5, "forbidden-function"),
        of("b.rego", 7, "unused-variable"),
        of("c.rego", 1, "parse"),
    ];
    assert_eq!(found(&files), all);
    // Each call of what is not there, and not the first alone.
    let both = [File::new("b.rego", "package b\n\nallow if no_such(1)\n\nx if neither(1)\n\ny if count()")];
    let all = [of("b.rego", 3, "parse"), of("b.rego", 5, "parse"), of("b.rego", 7, "parse")];
    assert_eq!(found(&both), all);
}

#[test]
fn findings_of_several_files_name_their_own_and_tests_may_make_up_an_input() {
    let files = [
        File::new("a.rego", "package a\nallow if data.lib.f(1)"),
        File::new("lib.rego", "package lib\n\nf(x) if y := x"),
        File::new("a_test.rego", "package a_test\ntest_a if not data.a.allow with input as {\"x\": input.made_up}"),
    ];
    let all = lint("b", &files, None).unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].to_string().starts_with("lib.rego:3:9: unused-variable: y "), "{}", all[0]);
}
