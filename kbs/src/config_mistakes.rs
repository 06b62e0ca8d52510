//! A document that cannot be read, looked at key by key, so that every mistake is named and not the first alone.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// What is wrong with a document that is TOML, but no `T`: each mistake with the road to its key. `required` are the keys
/// that have to be there, each with a value that can be read.
pub(crate) fn mistakes<T: DeserializeOwned>(document: &Table, required: &[(&str, &str)]) -> Vec<String> {
    let missing = required.iter().filter(|(key, _)| !document.contains_key(*key));
    let mut all: Vec<String> = missing.map(|(key, _)| format!("{key} is missing")).collect();
    let good = required.iter().map(|(key, value)| ((*key).to_owned(), Value::String((*value).to_owned()))).collect();
    let mut parts = Vec::new();
    split(document, &good, &mut Vec::new(), &mut parts);
    all.extend(parts.into_iter().filter_map(|(road, part)| {
        let error = part.try_into::<T>().err()?;
        Some(format!("{}: {}", coffer_rim::foreign(&road), coffer_rim::foreign(error.message())))
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
    use super::*;
    use crate::ConfigFile;

    fn found(text: &str) -> Vec<String> {
        let required = [("listen", "127.0.0.1:0"), ("admin_listen", "127.0.0.1:0")];
        mistakes::<ConfigFile>(&toml::from_str(text).unwrap(), &required)
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
    fn a_good_document_has_none() {
        assert!(found("listen = \"a\"\nadmin_listen = \"b\"\n[limits]\nconnections = 3\n").is_empty());
    }
}
