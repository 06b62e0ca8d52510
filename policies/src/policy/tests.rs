use serde_json::json;

use super::*;

fn policy(body: &str) -> Policy {
    Policy::parse("t.rego", &format!("package t\n{body}\n")).unwrap()
}

#[test]
fn says_yes_only_to_true_and_an_empty_deny() {
    assert!(policy("allow := true").decide(&json!({})).allows());
    assert!(!policy("allow := true\ndeny contains \"no\"").decide(&json!({})).allows());
    assert!(!policy("allow := false").decide(&json!({})).allows());
}

#[test]
fn refuses_undefined_non_boolean_and_failing_rules() {
    for body in [
        "allow if input.absent",
        "allow := 1",
        "allow := \"true\"",
        "allow := [true]",
        "allow := to_number(input.word) > 0",
        "allow := true\ndeny := \"no\"",
        "allow := true\ndeny contains to_number(input.word)",
    ] {
        let decision = policy(body).decide(&json!({"word": "x"}));
        assert!(!decision.allows(), "{body}");
        assert!(!decision.reasons().is_empty(), "{body}");
    }
}

#[test]
fn a_signature_of_tomorrow_is_not_told_to_be_old() {
    let signed = |at| policy("allow := true").with_date(Some(UnixTime(at)));
    let now = UnixTime(1_000_000);
    let most = MaxAge::Seconds(3600);
    let (found, _, hint) = signed(now.0 + CLOCKS_DIFFER_BY + 1).too_old(most, now).unwrap();
    assert!(found.ends_with("which is to come"), "{found}");
    assert!(hint.contains("lies ahead") && hint.contains("--at") && !hint.contains("newest"), "{hint}");
    let (found, _, hint) = signed(now.0 - 3601).too_old(most, now).unwrap();
    assert!(!found.contains("to come") && hint.contains("newest"), "{found}: {hint}");
    assert!(signed(now.0 + CLOCKS_DIFFER_BY).too_old(most, now).is_none());
}

#[test]
fn collects_every_reason() {
    let two = policy("default allow := false\ndeny contains \"b\" if input.x\ndeny contains \"a\" if input.x");
    assert_eq!(two.decide(&json!({"x": true})).reasons(), ["a", "b"]);
}

#[test]
fn says_what_is_against_within_bounds() {
    let all = json!({"x": true});
    let many =
        policy("allow := true\ndeny contains sprintf(\"%d\", [n]) if some n in numbers.range(1, 4000)").decide(&all);
    assert_eq!(many.reasons().len(), REASONS_LIMIT + 1);
    assert!(many.reasons().concat().ends_with("policy: … and 3968 more reasons"), "{many:?}");
    let lists: Vec<String> = (1..=30).map(|at| format!(" x{at} := [x{}, x{}]", at - 1, at - 1)).collect();
    for long in [
        format!("deny contains \"{}\"", "ä".repeat(400)),
        format!("deny contains {{\"a\": \"{}\"}}", "ä".repeat(400)),
        format!("deny := [x30] if {{\n x0 := [1]\n{}\n}}", lists.join("\n")),
    ] {
        let decision = policy(&format!("allow := true\n{long}")).decide(&all);
        assert!(!decision.allows());
        let reasons = decision.reasons();
        assert!(reasons.len() == 1 && reasons[0].len() <= REASON_LIMIT && reasons[0].len() > 10, "{reasons:?}");
    }
}

#[test]
fn refuses_texts_that_are_no_policy() {
    assert!(matches!(Policy::parse("x", "package x\nallow if {"), Err(PolicyError::Parse { .. })));
    assert!(matches!(Policy::parse("x", "package x\npermit := true"), Err(PolicyError::NoAllow { .. })));
    assert!(matches!(Policy::parse("x", "package x\nallow if no_such_function(1)"), Err(PolicyError::Parse { .. })));
    for (text, place) in
        [("package x\nallow if {", "line 2, column 11: "), ("package x\n\nallow if no_such(1)", "line 3, column 10: ")]
    {
        let said = Policy::parse("x", text).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains(place) && said.lines().count() == 1, "{said}");
    }
    let long = format!("package x\nallow := true\n{}", "#".repeat(crate::POLICY_LIMIT));
    assert!(matches!(Policy::parse("x", &long), Err(PolicyError::TooLong { .. })));
}

#[test]
fn several_texts_are_one_policy_and_data_never_stands_for_a_rule() {
    let files = [
        File::new("a.rego", "package a\nimport data.lib\nallow if lib.listed(input.x)"),
        File::new("lib.rego", "package lib\nlisted(x) if x in data.lists.good"),
    ];
    let of = |files: &[File], data: serde_json::Value| Policy::of("b", files, Some(&data), [0; 32]);
    let policy = of(&files, json!({"lists": {"good": ["y"]}})).unwrap();
    assert!(policy.decide(&json!({"x": "y"})).allows() && !policy.decide(&json!({"x": "z"})).allows());
    assert_eq!(policy.package(), "a");
    for data in [json!({"a": {"allow": true}}), json!({"a": true}), json!({"lib": {"listed": []}})] {
        let error = of(&files, data.clone()).map(|_| ()).unwrap_err();
        assert!(matches!(error, PolicyError::Data { .. }), "{data}: {error}");
    }
    let two = [files[0].clone(), files[1].clone(), File::new("c.rego", "package c\nallow := true")];
    let error = of(&two, json!({})).map(|_| ()).unwrap_err();
    assert!(matches!(&error, PolicyError::SeveralAllow { packages, .. } if packages.len() == 2), "{error}");
    // What comes back to itself on the way through another package.
    let circle = [
        File::new("a.rego", "package a\nallow if data.b.x"),
        File::new("b.rego", "package b\nimport data.a\n\nx if a.allow"),
    ];
    let error = of(&circle, json!({})).map(|_| ()).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("data.a.allow asks data.b.x asks data.a.allow"), "{said}");
    let broken = [files[0].clone(), File::new("lib.rego", "package lib\n\nlisted(x) if no_such(x)")];
    let error = of(&broken, json!({})).map(|_| ()).unwrap_err();
    assert_eq!(error.place(), ("lib.rego", Some((3, 14))), "{error}");
}

#[test]
fn a_deny_that_is_no_rule_of_the_package_that_decides_is_refused_and_not_passed_over() {
    let of = |texts: &[&str], data: Option<serde_json::Value>| {
        let file = |(at, text): (usize, &&str)| File::new(format!("{at}.rego"), *text);
        let files: Vec<File> = texts.iter().enumerate().map(file).collect();
        Policy::of("t", &files, data.as_ref(), [0; 32]).map(|_| ()).map_err(|error| error.to_string())
    };
    let allow = "package a.t\nallow := true";
    for (text, what) in [
        ("package a.t.deny\nx := 1", "package a.t.deny stands"),
        ("package a.t.deny.more\nx contains 1", "package a.t.deny.more stands"),
        ("package a.t.allow\nx := 1", "package a.t.allow stands"),
        ("package a\nt.deny contains \"x\"", "rule of package a gives a value to a.t.deny"),
        ("package a\nt.deny.x := 1", "rule of package a gives a value to a.t.deny"),
        ("package a\nt[x] := [\"no\"] if some x in [\"deny\"]", "rule of package a gives a value to a.t."),
    ] {
        let said = of(&[allow, text], None).unwrap_err();
        assert!(said.contains(what), "{text}: {said}");
    }
    for data in [json!({"a": {"t": {"deny": ["x"]}}}), json!({"a": {"t": {"deny": {}}}})] {
        assert!(of(&[allow], Some(data.clone())).unwrap_err().contains("a value to a.t.deny"), "{data}");
    }
    for beside in ["package a.t.denied\nx := 1", "package deny\nx := 1", "package a.t\ndeny contains \"x\""] {
        assert_eq!(of(&[allow, beside], Some(json!({"a": {"deny": 1, "t": {"more": 1}}}))), Ok(()), "{beside}");
    }
}

#[test]
fn gives_no_clock_no_randomness_and_no_network() {
    for call in ["time.now_ns() > 0", "rand.intn(\"a\", 5) >= 0", "opa.runtime() != 1", "trace(\"x\")", "print(\"x\")"]
    {
        let text = format!("package t\nallow if {call}\n");
        let decision = Policy::parse("t", &text).map(|policy| policy.decide(&json!({})));
        assert!(decision.as_ref().map_or(true, |decision| !decision.allows()), "{call}: {decision:?}");
    }
    let send =
        "package t\nallow if http.send({\"method\": \"get\", \"url\": \"http://localhost\"}).status_code == 200\n";
    assert!(Policy::parse("t", send).map_or(true, |policy| !policy.decide(&json!({})).allows()));
}

#[test]
fn stops_a_policy_that_does_not_end_in_time() {
    let slow = policy(
        "allow if count([1 | some a in numbers.range(1, 4000); some b in numbers.range(1, 4000); \
         some c in numbers.range(1, 4000); a + b + c < 0]) == 0",
    );
    let start = std::time::Instant::now();
    let decision = slow.decide(&json!({}));
    assert!(!decision.allows());
    assert!(start.elapsed() < core::time::Duration::from_mins(1), "{:?}", start.elapsed());
}

#[test]
fn a_policy_that_waits_for_the_processor_is_answered_and_one_that_takes_it_is_not() {
    // As on a machine that gives its processor to others: 400 ms in which this thread computes next to nothing.
    let wait = |mut values: Vec<Value>| {
        std::thread::sleep(core::time::Duration::from_millis(4));
        Ok(values.remove(0))
    };
    let mut engine = engine::bounded().unwrap();
    engine.add_extension("wait".into(), 1, Box::new(wait)).unwrap();
    let text = "package t\nallow if count([1 | some a in numbers.range(1, 100); wait(a)]) == 100";
    let package = engine.add_policy("t.rego".into(), text.into()).unwrap();
    let slow = Policy { engine, allow: format!("{package}.allow"), ..policy("allow := true") };
    assert!(slow.decide(&json!({})).allows(), "{:?}", slow.decide(&json!({})).reasons());
    let busy = policy(
        "allow := true\ndeny contains \"x\" if count([1 | some a in numbers.range(1, 4000); \
         some b in numbers.range(1, 4000); some c in numbers.range(1, 4000); a + b + c < 0]) > 0",
    );
    let decision = busy.decide(&json!({}));
    assert_eq!(decision.reasons(), ["policy: t.rego failed: it has no answer in time, 250 ms"]);
}

#[test]
fn a_policy_that_quotes_the_engine_is_asked_once() {
    let quotes = policy("allow if to_number(sprintf(\"execution exceeded time limit %s\", [\"x\"])) > 0");
    let start = std::time::Instant::now();
    assert!(!quotes.decide(&json!({})).allows());
    assert!(start.elapsed() < core::time::Duration::from_mins(1), "{:?}", start.elapsed());
}

#[test]
fn makes_no_endless_range() {
    assert!(!policy("allow if count(numbers.range(1, 1000000000000)) > 0").decide(&json!({})).allows());
    let steps = "package t\nallow if count(numbers.range_step(1, 1000000000000, 1)) > 0";
    assert!(matches!(Policy::parse("t", steps), Err(PolicyError::Forbidden { .. })));
    assert!(policy("allow if numbers.range(3, 1) == [3, 2, 1]").decide(&json!({})).allows());
}

/// Every leaf and list in it with its road there, and the same document with that emptied.
fn emptied(value: &serde_json::Value, road: &str, all: &mut Vec<(String, serde_json::Value)>) {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String};
    let mut each = |key: &str, item: &serde_json::Value, put: &dyn Fn(serde_json::Value) -> serde_json::Value| {
        let mut inner = Vec::new();
        emptied(item, &if road.is_empty() { key.to_owned() } else { format!("{road}.{key}") }, &mut inner);
        all.extend(inner.into_iter().map(|(road, changed)| (road, put(changed))));
    };
    let empty = match value {
        Object(fields) => {
            for (key, item) in fields {
                each(key, item, &|changed| {
                    let mut fields = fields.clone();
                    fields.insert(key.clone(), changed);
                    Object(fields)
                });
            }
            json!({})
        }
        Array(items) => {
            for (at, item) in items.iter().enumerate() {
                each(&at.to_string(), item, &|changed| {
                    let mut items = items.clone();
                    items[at] = changed;
                    Array(items)
                });
            }
            json!([])
        }
        String(_) => json!(""),
        Number(_) => json!(0),
        Bool(_) | Null => Null,
    };
    all.push((road.to_owned(), empty));
}

#[test]
fn an_input_with_anything_empty_that_decides_releases_nothing() {
    let release = Policy::parse(crate::RELEASE.name, crate::RELEASE.text).unwrap();
    let good = json!({
        "now_unix": 1000,
        "result": {"status": "affirming", "workload_digest": "w1", "claims": {
            "anchor": {"simulated": false, "spki_sha256": "aa"}, "report": {"measurement": "m1"}}},
        "tenant": {"name": "acme", "simulated_anchors": ["55"]},
        "spec": {"secrets": ["kbs:///a/b/c"]},
        "secret": {"path": "kbs:///a/b/c", "allow_simulated": false},
        "references": [{"measurement": "m1", "workload_digest": "w1", "name": "r", "expires_unix": 0}],
    });
    assert!(release.decide(&good).allows());
    let mut all = Vec::new();
    emptied(&good, "", &mut all);
    assert!(all.len() >= 25, "{all:?}");
    let mut still: Vec<_> =
        all.iter().filter(|(_, input)| release.decide(input).allows()).map(|(road, _)| road.as_str()).collect();
    still.sort_unstable();
    // Names for people, the clock beside a reference that never expires, and what only simulated evidence needs.
    let harmless = [
        "now_unix",
        "references.0.expires_unix",
        "references.0.name",
        "result.claims.anchor.spki_sha256",
        "secret.allow_simulated",
        "tenant",
        "tenant.name",
        "tenant.simulated_anchors",
        "tenant.simulated_anchors.0",
    ];
    assert_eq!(still, harmless);
    for policy in [crate::RELEASE, crate::EVIDENCE_SNP] {
        let policy = Policy::parse(policy.name, policy.text).unwrap();
        for nothing in [json!(null), json!(""), json!(0), json!([]), json!({}), json!(false)] {
            assert!(!policy.decide(&nothing).allows(), "{}: {nothing}", policy.name());
        }
    }
    assert!(Policy::parse("t", "").is_err() && Policy::parse("t", " \n").is_err(), "an empty text is no policy");
}

#[test]
fn refuses_an_input_that_is_too_long() {
    let decision = policy("allow := true").decide(&json!({"x": "y".repeat(INPUT_LIMIT)}));
    assert!(!decision.allows());
}
