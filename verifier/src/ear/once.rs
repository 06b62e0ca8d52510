//! JSON in which no key stands twice, and which is small: parsers differ in which of two values they take.

use std::{cell::Cell, collections::BTreeSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

/// Most values in one document.
const MAX_VALUES: usize = 1024;

/// Walks a document and keeps nothing of it.
///
/// # Errors
/// Not JSON, a key twice in one object, or more than 1024 values.
pub fn check(bytes: &[u8]) -> Result<(), serde_json::Error> {
    let count = Cell::new(0);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Walk(&count).deserialize(&mut reader)?;
    reader.end()
}

#[derive(Clone, Copy)]
struct Walk<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > MAX_VALUES {
            return Err(D::Error::custom(format_args!("more than {MAX_VALUES} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("a key stands twice"));
            }
            map.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_twice_at_any_depth_and_documents_are_small() {
        for good in [r#"{"a":1,"b":{"a":[{"a":null},{"a":1.5}]}}"#, "[]", "\"a\"", "-1", "true"] {
            check(good.as_bytes()).unwrap();
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        // The second names its key once as it is, and once escaped.
        let bad =
            [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, r#"[{"b":{"a":1,"a":1}}]"#, "{} {}", "{", "", &deep, &many];
        for bad in bad {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
