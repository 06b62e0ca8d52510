//! Which part of a typed policy is a mistake: each key, each element of a list and each key of an element is read by itself, beside
//! others that are right, so that one hides no other.

use coffer_verifier::{EvidencePolicy, PolicyFileError};
use toml::{Table, Value};

use super::{Lint, said};

/// Entries that are right, to read one key of another entry beside.
const TCB: &str = "product = \"Turin\"\nreported = { snp = 1 }\ncommitted = { snp = 1 }\nlaunch = { snp = 1 }";

fn right(list: &str) -> Option<Table> {
    let digits = |digit: &str, bytes: usize| Value::from(digit.repeat(2 * bytes));
    match list {
        "tcb" => toml::from_str(TCB).ok(),
        "pairs" => Some(Table::from_iter([
            ("measurement".to_owned(), digits("1", 48)),
            ("host_data".to_owned(), digits("2", 32)),
        ])),
        "signers" => Some(Table::from_iter([
            ("author_key".to_owned(), digits("3", 48)),
            ("family_id".to_owned(), digits("4", 16)),
            ("image_id".to_owned(), digits("5", 16)),
            ("minimum_guest_svn".to_owned(), Value::from(1)),
        ])),
        _ => None,
    }
}

/// Why a policy with this key and no other is not read.
fn why(key: &str, value: Value) -> Option<PolicyFileError> {
    let others = [("measurements".to_owned(), "any".into()), (key.to_owned(), value)];
    EvidencePolicy::from_toml(&Table::from_iter(others).to_string()).err()
}

fn why_entry(list: &str, entry: Table) -> Option<PolicyFileError> {
    why(list, Value::Array(vec![Value::Table(entry)]))
}

impl Lint<'_> {
    pub(super) fn key(&mut self, key: &str, value: &Value) {
        match value {
            Value::Table(_) if let Some(error) = why(key, Value::Table(Table::new())) => {
                self.at(&[key], "mistake", said(&error));
            }
            Value::Table(inner) => {
                for (name, value) in inner {
                    let alone = Table::from_iter([(name.clone(), value.clone())]);
                    if let Some(error) = why(key, Value::Table(alone)) {
                        self.at(&[key, name], "mistake", said(&error));
                    }
                }
            }
            // One that may be empty is a list; another, such as minimum_abi, is one value of several numbers.
            Value::Array(items) if why(key, Value::Array(Vec::new())).is_none() => self.list(key, items),
            other => {
                if let Some(error) = why(key, other.clone()) {
                    self.at(&[key], "mistake", said(&error));
                }
            }
        }
    }

    fn list(&mut self, key: &str, items: &[Value]) {
        let before = self.findings.len();
        for (number, item) in items.iter().enumerate() {
            let Some(error) = why(key, Value::Array(vec![item.clone()])) else { continue };
            match (item, right(key)) {
                (Value::Table(entry), Some(right)) => self.entry(key, number, entry, &right),
                (Value::Table(_), None) => self.say(self.places.item(key, number), "mistake", said(&error)),
                _ => {
                    let words = told(&format!("{key}[{number}]"), item, &error);
                    self.say(self.places.element(key, number), "mistake", words);
                }
            }
        }
        if self.findings.len() == before
            && let Some(error) = why(key, Value::Array(items.to_vec()))
        {
            self.at(&[key], "mistake", said(&error));
        }
    }

    /// One that is not read: each of its keys beside `right`, then what is left once these are mended.
    fn entry(&mut self, list: &str, number: usize, entry: &Table, right: &Table) {
        let mut mended = entry.clone();
        for (name, value) in entry {
            let beside = |value: Value| {
                let mut entry = right.clone();
                entry.insert(name.clone(), value);
                why_entry(list, entry)
            };
            let Some(error) = beside(value.clone()) else { continue };
            match right.get(name) {
                Some(right) => mended.insert(name.clone(), right.clone()),
                None => mended.remove(name),
            };
            let road = format!("{list}[{number}].{name}");
            let before = self.findings.len();
            if let Value::Table(levels) = value {
                for (level, value) in levels {
                    let alone = Table::from_iter([(level.clone(), value.clone())]);
                    if let Some(error) = beside(Value::Table(alone)) {
                        let words = told(&format!("{road}.{level}"), value, &error);
                        self.say(self.places.member(list, number, &[name, level]), "mistake", words);
                    }
                }
            }
            if self.findings.len() == before {
                let words = told(&road, value, &error);
                self.say(self.places.member(list, number, &[name]), "mistake", words);
            }
        }
        if let Some(error) = why_entry(list, mended) {
            self.say(self.places.item(list, number), "mistake", said(&error));
        }
    }
}

/// What is wrong with one value, which is named by its road, and shown where the words do not.
fn told(road: &str, value: &Value, error: &PolicyFileError) -> String {
    let words = said(error);
    let Value::String(text) = value else { return format!("{road}: {words}") };
    // AMD's service, and tools that ask it, call a Turin by eight bytes.
    let of_turin = road.contains("chips[") && text.len() == 16 && words.contains("found 8");
    let more = if of_turin { "; of a Turin's, these 8 and 56 zero bytes behind them" } else { "" };
    if words.contains(text.as_str()) {
        return format!("{road}: {words}{more}");
    }
    let shown: String = text.chars().take(SHOWN).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    format!("{road} is {:?}: {words}{more}", shown + cut)
}

/// Characters of a value that are shown.
const SHOWN: usize = 24;
