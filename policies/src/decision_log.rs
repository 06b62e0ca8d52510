//! A decision as one line of a log, in the shape of OPA's events, so that what reads theirs reads ours; and what of it is left out.
//!
//! Takes identity and time from its caller, who has randomness and a clock. Never: writes; keeps a value that a mask names, where it
//! stands or in the words of a reason that quotes it.
//! Source: OPA's documentation, "Decision Logs".

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use crate::input::fields;

/// Most masks of one log.
pub const MASKS: usize = 64;

/// What was decided.
#[derive(Clone, Debug)]
pub struct Decided<'a> {
    /// What names this decision, for whoever asks about it.
    pub id: &'a str,
    /// When, RFC 3339.
    pub timestamp: &'a str,
    /// Who decided, such as `("program", "coffer")`.
    pub labels: &'a [(&'a str, &'a str)],
    /// What was asked: a path below `data`, with slashes.
    pub path: &'a str,
    /// Policies and their revisions.
    pub policies: &'a [(String, String)],
    /// What they saw; none where nothing was authentic enough to be shown.
    pub input: Option<&'a Value>,
    /// Yes or no.
    pub allow: bool,
    /// The reasons against.
    pub reasons: &'a [String],
}

/// A path of an event that is not written: `/input/result/claims/report/chip_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask(Vec<String>);

/// A text is no mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mask is a path such as /input/result/claims/report/chip_id, below /input or /result")]
pub struct MaskError;

impl Mask {
    /// From a path, as a JSON Pointer (RFC 6901).
    ///
    /// # Errors
    /// [`MaskError`].
    pub fn parse(text: &str) -> Result<Self, MaskError> {
        let rest = text.strip_prefix('/').ok_or(MaskError)?;
        let parts: Vec<String> = rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
        let is_ours = parts.len() > 1 && matches!(parts[0].as_str(), "input" | "result");
        if is_ours && parts.iter().all(|part| !part.is_empty()) { Ok(Self(parts)) } else { Err(MaskError) }
    }

    /// Whether there is such a field, or one that holds whatever it likes: what names nothing would leave out nothing.
    pub fn names_a_field(&self) -> bool {
        if self.0[0] == "result" {
            return matches!(self.0[1].as_str(), "allow" | "deny");
        }
        let is_index = |part: &String| part.bytes().all(|byte| byte.is_ascii_digit());
        let mut path = String::new();
        for (at, part) in self.0.iter().enumerate() {
            let inner = if at > 0 && is_index(part) { format!("{path}[]") } else { format!("{path}.{part}") };
            let inner = inner.trim_start_matches('.').to_owned();
            if fields().iter().any(|field| field.path == inner) {
                path = inner;
                continue;
            }
            // Below something whose own parts no schema lists.
            let holds = fields().iter().any(|field| field.path.starts_with(&format!("{path}.")));
            let open = fields().iter().any(|field| field.path == path && field.kind.contains("object"));
            return open && !holds;
        }
        true
    }

    /// Takes what it names out of an event, and gives it, if it was there.
    fn erase(&self, event: &mut Value) -> Option<Value> {
        let (last, road) = self.0.split_last()?;
        let mut at = event;
        for part in road {
            let next = match at {
                Value::Object(fields) => fields.get_mut(part),
                Value::Array(items) => part.parse().ok().and_then(|at: usize| items.get_mut(at)),
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => return None,
            }
        }
        match at {
            Value::Object(fields) => fields.remove(last),
            // What follows keeps its place.
            Value::Array(items) => last.parse().ok().and_then(|at: usize| items.get_mut(at)).map(Value::take),
            _ => None,
        }
    }
}

impl core::fmt::Display for Mask {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for part in &self.0 {
            write!(f, "/{}", part.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

/// The event: one object, to be written on one line.
pub fn event(decided: &Decided<'_>, masks: &[Mask]) -> Value {
    let labels: BTreeMap<&str, &str> = decided.labels.iter().copied().collect();
    let bundles: BTreeMap<&str, Value> =
        decided.policies.iter().map(|(name, revision)| (name.as_str(), json!({ "revision": revision }))).collect();
    let mut event = json!({
        "labels": labels,
        "decision_id": decided.id,
        "bundles": bundles,
        "path": decided.path,
        "result": { "allow": decided.allow, "deny": decided.reasons },
        "timestamp": decided.timestamp,
    });
    if let Some(input) = decided.input {
        event["input"] = input.clone();
    }
    let (mut erased, mut values) = (Vec::new(), Quoted::default());
    for mask in masks {
        if let Some(value) = mask.erase(&mut event) {
            erased.push(mask.to_string());
            values.add(&value);
        }
    }
    if !erased.is_empty() {
        event["erased"] = json!(erased);
    }
    let unseen = decided.input.is_none() && masks.iter().any(|mask| mask.0[0] == "input");
    if let Some(Value::Array(reasons)) = event.pointer_mut("/result/deny") {
        for reason in reasons {
            let text = reason.as_str().map(|text| if unseen { without_digits(text) } else { values.masked(text) });
            *reason = text.map_or(Value::Null, Value::from);
        }
    }
    event
}

/// Values that are masked, as a reason may quote them: the whole or a part of a long one, a short one by itself. A number may be
/// written in many ways, and beside others as one (a version, a TCB in hexadecimal): where one is masked, none is left.
#[derive(Default)]
struct Quoted {
    parts: HashSet<[u8; PART]>,
    words: HashSet<String>,
    numbers: bool,
}

impl Quoted {
    fn add(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => fields.values().for_each(|value| self.add(value)),
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::String(text) if text.len() >= PART => {
                self.parts.extend(text.to_ascii_lowercase().as_bytes().array_windows::<PART>());
            }
            Value::String(text) => _ = self.words.insert(text.to_ascii_lowercase()),
            Value::Number(_) => self.numbers = true,
            Value::Bool(yes) => _ = self.words.insert(yes.to_string()),
            Value::Null => {}
        }
    }

    fn masked(&self, text: &str) -> String {
        let lower = text.to_ascii_lowercase();
        let mut quotes = vec![false; text.len()];
        for (at, part) in lower.as_bytes().windows(PART).enumerate() {
            if self.parts.contains(part) {
                quotes[at..at + PART].fill(true);
            }
        }
        for word in self.words.iter().filter(|word| !word.is_empty()) {
            for (at, _) in lower.match_indices(word.as_str()) {
                let end = at + word.len();
                let beside = [lower[..at].chars().next_back(), lower[end..].chars().next()];
                if !beside.into_iter().flatten().any(char::is_alphanumeric) {
                    quotes[at..end].fill(true);
                }
            }
        }
        if self.numbers {
            for run in lower.split(|c: char| !c.is_alphanumeric() && c != '.') {
                let (run, at) = (run.trim_matches('.'), offset(&lower, run.trim_matches('.')));
                if run.bytes().any(|byte| byte.is_ascii_digit()) {
                    quotes[at..at + run.len()].fill(true);
                }
            }
        }
        without(text, &quotes)
    }
}

/// Of what nobody read, its long numbers: what is masked cannot be told from the rest.
fn without_digits(text: &str) -> String {
    let mut quotes = vec![false; text.len()];
    for run in text.split(|c: char| !c.is_ascii_hexdigit()).filter(|run| run.len() >= PART) {
        let at = offset(text, run);
        quotes[at..at + run.len()].fill(true);
    }
    without(text, &quotes)
}

/// Where a part of a text begins in it.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr().addr() - text.as_ptr().addr()
}

/// The text, and one word in place of each run that is not to be read.
fn without(text: &str, quotes: &[bool]) -> String {
    let (mut said, mut before) = (String::new(), false);
    for (at, c) in text.char_indices() {
        let quoted = quotes[at..at + c.len_utf8()].contains(&true);
        match (quoted, before) {
            (false, _) => said.push(c),
            (true, false) => said.push_str(MASKED),
            (true, true) => {}
        }
        before = quoted;
    }
    said
}

/// So much of a value is the value: a chip is known by its first digits.
const PART: usize = 8;
/// What stands in its place.
const MASKED: &str = "(masked)";

/// Why JSON is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// What a verifier prints.
    #[error("it is what `coffer verify --json` prints, and neither a record nor an input")]
    Appraisal,
    /// A line of a log of decisions, where an input is due.
    #[error("it is a record of a decision, and an input is due")]
    Record,
    /// Something else.
    #[error("it is neither a record of a decision nor an input of policies")]
    Other,
}

impl RecordError {
    /// What helps.
    pub const fn hint(self) -> &'static str {
        if matches!(self, Self::Record) {
            return "give its `input`: `jq .input`; `coffer policy try --on LOG` asks about records themselves";
        }
        "`coffer verify --decision-log FILE` writes records, and `coffer policy input` prints an input"
    }
}

/// Refuses as an input what has none of the fields that inputs have, what a verifier prints of evidence, and a record: policies would
/// find nothing in it that they look for.
///
/// # Errors
/// [`RecordError`].
pub fn is_input(value: &Value) -> Result<(), RecordError> {
    let known = |key: &String| fields().iter().any(|field| field.path.split(['.', '[']).nth(1) == Some(key));
    if ["verdict", "reasons"].iter().all(|key| value.get(key).is_some()) {
        Err(RecordError::Appraisal)
    } else if is_record(value) {
        Err(RecordError::Record)
    } else if value.as_object().is_some_and(|object| object.keys().any(known)) {
        Ok(())
    } else {
        Err(RecordError::Other)
    }
}

fn is_record(value: &Value) -> bool {
    value.get("decision_id").is_some() && value.get("result").is_some()
}

/// What a line of such a log, or a bare input, holds for a trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The decision's name, where it has one.
    pub id: Option<String>,
    /// What was said, where that is known.
    pub allow: Option<bool>,
    /// What was seen; none of evidence that was not authentic.
    pub input: Option<Value>,
    /// Parts of it were masked.
    pub is_masked: bool,
}

impl Recorded {
    /// From JSON: an event, or an input by itself, which has at least one of the fields that inputs have.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn of(mut value: Value) -> Result<Self, RecordError> {
        if !is_record(&value) {
            is_input(&value)?;
            return Ok(Self { id: None, allow: None, input: Some(value), is_masked: false });
        }
        let result = &value["result"];
        Ok(Self {
            id: value["decision_id"].as_str().map(str::to_owned),
            // OPA's own events have the value of `allow` itself.
            allow: result["allow"].as_bool().or_else(|| result.as_bool()),
            is_masked: value["erased"].is_array() || value["masked"].is_array(),
            input: value.as_object_mut().and_then(|event| event.remove("input")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided<'a>(input: Option<&'a Value>, policies: &'a [(String, String)], reasons: &'a [String]) -> Decided<'a> {
        Decided {
            id: "8a1f",
            timestamp: "2026-09-20T00:00:00Z",
            labels: &[("program", "coffer")],
            path: "coffer/verify",
            policies,
            input,
            allow: reasons.is_empty(),
            reasons,
        }
    }

    #[test]
    fn an_event_has_opas_shape_and_holds_nothing_that_is_masked() {
        let input =
            json!({"result": {"claims": {"report": {"chip_id": "c0ffee", "vmpl": 0}, "list": ["secret", "b"]}}});
        let policies = [("team.tar.gz".to_owned(), "r7".to_owned())];
        let reasons = ["chip: not ours".to_owned()];
        let plain = event(&decided(Some(&input), &policies, &reasons), &[]);
        for key in ["labels", "decision_id", "bundles", "path", "input", "result", "timestamp"] {
            assert!(!plain[key].is_null(), "{key}");
        }
        assert_eq!(plain["bundles"]["team.tar.gz"]["revision"], "r7");
        assert_eq!(plain["result"], json!({"allow": false, "deny": ["chip: not ours"]}));
        assert!(plain.get("erased").is_none());
        let masks: Vec<Mask> =
            ["/input/result/claims/report/chip_id", "/input/result/claims/list/0", "/input/not/there", "/result/deny"]
                .into_iter()
                .map(|text| Mask::parse(text).unwrap())
                .collect();
        let masked = event(&decided(Some(&input), &policies, &reasons), &masks);
        let text = masked.to_string();
        assert!(!text.contains("c0ffee") && !text.contains("secret") && !text.contains("not ours"), "{text}");
        let erased = json!(["/input/result/claims/report/chip_id", "/input/result/claims/list/0", "/result/deny"]);
        assert_eq!(masked["erased"], erased);
        assert_eq!(masked["input"]["result"]["claims"]["list"], json!([null, "b"]));
        let read = Recorded::of(masked).unwrap();
        assert!(read.is_masked && read.id.as_deref() == Some("8a1f") && read.allow == Some(false));
        let none = event(&decided(None, &policies, &[]), &masks);
        assert!(none.get("input").is_none() && Recorded::of(none).unwrap().input.is_none());
        for bad in ["", "input/x", "/", "/input", "/labels/x", "/input//x", "/bundles"] {
            assert_eq!(Mask::parse(bad), Err(MaskError), "{bad}");
        }
        assert_eq!(Mask::parse("/input/a~1b").unwrap().to_string(), "/input/a~1b");
    }

    #[test]
    fn what_is_masked_stands_in_no_reason_either() {
        let chip = "d49554ec717f4e5b0fe6b143bca0404041ed5b0f".repeat(3);
        let input = json!({"result": {"claims": {"report": {"chip_id": chip, "vmpl": 3}, "product": "Milan"}}});
        let reasons = [
            format!("chip-not-listed: found {chip}, expected a listed chip"),
            format!("rego: no {}… here", &chip[..16].to_uppercase()),
            format!("tail {}", &chip[40..52]),
            "product: no Milan at level 3, Milano at 33".to_owned(),
            "é: 10 chips are listed".to_owned(),
        ];
        let masks = ["/input/result/claims/report", "/input/result/claims/product"];
        let masks = masks.map(|text| Mask::parse(text).unwrap());
        let said = event(&decided(Some(&input), &[], &reasons), &masks);
        let expected = json!([
            "chip-not-listed: found (masked), expected a listed chip",
            "rego: no (masked)… here",
            "tail (masked)",
            "product: no (masked) at level (masked), Milano at (masked)",
            "é: (masked) chips are listed"
        ]);
        assert_eq!(said["result"]["deny"], expected);
        let product = event(&decided(Some(&input), &[], &reasons), &masks[1..]);
        assert_eq!(product["result"]["deny"][3], "product: no (masked) at level 3, Milano at 33");
        let unmasked = event(&decided(Some(&input), &[], &reasons), &[]);
        assert_eq!(unmasked["result"]["deny"], json!(reasons));
        // Of evidence that nobody believes there is no input to know the value from.
        let said = event(&decided(None, &[], &reasons[..1]), &masks);
        assert_eq!(said["result"]["deny"], json!([expected[0]]));
    }

    #[test]
    fn a_masked_number_word_or_answer_is_known_however_it_is_written() {
        let tcb = json!({"bootloader": 4, "snp": 0x18, "microcode": 0xd9});
        let report = json!({"tcb": tcb, "version": "1.55.40", "debug": true});
        let input = json!({"result": {"claims": {"report": report}}});
        let reasons = [
            "tcb-below-floor: found 4.0.24.217, expected 0xd918000000000004.",
            "firmware: 1.55.40, not 11.55.40",
            "debug: found true, untrue",
        ]
        .map(str::to_owned);
        for (field, left) in [
            (
                "tcb",
                [
                    "tcb-below-floor: found (masked), expected (masked).",
                    "firmware: (masked), not (masked)",
                    &reasons[2],
                ],
            ),
            ("version", [reasons[0].as_str(), "firmware: (masked), not 11.55.40", &reasons[2]]),
            ("debug", [reasons[0].as_str(), &reasons[1], "debug: found (masked), untrue"]),
        ] {
            let mask = Mask::parse(&format!("/input/result/claims/report/{field}")).unwrap();
            let said = event(&decided(Some(&input), &[], &reasons), &[mask]);
            assert_eq!(said["result"]["deny"], json!(left), "{field}");
        }
    }

    #[test]
    fn a_mask_that_names_no_field_is_known() {
        let names = |text: &str| Mask::parse(text).unwrap().names_a_field();
        for good in ["/input/now_unix", "/input/result/claims/report/chip_id", "/input/result/claims", "/result/deny"] {
            assert!(names(good), "{good}");
        }
        for bad in [
            "/input/result/claims/report/chipid",
            "/input/nothing",
            "/input/result/claims/report/chip_id/x",
            "/result/x",
        ] {
            assert!(!names(bad), "{bad}");
        }
    }

    #[test]
    fn what_a_verifier_prints_is_no_input_and_nor_is_anything_else() {
        let appraisal = json!({"verdict": "accepted", "reasons": [], "claims": {}, "checks": []});
        assert_eq!(Recorded::of(appraisal.clone()), Err(RecordError::Appraisal));
        assert_eq!(is_input(&appraisal), Err(RecordError::Appraisal));
        for other in [json!({}), json!([]), json!(1), json!("x"), json!({"a": {"result": 1}})] {
            assert_eq!(is_input(&other), Err(RecordError::Other), "{other}");
            assert_eq!(Recorded::of(other), Err(RecordError::Other));
        }
        let record = event(&decided(Some(&json!({"now_unix": 1})), &[], &[]), &[]);
        assert_eq!(is_input(&record), Err(RecordError::Record));
        for input in [json!({"result": {}}), json!({"now_unix": 1})] {
            assert!(Recorded::of(input.clone()).is_ok() && is_input(&input).is_ok(), "{input}");
        }
    }

    #[test]
    fn a_bare_input_and_opas_own_event_are_read() {
        let bare = json!({"result": {"status": "affirming"}, "now_unix": 1});
        let read = Recorded::of(bare.clone()).unwrap();
        assert_eq!((read.id, read.allow, read.input), (None, None, Some(bare)));
        let opas =
            Recorded::of(json!({"decision_id": "x", "result": true, "input": {"a": 1}, "path": "p/allow"})).unwrap();
        assert_eq!((opas.allow, opas.input), (Some(true), Some(json!({"a": 1}))));
    }
}
