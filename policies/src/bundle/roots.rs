//! What a bundle says it is about, and that it is about nothing else; and its data, put together.

use serde_json::{Map, Value};

/// Paths, without slashes at either end; the empty one is all.
pub(super) struct Roots(Vec<String>);

impl Roots {
    /// The manifest's, or all.
    pub fn new(roots: Option<&[String]>) -> Result<Self, String> {
        let all: Vec<String> = match roots {
            None => vec![String::new()],
            Some(roots) => roots.iter().map(|root| root.trim_matches('/').to_owned()).collect(),
        };
        for (at, one) in all.iter().enumerate() {
            if let Some(other) = all[..at].iter().find(|other| is_below(one, other) || is_below(other, one)) {
                return Err(format!("roots: {other:?} and {one:?} overlap"));
            }
        }
        Ok(Self(all))
    }

    /// True for a path at or below one of them.
    pub fn cover(&self, path: &str) -> bool {
        self.0.iter().any(|root| is_below(path, root))
    }

    /// Refuses data that stands below none of them.
    pub fn hold(&self, path: &str, data: &Value) -> Result<(), String> {
        if self.cover(path) {
            return Ok(());
        }
        let Value::Object(fields) = data else {
            return Err(format!("data at {path:?} stands below none of the roots"));
        };
        for (key, value) in fields {
            let below = if path.is_empty() { key.clone() } else { format!("{path}/{key}") };
            self.hold(&below, value)?;
        }
        Ok(())
    }
}

fn is_below(path: &str, root: &str) -> bool {
    root.is_empty() || path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}

/// Puts a file's data where its folder says.
pub(super) fn merge(data: &mut Value, folder: &str, mut found: Value) -> Result<(), String> {
    if !found.is_object() {
        return Err("data must be an object".into());
    }
    for part in folder.split('/').rev().filter(|part| !part.is_empty()) {
        found = Value::Object(Map::from_iter([(part.to_owned(), found)]));
    }
    into(data, found, "")
}

/// Recursion is bounded: a text of JSON nests at most 128 deep, a path 256.
fn into(data: &mut Value, found: Value, path: &str) -> Result<(), String> {
    match (data, found) {
        (Value::Object(fields), Value::Object(found)) => {
            for (key, value) in found {
                match fields.get_mut(&key) {
                    Some(there) => into(there, value, &format!("{path}/{key}"))?,
                    None => {
                        fields.insert(key, value);
                    }
                }
            }
            Ok(())
        }
        _ => Err(format!("data at {path:?} is given twice")),
    }
}
