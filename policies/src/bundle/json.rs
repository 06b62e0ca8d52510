//! JSON of a bundle.

use serde::Deserialize;
use serde_json::Value;

/// JSON in which no key stands twice: readers differ in which of two they take.
pub(super) fn once(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice::<Once>(bytes).map(|Once(value)| value).map_err(|error| error.to_string())
}

struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Once)
    }
}

struct Reader;

impl<'de> serde::de::Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = serde_json::Map::new();
        while let Some((key, Once(value))) = fields.next_entry::<String, Once>()? {
            if all.contains_key(&key) {
                return Err(serde::de::Error::custom(format_args!("key {key:?} stands twice")));
            }
            all.insert(key, value);
        }
        Ok(Value::Object(all))
    }
}

/// JSON as OPA hashes it: keys in the order of their bytes, no blanks, text as Go's encoder writes it without the escapes for HTML.
/// Numbers that are no integers must be written as our encoder writes them, or the hash is another and the bundle refused.
pub(super) fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (at, key) in keys.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                text(key, out);
                out.push(':');
                canonical(&fields[key], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Value::String(word) => text(word, out),
        other => out.push_str(&other.to_string()),
    }
}

fn text(word: &str, out: &mut String) {
    let plain = Value::from(word).to_string();
    out.push_str(&plain.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"));
}
