//! Configuration in TOML: a document that cannot be read is looked at key by key, so that every mistake is named and not the first
//! alone.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::foreign::foreign;

/// Why a text is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Not TOML, in the parser's words, with the line.
    Toml(String),
    /// Every key that cannot be read, with why.
    Mistakes(Vec<String>),
}

/// Reads a text. `required` are the keys that have to be there, each with a value that can be read.
///
/// # Errors
/// [`Unreadable`].
pub fn parse<T: DeserializeOwned>(text: &str, required: &[(&str, &str)]) -> Result<T, Unreadable> {
    let unreadable = |error: &toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        Unreadable::Toml(format!("line {line}: {}", error.message()))
    };
    let document: Table = toml::from_str(text).map_err(|error| unreadable(&error))?;
    toml::from_str(text).map_err(|error| match mistakes::<T>(&document, required) {
        none if none.is_empty() => unreadable(&error),
        all => Unreadable::Mistakes(all),
    })
}

/// What is wrong with a document that is TOML, but no `T`: each mistake with the road to its key. `required` are the keys
/// that have to be there, each with a value that can be read.
fn mistakes<T: DeserializeOwned>(document: &Table, required: &[(&str, &str)]) -> Vec<String> {
    let missing = required.iter().filter(|(key, _)| !document.contains_key(*key));
    let mut all: Vec<String> = missing.map(|(key, _)| format!("{key} is missing")).collect();
    let good = required.iter().map(|(key, value)| ((*key).to_owned(), Value::String((*value).to_owned()))).collect();
    let mut parts = Vec::new();
    split(document, &good, &mut Vec::new(), &mut parts);
    all.extend(parts.into_iter().filter_map(|(road, part)| {
        let error = part.try_into::<T>().err()?;
        Some(format!("{}: {}", foreign(&road), foreign(error.message())))
    }));
    all
}

/// Documents that each hold one value of it, beside what has to be there.
fn split(table: &Table, good: &Table, road: &mut Vec<String>, parts: &mut Vec<(String, Table)>) {
    for (key, value) in table {
        road.push(key.clone());
        match value {
            Value::Table(inner) if !inner.is_empty() => split(inner, good, road, parts),
            Value::Array(items) if items.iter().any(Value::is_table) => {
                for (at, item) in items.iter().enumerate() {
                    let one = Value::Array(vec![item.clone()]);
                    parts.push((format!("{}[{at}]", road.join(".")), alone(good, road, one)));
                }
            }
            other => parts.push((road.join("."), alone(good, road, other.clone()))),
        }
        road.pop();
    }
}

fn alone(good: &Table, road: &[String], value: Value) -> Table {
    let mut inner = value;
    for key in road.iter().skip(1).rev() {
        inner = Value::Table(Table::from_iter([(key.clone(), inner)]));
    }
    let mut document = good.clone();
    if let Some(first) = road.first() {
        document.insert(first.clone(), inner);
    }
    document
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "what is read is not looked at")]
    struct File {
        listen: String,
        admin_listen: String,
        #[serde(default)]
        admins: Vec<Admin>,
        #[serde(default)]
        limits: Limits,
        #[serde(default)]
        tenants: BTreeMap<String, Tenant>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "what is read is not looked at")]
    struct Admin {
        name: String,
        key: String,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    #[allow(dead_code, reason = "what is read is not looked at")]
    struct Limits {
        connections: usize,
        unattested: usize,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "what is read is not looked at")]
    struct Tenant {
        floor: Option<String>,
    }

    fn found(text: &str) -> Vec<String> {
        let required = [("listen", "127.0.0.1:0"), ("admin_listen", "127.0.0.1:0")];
        match parse::<File>(text, &required) {
            Ok(_) => Vec::new(),
            Err(Unreadable::Mistakes(all)) => all,
            Err(Unreadable::Toml(message)) => panic!("{message}"),
        }
    }

    #[test]
    fn every_unknown_key_and_every_wrong_type_is_named() {
        let found = found(
            "listen = 4480\nskip_checks = true\nadmins = [{ name = \"a\" }, { name = \"b\", key = 1 }, { who = \"c\" }]\n\
             [limits]\nconnections = \"many\"\nunattestd = 3\nunattested = 3\n[tenants.acme]\nanchors = []\n\
             [tenants.\"a\\u001bb\"]\nfloor = 7\n",
        );
        for (road, word) in [
            ("admin_listen", "missing"),
            ("listen: ", "expected a string"),
            ("skip_checks: ", "unknown field"),
            ("admins[0]: ", "missing field `key`"),
            ("admins[1]: ", "expected a string"),
            ("admins[2]: ", "unknown field `who`"),
            ("limits.connections: ", "invalid type"),
            ("limits.unattestd: ", "unknown field"),
            ("tenants.acme.anchors: ", "unknown field"),
            ("tenants.a\\u{1b}b.floor: ", "expected a string"),
        ] {
            assert!(found.iter().any(|one| one.starts_with(road) && one.contains(word)), "{road}: {found:#?}");
        }
        assert_eq!(found.len(), 10, "{found:#?}");
    }

    #[test]
    fn what_is_no_toml_has_its_line() {
        let error = parse::<File>("listen = \"a\"\nadmin_listen = b\n", &[]).unwrap_err();
        assert!(matches!(&error, Unreadable::Toml(message) if message.starts_with("line 2: ")), "{error:?}");
    }

    #[test]
    fn a_good_document_has_none() {
        assert!(found("listen = \"a\"\nadmin_listen = \"b\"\n[limits]\nconnections = 3\n").is_empty());
    }
}
