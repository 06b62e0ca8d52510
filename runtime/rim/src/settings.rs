//! Configuration in TOML: a document that cannot be read is looked at key by key, so that every mistake is named and not the first
//! alone.

use std::marker::PhantomData;

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
    let good: Table = required.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    Looked { good: &good, all: &mut all, road: Vec::new(), kind: PhantomData::<T> }.look(document);
    all
}

/// A look at one table after another.
struct Looked<'a, T> {
    /// What has to be there.
    good: &'a Table,
    all: &'a mut Vec<String>,
    road: Vec<String>,
    kind: PhantomData<T>,
}

impl<T: DeserializeOwned> Looked<'_, T> {
    fn look(&mut self, table: &Table) {
        for (key, value) in table {
            self.road.push(key.clone());
            match value {
                Value::Table(inner) if !inner.is_empty() => {
                    if let Some(why) = self.why(value.clone()) {
                        let before = self.all.len();
                        self.look(inner);
                        // Each part can be read by itself, and all of them together cannot.
                        if self.all.len() == before {
                            self.say(self.road.len(), "", &why);
                        }
                    }
                }
                Value::Array(items) if items.iter().any(Value::is_table) => {
                    for (at, item) in items.iter().enumerate() {
                        if let Some(why) = self.why(Value::Array(vec![item.clone()])) {
                            self.say(self.road.len(), &format!("[{at}]"), &why);
                        }
                    }
                }
                other => {
                    if let Some(why) = self.why(other.clone()) {
                        match lacking(&why) {
                            // By itself it lacks what stands beside it.
                            Some(field) if table.contains_key(field) => {}
                            Some(_) => self.say(self.road.len() - 1, "", &why),
                            None => self.say(self.road.len(), "", &why),
                        }
                    }
                }
            }
            self.road.pop();
        }
    }

    /// Why a document cannot be read that has this value at the end of the road, and beside it only what has to be there.
    fn why(&self, value: Value) -> Option<String> {
        let nest = |inner, key: &String| Value::Table(Table::from_iter([(key.clone(), inner)]));
        let inner = self.road.iter().skip(1).rev().fold(value, nest);
        let mut document = self.good.clone();
        document.insert(self.road.first()?.clone(), inner);
        document.try_into::<T>().err().map(|error| error.message().to_owned())
    }

    /// Once, with the first steps of the road.
    fn say(&mut self, steps: usize, behind: &str, why: &str) {
        let road = self.road[..steps].join(".");
        let line = format!("{}{behind}: {}", foreign(&road), foreign(why));
        if !self.all.contains(&line) {
            self.all.push(line);
        }
    }
}

/// The field that is not there, in serde's words.
fn lacking(why: &str) -> Option<&str> {
    why.strip_prefix("missing field `")?.split('`').next()
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
        tls: Option<Tls>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "what is read is not looked at")]
    struct Tls {
        certificate: String,
        key: String,
        client_roots: Option<String>,
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
    fn what_stands_beside_it_is_not_missing() {
        let with = |more: &str| found(&format!("listen = \"a\"\nadmin_listen = \"b\"\n{more}"));
        let whole = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        assert_eq!(with(&format!("colour = 1\n{whole}")).len(), 1);
        assert_eq!(
            with(&format!("{whole}colour = 1\n"))[0].split(',').next(),
            Some("tls.colour: unknown field `colour`")
        );
        assert_eq!(with("[tls]\ncertificate = \"c\"\nkey = 7\n").len(), 1);
        // What lacks is named once, whatever stands there.
        let lacks = vec!["tls: missing field `key`".to_owned()];
        assert_eq!(with("[tls]\ncertificate = \"c\"\nclient_roots = \"r\"\n"), lacks);
        assert_eq!(with("[tls]\nclient_roots = \"r\"\n"), vec!["tls: missing field `certificate`".to_owned()]);
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
