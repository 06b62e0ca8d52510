//! What the bounds of a text let through has room on the stack, and what they do not is refused before it takes any.

use std::{fmt::Write as _, time::Instant};

use serde_json::json;

use crate::{Policy, PolicyError, RELEASE, nesting, reach, stack, stack::STACK};

fn parsed(body: &str) -> Result<Policy, PolicyError> {
    Policy::parse("t.rego", &format!("package t\n{body}\n"))
}

#[test]
fn what_comes_back_to_itself_is_refused_by_name() {
    for (body, named) in [
        ("f(x) := f(x)\nallow if f(1)", "f asks f"),
        ("f(x) := f(x + 1)\nallow if { input.asked.kind == \"secret\"; f(1) }", "f asks f"),
        ("f(x) := g(x)\ng(x) := [y | y := f(x)]\nallow if f(1)", "f asks g asks f"),
        ("f(x) := data.t.f(x)\nallow if f(1)", "f asks f"),
        ("f(x) := data[\"t\"].f(x)\nallow if f(1)", "f asks f"),
        ("import data.t.f as g\nf(x) := g(x)\nallow if f(1)", "f asks f"),
        ("import data.t as u\nf(x) := u.f(x)\nallow if f(1)", "f asks f"),
        ("f(x) := count(x)\nallow if f([1]) with count as f", "f asks count asks f"),
        ("f(x) := y if { y := 1 } else := f(x)\nallow if f(1)", "f asks f"),
        ("default f(_) := 1\nf(x) := f(x - 1) if x > 0\nallow if f(1)", "f asks f"),
        ("allow if { some k, v in f(1) }\nf(x) := {k: v | some k, v in f(x)}", "f asks f"),
        ("allow if { every x in [1] { f(x) } }\nf(x) if { every y in [x] { not f(y) } }", "f asks f"),
        ("a if b\nb if not a\nallow if a", "a asks b asks a"),
        ("a contains x if some x in b\nb := {x | some x in a}\nallow if a", "a asks b asks a"),
        ("a if data.t[input.x]\nallow if a", "asks a"),
        ("a := data\nallow if a", "a asks a"),
        ("a if { b := 1; [1 | a]; b == 1 }\nallow if a", "a asks a"),
        // A name that is local in one query alone is the rule's in another.
        ("a if { [1 | b := 1; b == 1]; b }\nb if a\nallow if a", "a asks b asks a"),
    ] {
        match parsed(body) {
            Err(PolicyError::TooDeep { message, .. }) => assert!(message.contains(named), "{body}: {message}"),
            other => panic!("{body}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn a_name_that_is_local_is_no_rule() {
    for body in [
        "reference := r if { some r in input.references; matches(r) }\nmatches(reference) if reference.x == 1\nallow if reference",
        "a := x if { x := b }\nb := x if { a := 2; x := a }\nallow if a == 2",
        "a if b\nb if { some a in input.list; a == 1 }\nallow if a",
        "a if b\nb if every a in input.list { a == 1 }\nallow if a",
        "x := 1\nallow if input.x == x",
        "import input.result as r\nallow if r.status == \"x\"",
        "f(x) := count(x)\nallow if f([1]) == 1",
        "a := data.u.a\nallow if a",
        "a := input.a\nallow if a with input.a as input.b",
    ] {
        parsed(body).unwrap_or_else(|error| panic!("{body}: {error}"));
    }
}

/// Texts that are as deep as the bounds let them be, each in its own way; `n` is how deep.
fn deep(kind: usize, n: usize) -> Option<String> {
    let mut text = String::new();
    let mut chain = |last: &str, link: &dyn Fn(usize) -> String| {
        (0..n).for_each(|at| writeln!(text, "{}", link(at)).unwrap());
        writeln!(text, "{}", last.replace('N', &n.to_string())).unwrap();
        std::mem::take(&mut text)
    };
    let brackets = |inner: &str| format!("{}{inner}{}", "(".repeat(20), ")".repeat(20));
    Some(match kind {
        0 => chain("rN := true\nallow if r0", &|at| format!("r{at} if r{}", at + 1)),
        1 => chain("fN(x) := x\nallow if f0(true)", &|at| format!("f{at}(x) := f{}(x)", at + 1)),
        2 => chain("fN(x) := x\nallow if f0([1]) == [1]", &|at| {
            format!("f{at}(x) := y if {{ some y in [z | some z in [f{}(x)]] }}", at + 1)
        }),
        3 => chain("rN := 1\nallow if count(r0) > 0", &|at| format!("r{at} := [r{}]", at + 1)),
        4 => chain("rN contains 1\nallow if count(r0) > 0", &|at| {
            format!("r{at} contains x if {{ some x in r{}; every y in [x] {{ y == x }} }}", at + 1)
        }),
        5 => chain("rN := true\nallow if r0", &|at| format!("r{at} if data.t.r{} with input.x as 1", at + 1)),
        6 => format!("allow if {{\n{}}}", (0..n).fold(String::new(), |t, at| t + &format!("some x{at} in [1]\n"))),
        7 => format!("allow if {{\nx := [1]\n{}}}", (0..n).fold(String::new(), |t, _| t + "x[_]\n")),
        8 => format!(
            "allow if {{\nx0 := [1]\n{}x{n} == x{n}\n}}",
            (1..=n).fold(String::new(), |t, at| t + &format!("x{at} := [[[[x{}]]]]\n", at - 1))
        ),
        9 => format!("allow if 0{} > 1", "\n+ 1".repeat(n)),
        10 => format!("allow if input{}", ".a".repeat(n)),
        11 => format!("allow if {}", brackets(&format!("{}1 == 1", "- ".repeat(n.min(16))))),
        12 => {
            chain("fN(x) := x\nallow if f0(1) == 1", &|at| {
                format!("f{at}(x) := {} if {{ not not_there(x) }}", brackets(&format!("f{}(x)", at + 1)))
            }) + "not_there(x) if x == 77"
        }
        13 => chain("rN := true\nallow if r0", &|at| format!("r{at} if {{ 1 == 2 }} else if {{ r{} }}", at + 1)),
        14 => chain("fN(x) := 1\nallow if f0(1) == 1", &|at| format!("f{at}(x) := count([y | y := f{}(x)])", at + 1)),
        _ => return None,
    })
}

/// The most that is parsed, and still is with one more refused.
fn deepest(kind: usize) -> (usize, Policy) {
    let (mut low, mut high) = (1, reach::STEPS + 1);
    let policy = |n| deep(kind, n).and_then(|text| parsed(&text).ok());
    let mut found = policy(1).unwrap_or_else(|| panic!("{kind}: {:?}", parsed(&deep(kind, 1).unwrap()).err()));
    while low + 1 < high {
        let middle = usize::midpoint(low, high);
        match policy(middle) {
            Some(policy) => (low, found) = (middle, policy),
            None => high = middle,
        }
    }
    (low, found)
}

/// Runs in a process of its own, with half of the stack that there is elsewhere: what overflows ends it, and the test with it.
#[test]
fn the_deepest_that_is_taken_needs_less_than_half_of_the_stack() {
    let kinds = (0..).take_while(|kind| deep(*kind, 1).is_some());
    for kind in kinds {
        let (n, _) = deepest(kind);
        let text = deep(kind, n).unwrap();
        let input = json!({"list": [1]});
        let half = std::thread::Builder::new().stack_size(STACK / 2);
        let work = move || {
            stack::thread_has_stack();
            let policy = parsed(&text).unwrap();
            (policy.decide(&input), n)
        };
        let (decision, n) = half.spawn(work).unwrap().join().unwrap();
        println!("kind {kind}: {n} deep: {:?}", decision.reasons());
        assert!(n >= 16, "{kind}: {n}");
    }
}

#[test]
fn what_is_parsed_is_parsed_in_time() {
    let nested = |open: &str, close: &str, n: usize| format!("allow if {}1{}", open.repeat(n), close.repeat(n));
    let mut worst = std::time::Duration::ZERO;
    for (open, close) in
        [("[", "]"), ("{", "}"), ("{\"a\":", "}"), ("[x | y := ", "]"), ("[x | [", "]]"), ("[1, ", "]")]
    {
        for n in 1..40 {
            let begun = Instant::now();
            let _ = parsed(&nested(open, close, n));
            worst = worst.max(begun.elapsed());
            println!("{open} {n}: {:?}", begun.elapsed());
        }
    }
    println!("worst {worst:?}");
    assert!(worst < std::time::Duration::from_secs(1), "{worst:?}");
    // The longest texts, as full of brackets as they may be.
    for part in ["[1],", "[[1]],", "[[[[[1]]]]],", "{\"a\": {\"b\": 1}},", "[x | x := [y | y := 1]],"] {
        let most = (1..).map(|doublings| 1_usize << doublings).take_while(|times| {
            nesting::look(&format!("package t\nallow := true\nx := [{}1]\n", format!("{part}\n").repeat(*times)))
                .is_ok()
                && part.len() * times < crate::POLICY_LIMIT
        });
        let times = most.last().unwrap_or(1);
        let begun = Instant::now();
        let done = parsed(&format!("allow := true\nx := [{}1]", format!("{part}\n").repeat(times)));
        println!("{part} x {times}: {:?} {:?}", begun.elapsed(), done.err());
        assert!(begun.elapsed() < std::time::Duration::from_secs(8), "{part}");
    }
}

#[test]
fn the_shipped_policies_are_far_from_the_bounds() {
    let long = RELEASE.text.replace("package coffer.results", "package t");
    assert!(Policy::parse("t", &long).is_ok());
}
