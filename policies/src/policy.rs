//! One policy: its text, parsed once; asked often.

use regorus::{
    Engine, Source, Value,
    unstable::{Module, Parser},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    builtins,
    engine::{self, INPUT_LIMIT, POLICY_LIMIT},
    nesting, reach,
    stack::on_large,
    time::{CutOff, TIME_LIMIT, WALL_LIMIT, within},
};

/// Reasons of one answer; what is more is counted in one that says so.
pub const REASONS_LIMIT: usize = 32;
/// Longest reason, in bytes.
pub const REASON_LIMIT: usize = 256;

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Longer than a policy may be.
    #[error("policy {name} has {found} bytes, more than {POLICY_LIMIT}")]
    TooLong {
        /// Its name.
        name: String,
        /// Bytes found.
        found: usize,
    },
    /// Not Rego.
    #[error("policy {name} does not parse: {message}")]
    Parse {
        /// Its name.
        name: String,
        /// Line, column and the parser's words.
        message: String,
    },
    /// It could take more stack, or more time to parse, than there is for any policy.
    #[error("policy {name}, line {line}: {message}")]
    TooDeep {
        /// Its name.
        name: String,
        /// Where, from 1.
        line: usize,
        /// What.
        message: String,
    },
    /// The system gives no thread to parse it on.
    #[error("policy {name} cannot be parsed now")]
    NoThread {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No `allow` rule: such a policy could never say yes.
    #[error("policy {name} has no rule named allow in package {package}")]
    NoAllow {
        /// Its name.
        name: String,
        /// Its package.
        package: String,
    },
    /// A unit test that is not one.
    #[error("policy {name} has no unit test: a test is a rule whose name starts with test_")]
    NoTests {
        /// Its name.
        name: String,
    },
}

impl PolicyError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "split the policy, or move data out of it",
            Self::Parse { .. } => "policies are Rego v1: `allow if { … }`, `deny contains message if { … }`",
            Self::TooDeep { .. } => {
                "write it flatter: no rule or function that comes back to itself, and short chains of them, of operators and of brackets"
            }
            Self::NoThread { .. } => "see what takes the threads or the memory of this machine",
            Self::NoAllow { .. } => "start from policies/results/release.rego",
            Self::NoTests { .. } => "write `test_name if …` rules, as policies/results/release_test.rego does",
        }
    }
}

/// A policy's answer. Only [`Policy::decide`] makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    allow: bool,
    reasons: Vec<String>,
}

impl Decision {
    /// True only if `allow` was the boolean true and `deny` was empty.
    pub fn allows(&self) -> bool {
        self.allow
    }

    /// The reasons against, sorted, within [`REASONS_LIMIT`] and [`REASON_LIMIT`]; never empty when the answer is no.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    fn no(reason: String) -> Self {
        Self { allow: false, reasons: vec![reason] }
    }
}

/// A parsed policy. Asking does not change it.
#[derive(Clone)]
pub struct Policy {
    engine: Engine,
    name: String,
    allow: String,
    deny: Option<String>,
    digest: [u8; 32],
}

impl Policy {
    /// Parses a policy.
    ///
    /// # Errors
    /// [`PolicyError`] if it is too long, nested too deeply, not Rego v1, comes back to itself, or has no `allow`.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        on_large_stack(name, || Self::parse_here(name, text))
    }

    fn parse_here(name: &str, text: &str) -> Result<Self, PolicyError> {
        within_bounds(name, text)?;
        let parse = |error: anyhow::Error| PolicyError::Parse { name: name.into(), message: located(&error) };
        let mut engine = engine::bounded().map_err(parse)?;
        let package = engine.add_policy(name.into(), text.into()).map_err(parse)?;
        if !engine.has_declared_rule_rooted_at(name, "allow").map_err(parse)? {
            return Err(PolicyError::NoAllow { name: name.into(), package });
        }
        let deny = engine.has_declared_rule_rooted_at(name, "deny").map_err(parse)?.then(|| format!("{package}.deny"));
        let allow = format!("{package}.allow");
        let digest = Sha256::digest(text.as_bytes()).into();
        // The first question makes the engine analyse the rules: faults show here, and not at the first release.
        builtins::refill();
        engine.set_input(Value::new_object());
        if let Err(error) = engine.eval_rule(allow.clone())
            && !is_runtime(&error.to_string())
        {
            return Err(parse(error));
        }
        Ok(Self { engine, name: name.into(), allow, deny, digest })
    }

    /// Name it was parsed under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of its text, for the audit trail.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Asks the policy about one input. Undefined, not boolean, an error or too long: no.
    pub fn decide(&self, input: &serde_json::Value) -> Decision {
        self.decide_text(&input.to_string())
    }

    /// The same of an input that is written out already, as JSON.
    pub fn decide_text(&self, text: &str) -> Decision {
        if text.len() > INPUT_LIMIT {
            return Decision::no(format!("policy: input has {} bytes, more than {INPUT_LIMIT}", text.len()));
        }
        on_large(|| self.decide_here(text))
            .unwrap_or_else(|error| Decision::no(format!("policy: {} cannot be asked now: {error}", self.name)))
    }

    fn decide_here(&self, text: &str) -> Decision {
        let mut engine = self.engine.clone();
        if let Err(error) = engine.set_input_json(text) {
            return Decision::no(format!("policy: input is not usable: {}", first_line(&error)));
        }
        let answer = within(TIME_LIMIT, WALL_LIMIT, |may_take| {
            let mut engine = engine.clone();
            engine::may_take(&mut engine, may_take);
            self.answer(&mut engine)
        });
        answer.unwrap_or_else(|CutOff| {
            let limit = TIME_LIMIT.as_millis();
            Decision::no(format!("policy: {} failed: it has no answer in time, {limit} ms", self.name))
        })
    }

    fn answer(&self, engine: &mut Engine) -> Result<Decision, CutOff> {
        builtins::refill();
        let allow = match engine.eval_rule(self.allow.clone()) {
            Ok(Value::Bool(answer)) => Some(answer),
            Ok(Value::Undefined) => None,
            Ok(_) => return Ok(Decision::no(format!("policy: allow of {} is not a boolean", self.name))),
            Err(error) if engine::was_cut_off(&error) => return Err(CutOff),
            Err(error) => return Ok(Decision::no(format!("policy: {} failed: {}", self.name, first_line(&error)))),
        };
        let mut reasons = self.denials(engine)?;
        match allow {
            None => reasons.push(format!("policy: allow of {} is undefined for this input", self.name)),
            Some(false) if reasons.is_empty() => {
                reasons.push(format!("policy: {} does not allow it and gives no reason", self.name));
            }
            Some(_) => {}
        }
        Ok(Decision { allow: allow == Some(true) && reasons.is_empty(), reasons })
    }

    /// The `deny` set as text. A set that cannot be read is itself a reason.
    fn denials(&self, engine: &mut Engine) -> Result<Vec<String>, CutOff> {
        let Some(deny) = &self.deny else {
            return Ok(Vec::new());
        };
        Ok(match engine.eval_rule(deny.clone()) {
            Ok(Value::Set(set)) => said(set.len(), set.iter()),
            Ok(Value::Array(array)) => said(array.len(), array.iter()),
            Ok(_) => vec![format!("policy: deny of {} is not a set", self.name)],
            Err(error) if engine::was_cut_off(&error) => return Err(CutOff),
            Err(error) => vec![format!("policy: deny of {} failed: {}", self.name, first_line(&error))],
        })
    }
}

/// What is done where the stack is known to be large enough for it.
pub(crate) fn on_large_stack<T: Send>(
    name: &str,
    work: impl FnOnce() -> Result<T, PolicyError> + Send,
) -> Result<T, PolicyError> {
    on_large(work).map_err(|source| PolicyError::NoThread { name: name.into(), source })?
}

/// Refuses a text that a stack of that size may not be enough for, or that takes too long to parse.
pub(crate) fn within_bounds(name: &str, text: &str) -> Result<(), PolicyError> {
    if text.len() > POLICY_LIMIT {
        return Err(PolicyError::TooLong { name: name.into(), found: text.len() });
    }
    let too_deep = |line: usize, message: String| PolicyError::TooDeep { name: name.into(), line, message };
    nesting::look(text).map_err(|(line, found)| too_deep(line, found.to_string()))?;
    let module =
        module(name, text).map_err(|error| PolicyError::Parse { name: name.into(), message: located(&error) })?;
    reach::look(&module).map_err(|(line, found)| too_deep(line as usize, found.to_string()))
}

fn module(name: &str, text: &str) -> anyhow::Result<Module> {
    let source = Source::from_contents(name.into(), text.into())?;
    let mut parser = Parser::new(&source)?;
    parser.enable_rego_v1()?;
    parser.parse()
}

/// What a policy says against, within bounds: it goes into the audit trail, which is everybody's.
fn said<'a>(count: usize, values: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let mut reasons: Vec<String> = values.take(REASONS_LIMIT).map(reason).collect();
    if let Some(more) = count.checked_sub(REASONS_LIMIT).filter(|more| *more > 0) {
        reasons.push(format!("policy: … and {more} more reasons"));
    }
    reasons
}

fn reason(value: &Value) -> String {
    let cut = |text: &str| match text.len() {
        0..=REASON_LIMIT => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(REASON_LIMIT - '…'.len_utf8())]),
    };
    match value {
        Value::String(text) => cut(text),
        // A list of lists of one list is small until it is written out.
        other if builtins::weight([other], 64 * REASON_LIMIT).is_none() => {
            "policy: a reason that is too long".to_owned()
        }
        other => cut(&other.to_string()),
    }
}

/// An error that depends on the input is found again at each question; any other is a fault of the text.
fn is_runtime(message: &str) -> bool {
    !["could not find function", "unsafe", "not defined", "recursion"].iter().any(|word| message.contains(word))
}

/// Where and what, in one line: the engine draws the place over several.
fn located(error: &anyhow::Error) -> String {
    let text = error.to_string();
    let place = text.lines().find_map(|line| line.trim().strip_prefix("--> ")).and_then(|place| {
        let (rest, column) = place.rsplit_once(':')?;
        let (_, line) = rest.rsplit_once(':')?;
        Some(format!("line {line}, column {column}: "))
    });
    let said = first_line(error);
    format!("{}{}", place.unwrap_or_default(), said.strip_prefix("error: ").unwrap_or(&said))
}

fn first_line(error: &anyhow::Error) -> String {
    // The engine points into the policy with several lines; the last says what is wrong.
    let text = error.to_string();
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no reason given").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
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
    fn collects_every_reason() {
        let two = policy("default allow := false\ndeny contains \"b\" if input.x\ndeny contains \"a\" if input.x");
        assert_eq!(two.decide(&json!({"x": true})).reasons(), ["a", "b"]);
    }

    #[test]
    fn says_what_is_against_within_bounds() {
        let all = json!({"x": true});
        let many = policy("allow := true\ndeny contains sprintf(\"%d\", [n]) if some n in numbers.range(1, 4000)")
            .decide(&all);
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
        assert!(matches!(
            Policy::parse("x", "package x\nallow if no_such_function(1)"),
            Err(PolicyError::Parse { .. })
        ));
        for (text, place) in [
            ("package x\nallow if {", "line 2, column 11: "),
            ("package x\n\nallow if no_such(1)", "line 3, column 17: "),
        ] {
            let said = Policy::parse("x", text).map(|_| ()).unwrap_err().to_string();
            assert!(said.contains(place) && said.lines().count() == 1, "{said}");
        }
        let long = format!("package x\nallow := true\n{}", "#".repeat(POLICY_LIMIT));
        assert!(matches!(Policy::parse("x", &long), Err(PolicyError::TooLong { .. })));
    }

    #[test]
    fn gives_no_clock_no_randomness_and_no_network() {
        for call in
            ["time.now_ns() > 0", "rand.intn(\"a\", 5) >= 0", "opa.runtime() != 1", "trace(\"x\")", "print(\"x\")"]
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
        assert!(start.elapsed() < core::time::Duration::from_secs(5), "{:?}", start.elapsed());
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
        assert!(start.elapsed() < core::time::Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[test]
    fn makes_no_endless_range() {
        assert!(!policy("allow if count(numbers.range(1, 1000000000000)) > 0").decide(&json!({})).allows());
        assert!(!policy("allow if count(numbers.range_step(1, 1000000000000, 1)) > 0").decide(&json!({})).allows());
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
}
