//! The functions that policies may call, each weighed before it runs.
//!
//! The engine bounds time and not memory: `concat` of a text with itself, written 34 times, would make gigabytes. So every function of the
//! engine stands behind one of ours of the same name, which takes what a call can make at most from the memory of the evaluation, and
//! refuses what does not fit. A function that is not listed here is not there.
//!
//! Never: runs a function whose result may be larger than what is left; lets a panic of a function out.

use core::cell::Cell;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::LazyLock,
};

use regorus::{Engine, Value};

/// Memory that the functions of one evaluation may make, in bytes, each result counted.
pub const MEMORY_LIMIT: usize = 64 * 1024 * 1024;
/// Longest array a policy may make out of two numbers.
const RANGE_LIMIT: i64 = 4096;
/// Digits of a width in a format: `%999d`.
const WIDTH_DIGITS: usize = 3;
/// Bits a number may be moved by.
const SHIFT_LIMIT: u64 = 4096;
/// A value beside the bytes of its text: itself, its place in a collection, and the head of its allocation.
const NODE: usize = 48;

/// Lists within lists that a function takes.
const DEPTH: usize = 128;

/// What a call can make at most.
#[derive(Clone, Copy)]
enum Cost {
    /// A number, a boolean, or a part of what it was given.
    Nothing,
    /// A small multiple of what it was given; text may be escaped.
    Several,
    /// A value of its own for each byte.
    Pieces,
    /// As the function says.
    Own(fn(&[Value]) -> Result<usize, &'static str>),
}
use Cost::{Nothing, Own, Pieces, Several};

/// Name, number of arguments, cost.
const FUNCTIONS: &[(&str, u8, Cost)] = &[
    ("abs", 1, Nothing),
    ("array.concat", 2, Several),
    ("array.reverse", 1, Several),
    ("array.slice", 3, Several),
    ("base64.decode", 1, Several),
    ("base64.encode", 1, Several),
    ("base64.is_valid", 1, Several),
    ("bits.and", 2, Several),
    ("bits.lsh", 2, Own(shift)),
    ("bits.negate", 1, Several),
    ("bits.or", 2, Several),
    ("bits.rsh", 2, Several),
    ("bits.xor", 2, Several),
    ("ceil", 1, Nothing),
    ("concat", 2, Own(concat)),
    ("contains", 2, Nothing),
    ("count", 1, Nothing),
    ("endswith", 2, Nothing),
    ("floor", 1, Nothing),
    ("format_int", 2, Several),
    ("hex.decode", 1, Several),
    ("hex.encode", 1, Several),
    ("indexof", 2, Nothing),
    ("indexof_n", 2, Pieces),
    ("intersection", 1, Several),
    ("is_array", 1, Nothing),
    ("is_boolean", 1, Nothing),
    ("is_null", 1, Nothing),
    ("is_number", 1, Nothing),
    ("is_object", 1, Nothing),
    ("is_set", 1, Nothing),
    ("is_string", 1, Nothing),
    ("json.filter", 2, Pieces),
    ("json.is_valid", 1, Pieces),
    ("json.marshal", 1, Several),
    ("json.remove", 2, Pieces),
    ("json.unmarshal", 1, Pieces),
    ("lower", 1, Several),
    ("max", 1, Nothing),
    ("min", 1, Nothing),
    ("object.filter", 2, Several),
    ("object.get", 3, Nothing),
    ("object.keys", 1, Several),
    ("object.remove", 2, Several),
    ("object.subset", 2, Nothing),
    ("object.union", 2, Several),
    ("object.union_n", 1, Several),
    ("product", 1, Several),
    ("regex.find_all_string_submatch_n", 3, Own(submatches)),
    ("regex.find_n", 3, Pieces),
    ("regex.is_valid", 1, Nothing),
    ("regex.match", 2, Nothing),
    ("regex.replace", 3, Own(regex_replace)),
    ("regex.split", 2, Pieces),
    ("regex.template_match", 4, Nothing),
    ("replace", 3, Own(replace)),
    ("round", 1, Nothing),
    ("sort", 1, Several),
    ("split", 2, Pieces),
    ("sprintf", 2, Own(sprintf)),
    ("startswith", 2, Nothing),
    ("strings.any_prefix_match", 2, Several),
    ("strings.any_suffix_match", 2, Several),
    ("strings.count", 2, Nothing),
    ("strings.replace_n", 2, Own(replace_n)),
    ("strings.reverse", 1, Several),
    ("substring", 3, Several),
    ("sum", 1, Several),
    ("time.add_date", 4, Nothing),
    ("time.clock", 1, Nothing),
    ("time.date", 1, Nothing),
    ("time.diff", 2, Nothing),
    ("time.format", 1, Pieces),
    ("time.parse_duration_ns", 1, Nothing),
    ("time.parse_ns", 2, Pieces),
    ("time.parse_rfc3339_ns", 1, Nothing),
    ("time.weekday", 1, Nothing),
    ("to_number", 1, Nothing),
    ("trim", 2, Several),
    ("trim_left", 2, Several),
    ("trim_prefix", 2, Several),
    ("trim_right", 2, Several),
    ("trim_space", 1, Several),
    ("trim_suffix", 2, Several),
    ("type_name", 1, Nothing),
    ("union", 1, Several),
    ("units.parse", 1, Nothing),
    ("units.parse_bytes", 1, Nothing),
    ("upper", 1, Several),
];

/// Ours in place of the engine's.
const RANGE: &str = "numbers.range";

/// Functions of the engine that no policy needs, and whose result is not bounded by a rule as simple as those above; and those that would
/// make the same input give different answers, or talk to the world. Each fails the policy, whatever the engine is built with.
const FORBIDDEN: &[(&str, u8)] = &[
    ("http.send", 1),
    ("json.marshal_with_options", 2),
    ("net.lookup_ip_addr", 1),
    ("numbers.range_step", 3),
    ("opa.runtime", 0),
    ("print", 1),
    ("rand.intn", 2),
    ("test.sleep", 1),
    ("time.now_ns", 0),
    ("trace", 1),
    ("uuid.rfc4122", 1),
    ("__builtin_sets.intersection", 2),
    ("__builtin_sets.union", 2),
];

/// True for a function that fails every policy that calls it, for what it does.
pub(crate) fn is_forbidden(name: &str) -> bool {
    FORBIDDEN.iter().any(|(forbidden, _)| *forbidden == name)
}

/// True for a function of ours that stands before the engine's, or in place of one.
pub(crate) fn is_listed(name: &str) -> bool {
    name == RANGE || is_forbidden(name) || FUNCTIONS.iter().any(|(listed, ..)| *listed == name)
}

/// How many arguments a function that policies have takes.
pub(crate) fn arguments(name: &str) -> Option<usize> {
    if name == RANGE {
        return Some(2);
    }
    FUNCTIONS.iter().find(|(listed, ..)| *listed == name).map(|(_, arguments, _)| usize::from(*arguments))
}

thread_local! {
    // An evaluation runs on one thread from its start to its end.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Gives an evaluation that begins on this thread all its memory.
pub(crate) fn refill() {
    LEFT.set(MEMORY_LIMIT);
}

/// Puts every function of ours before the engine's.
pub(crate) fn replace_all(engine: &mut Engine) -> anyhow::Result<()> {
    for (at, &(name, arguments, cost)) in FUNCTIONS.iter().enumerate() {
        let call = move |values: Vec<Value>| weighed(at, name, cost, values);
        engine.add_extension(name.into(), arguments, Box::new(call))?;
    }
    for (name, arguments) in FORBIDDEN {
        let call = move |_: Vec<Value>| {
            Err(anyhow::anyhow!(
                "{name} is not available to policies: the same input must give the same answer, within bounds"
            ))
        };
        engine.add_extension((*name).into(), *arguments, Box::new(call))?;
    }
    engine.add_extension(RANGE.into(), 2, Box::new(range))
}

/// The engine's own functions, each as a rule over the list of its arguments. None if it does not take our text: a defect of ours.
static PLAIN: LazyLock<Option<Engine>> = LazyLock::new(|| {
    let rule = |(at, (name, arguments, _)): (usize, &(&str, u8, Cost))| {
        let list: Vec<String> = (0..*arguments).map(|argument| format!("input[{argument}]")).collect();
        format!("f{at} := {name}({})\n", list.join(", "))
    };
    let rules: String = FUNCTIONS.iter().enumerate().map(rule).collect();
    let text = format!("package plain\n{rules}");
    let mut engine = Engine::new();
    engine.set_rego_v0(false);
    engine.set_strict_builtin_errors(true);
    engine.add_policy("plain.rego".into(), text).ok()?;
    // Analysed once, for every copy.
    engine.set_input(Value::new_array());
    engine.eval_rule("data.plain.f0".into()).ok()?;
    Some(engine)
});

fn weighed(at: usize, name: &str, cost: Cost, values: Vec<Value>) -> anyhow::Result<Value> {
    let left = LEFT.get();
    let given = weight(&values, left).ok_or_else(|| too_much(name))?;
    let made = match cost {
        Nothing => NODE,
        Several => given.saturating_mul(8),
        Pieces => given.saturating_mul(64),
        Own(made) => made(&values).map_err(|why| anyhow::anyhow!("{name}: {why}"))?,
    };
    LEFT.set(left.checked_sub(made).ok_or_else(|| too_much(name))?);
    let mut engine = PLAIN.clone().ok_or_else(|| anyhow::anyhow!("{name} is not available"))?;
    let called = catch_unwind(AssertUnwindSafe(|| {
        engine.set_input(Value::from(values));
        engine.eval_rule(format!("data.plain.f{at}"))
    }));
    match called {
        Ok(answer) => answer.map_err(|error| {
            let text = error.to_string();
            let said = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
            anyhow::anyhow!("{}", said.strip_prefix("error: ").unwrap_or(said).chars().take(300).collect::<String>())
        }),
        Err(_) => Err(anyhow::anyhow!("{name} cannot take these arguments")),
    }
}

fn too_much(name: &str) -> anyhow::Error {
    anyhow::anyhow!("{name}: the policy would take more memory than the {MEMORY_LIMIT} bytes of one evaluation")
}

/// Size of values written out, where the same value twice counts twice; nothing if it is beyond a limit, or nested too deeply.
pub(crate) fn weight<'a>(values: impl IntoIterator<Item = &'a Value>, limit: usize) -> Option<usize> {
    let left = values.into_iter().try_fold(limit, |left, value| without(left, value, DEPTH))?;
    Some(limit - left)
}

/// What is left of a limit behind one value.
fn without(left: usize, value: &Value, depth: usize) -> Option<usize> {
    let (left, depth) = (left.checked_sub(NODE)?, depth.checked_sub(1)?);
    match value {
        Value::String(text) => left.checked_sub(text.len()),
        Value::Array(items) => items.iter().try_fold(left, |left, item| without(left, item, depth)),
        Value::Set(items) => items.iter().try_fold(left, |left, item| without(left, item, depth)),
        Value::Object(fields) => {
            fields.iter().try_fold(left, |left, (key, value)| without(without(left, key, depth)?, value, depth))
        }
        _ => Some(left),
    }
}

/// As [`weight`], of arguments that were weighed already.
fn size(value: &Value) -> usize {
    weight([value], MEMORY_LIMIT).unwrap_or(usize::MAX)
}

fn length(value: &Value) -> usize {
    value.as_string().map_or(0, |text| text.len())
}

#[allow(clippy::unnecessary_wraps, reason = "the signature of all of them")]
fn concat(values: &[Value]) -> Result<usize, &'static str> {
    let [between, all] = values else { return Ok(NODE) };
    let items = match all {
        Value::Array(items) => items.len(),
        Value::Set(items) => items.len(),
        _ => 0,
    };
    Ok(twice(length(between).saturating_mul(items).saturating_add(size(all))))
}

#[allow(clippy::unnecessary_wraps, reason = "the signature of all of them")]
fn replace(values: &[Value]) -> Result<usize, &'static str> {
    let [text, old, new] = values else { return Ok(NODE) };
    Ok(twice(replaced(length(text), length(old), length(new))))
}

#[allow(clippy::unnecessary_wraps, reason = "the signature of all of them")]
fn replace_n(values: &[Value]) -> Result<usize, &'static str> {
    let [Value::Object(pairs), text] = values else { return Ok(NODE) };
    // One after the other, each on what the ones before it made.
    let (mut longest, mut made) = (length(text), 0_usize);
    for (old, new) in pairs.iter() {
        longest = replaced(longest, length(old), length(new));
        made = made.saturating_add(twice(longest));
    }
    Ok(made.saturating_add(NODE))
}

/// Longest text after every place was replaced.
fn replaced(text: usize, old: usize, new: usize) -> usize {
    let places = text.checked_div(old).unwrap_or_else(|| text.saturating_add(1));
    places.saturating_mul(new).saturating_add(text)
}

#[allow(clippy::unnecessary_wraps, reason = "the signature of all of them")]
fn regex_replace(values: &[Value]) -> Result<usize, &'static str> {
    let [text, _, new] = values else { return Ok(NODE) };
    let groups = new.as_string().map_or(0, |new| new.matches('$').count());
    // The matches do not overlap: what a group stands for is never longer than the text over all of them.
    let made = replaced(length(text), 0, length(new)).saturating_add(groups.saturating_mul(length(text)));
    Ok(twice(made))
}

#[allow(clippy::unnecessary_wraps, reason = "the signature of all of them")]
fn submatches(values: &[Value]) -> Result<usize, &'static str> {
    let [pattern, text, _] = values else { return Ok(NODE) };
    let groups = pattern.as_string().map_or(0, |pattern| pattern.matches('(').count()).saturating_add(2);
    Ok(length(text).saturating_add(1).saturating_mul(groups).saturating_mul(64))
}

fn sprintf(values: &[Value]) -> Result<usize, &'static str> {
    let [format, items] = values else { return Ok(NODE) };
    let Ok(format) = format.as_string() else { return Ok(NODE) };
    let mut widths = 0_usize;
    for part in format.split('%').skip(1) {
        let width: String =
            part.strip_prefix('.').unwrap_or(part).chars().take_while(|digit| digit.is_numeric()).collect();
        if !width.is_ascii() || width.len() > WIDTH_DIGITS {
            return Err("a width has at most three digits");
        }
        widths = widths.saturating_add(1000);
    }
    Ok(twice(format.len().saturating_add(size(items).saturating_mul(8)).saturating_add(widths)))
}

fn shift(values: &[Value]) -> Result<usize, &'static str> {
    match values.last().and_then(|by| by.as_u64().ok()) {
        Some(by) if by > SHIFT_LIMIT => Err("a number is moved by at most 4096 bits"),
        _ => Ok(NODE + 1024),
    }
}

/// Text is made, and then copied to where it stays.
fn twice(made: usize) -> usize {
    made.saturating_mul(2).saturating_add(NODE)
}

/// `numbers.range` with a bound; the engine's own reserves memory for whatever two numbers it is given.
#[allow(clippy::needless_pass_by_value, reason = "the signature regorus calls")]
fn range(arguments: Vec<Value>) -> anyhow::Result<Value> {
    let bounds: Vec<i64> = arguments.iter().map(Value::as_i64).collect::<anyhow::Result<_>>()?;
    let [first, last] = bounds[..] else {
        anyhow::bail!("numbers.range takes two integers");
    };
    if first.checked_sub(last).is_none_or(|distance| distance.abs() >= RANGE_LIMIT) {
        anyhow::bail!("numbers.range makes at most {RANGE_LIMIT} numbers");
    }
    let numbers: Vec<Value> = if first <= last {
        (first..=last).map(Value::from).collect()
    } else {
        (last..=first).rev().map(Value::from).collect()
    };
    let left = LEFT.get().checked_sub(numbers.len() * NODE).ok_or_else(|| too_much("numbers.range"))?;
    LEFT.set(left);
    Ok(Value::from(numbers))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Policy;

    fn policy(body: &str) -> Policy {
        Policy::parse("t.rego", &format!("package t\n{body}\n")).unwrap()
    }

    #[test]
    fn every_function_is_there_and_answers_as_the_engine_does() {
        assert!(PLAIN.is_some());
        for body in [
            "concat(\"-\", [\"a\", \"b\"]) == \"a-b\"",
            "concat(\"-\", {\"b\", \"a\"}) == \"a-b\"",
            "sprintf(\"%s %5d %v %03d%%\", [\"a\", 7, {\"x\": [1]}, 4]) == \"a     7 {\\\"x\\\": [1]} 004%\"",
            "replace(\"aXbX\", \"X\", \"--\") == \"a--b--\"",
            "regex.replace(\"abc\", \"b(c)\", \"$1$1\") == \"acc\"",
            "strings.replace_n({\"a\": \"b\", \"c\": \"d\"}, \"ac\") == \"bd\"",
            "regex.find_all_string_submatch_n(\"a(b)\", \"abab\", -1) == [[\"ab\", \"b\"], [\"ab\", \"b\"]]",
            "object.union({\"a\": 1}, {\"b\": 2}) == {\"a\": 1, \"b\": 2}",
            "json.unmarshal(json.marshal({\"a\": [1, null]})) == {\"a\": [1, null]}",
            "bits.lsh(1, 4) == 16",
            "split(\"a,b\", \",\") == [\"a\", \"b\"]",
            "split(\"a,b\", \",\", parts)\n parts == [\"a\", \"b\"]",
            "not contains(\"abc\", \"x\")",
            "{1, 2} | {3} == {1, 2, 3}",
            "union({{1}, {2}}) & {2} == {2}",
            "count(\"x\") == 7 with count as 7",
        ] {
            let decision = policy(&format!("allow if {{\n {body}\n}}")).decide(&json!({}));
            assert!(decision.allows(), "{body}: {:?}", decision.reasons());
        }
    }

    #[test]
    fn nothing_that_grows_takes_more_than_its_memory() {
        let doubled = |make: &str| {
            let lines: Vec<String> =
                (1..=34).map(|at| format!(" x{at} := {}", make.replace('X', &format!("x{}", at - 1)))).collect();
            format!("allow if {{\n x0 := input.start\n{}\n x34 != 1\n}}", lines.join("\n"))
        };
        let (text, list) = (json!({"start": "coffer"}), json!({"start": ["coffer"]}));
        let calls = |call: &str| format!("allow if {{\n x := input.start\n {call} != 1\n}}");
        let long = json!({"start": "a".repeat(200_000)});
        for (body, input) in [
            (doubled("concat(\"\", [X, X])"), &text),
            (doubled("sprintf(\"%s%s\", [X, X])"), &text),
            (doubled("replace(\"ab\", \"b\", concat(X, [X, \"\"]))"), &text),
            (doubled("replace(X, \"\", X)"), &text),
            (doubled("regex.replace(X, \"(.)\", \"$1$1\")"), &text),
            (doubled("strings.replace_n({\"c\": \"cc\", \"o\": \"oo\"}, X)"), &text),
            (doubled("array.concat(X, X)"), &list),
            (doubled("json.marshal([X, X])"), &text),
            (doubled("hex.encode(X)"), &text),
            (doubled("base64.encode(concat(\"\", [X, X]))"), &text),
            (calls("sprintf(\"%999999999d\", [1])"), &long),
            (calls("sprintf(\"%.999999999f\", [1])"), &long),
            (calls("bits.lsh(1, 4294967295)"), &long),
            (calls("concat(x, numbers.range(1, 4000))"), &long),
            (calls("replace(x, \"\", x)"), &long),
            (calls("replace(x, \"a\", x)"), &long),
            (calls(&format!("regex.replace(x, \"a\", \"{}\")", "$0".repeat(400))), &long),
            (calls("regex.find_all_string_submatch_n(\"((((((((a))))))))\", x, -1)"), &long),
            (calls("count([y | some a in numbers.range(1, 4000); y := upper(x); a > 0])"), &long),
            // The same list again and again: small, until it is written out.
            (
                format!(
                    "{}\nwhole := json.marshal(1)",
                    doubled("[X, X]").replace("x34 != 1", "count(json.marshal(x34)) > 0")
                ),
                &text,
            ),
            (doubled("[X, X]").replace("x34 != 1", "upper(x34) != 1"), &text),
        ] {
            let before = std::time::Instant::now();
            let decision = policy(&body).decide(input);
            assert!(!decision.allows(), "{body}");
            let said = decision.reasons().concat();
            let known = ["memory", "three digits", "4096", "not available", "string", "time"];
            assert!(known.iter().any(|word| said.contains(word)), "{body}: {said}");
            assert!(before.elapsed() < core::time::Duration::from_mins(1), "{body}: {:?}", before.elapsed());
        }
    }

    #[test]
    fn memory_is_one_evaluations_own() {
        let calls = |count: u32| {
            policy(&format!(
                "allow if count([x | some a in numbers.range(1, {count}); x := upper(input.text); a > 0]) > 0"
            ))
        };
        let input = json!({"text": "a".repeat(200_000)});
        let half = calls(30);
        for _ in 0..4 {
            assert!(half.decide(&input).allows());
        }
        assert!(calls(60).decide(&input).reasons().concat().contains("memory"));
    }

    #[test]
    fn a_function_that_panics_refuses() {
        for call in ["strings.count(\"a\", \"\")", "sprintf(\"%²d\", [1])"] {
            let decision = policy(&format!("allow if {call} != 5")).decide(&json!({}));
            assert!(!decision.allows(), "{call}");
        }
    }
}
