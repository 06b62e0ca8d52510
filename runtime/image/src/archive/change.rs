//! Instructions of a Dockerfile that say what an image runs: `CMD ["sh"]`, `ENV A=b`.
//!
//! Source: Dockerfile reference; `docker import --change`.

use serde_json::{Map, Value, json};

/// Why an instruction is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{}\" is no change: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR, and what they take",
    coffer_rim::Foreign(found)
)]
pub struct ChangeError {
    /// As typed.
    pub found: String,
}

/// A configuration's `config`.
#[derive(Debug, Default)]
pub(super) struct Changes {
    config: Map<String, Value>,
    /// An instruction said what it runs where there is an entry point.
    has_command: bool,
}

impl Changes {
    pub(super) fn parse(lines: &[String]) -> Result<Self, ChangeError> {
        Self::over(Map::new(), lines)
    }

    /// Over what an image says already.
    pub(super) fn over(mut config: Map<String, Value>, lines: &[String]) -> Result<Self, ChangeError> {
        // Null is what has nothing.
        config.retain(|_, value| !value.is_null());
        let mut changes = Self { config, has_command: false };
        for line in lines {
            changes.take(line.trim()).ok_or_else(|| ChangeError { found: line.clone() })?;
        }
        Ok(changes)
    }

    pub(super) fn document(self) -> Value {
        Value::Object(self.config)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(char::is_whitespace)?;
        let rest = Some(rest.trim()).filter(|rest| !rest.is_empty())?;
        match word.to_ascii_uppercase().as_str() {
            "CMD" => {
                self.has_command = true;
                self.set("Cmd", command(rest));
            }
            "ENTRYPOINT" => {
                // As Docker has it: what the image gave to another entry point is nothing for this one.
                if !self.has_command {
                    self.config.remove("Cmd");
                }
                self.set("Entrypoint", command(rest));
            }
            "USER" => self.set("User", json!(rest)),
            "WORKDIR" => self.set("WorkingDir", json!(rest)),
            "STOPSIGNAL" => self.set("StopSignal", json!(rest)),
            "EXPOSE" => {
                for port in rest.split_whitespace() {
                    let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
                    self.add("ExposedPorts", port, json!({}));
                }
            }
            "VOLUME" => {
                let all = list(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
                for path in all {
                    self.add("Volumes", path, json!({}));
                }
            }
            "LABEL" => {
                for (name, value) in pairs(rest)? {
                    self.add("Labels", name, json!(value));
                }
            }
            "ENV" => {
                let all = pairs(rest)?;
                let list = self.config.entry("Env").or_insert_with(|| json!([])).as_array_mut()?;
                for (name, value) in all {
                    let is_its = |entry: &Value| {
                        entry.as_str().and_then(|entry| entry.split_once('=')).is_some_and(|(other, _)| other == name)
                    };
                    list.retain(|entry| !is_its(entry));
                    list.push(Value::from(format!("{name}={value}")));
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn set(&mut self, key: &str, value: Value) {
        self.config.insert(key.to_owned(), value);
    }

    fn add(&mut self, key: &str, name: String, value: Value) {
        if let Some(map) = self.config.entry(key).or_insert_with(|| json!({})).as_object_mut() {
            map.insert(name, value);
        }
    }
}

/// A list of words as JSON.
fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// A list of words, or a line for a shell.
fn command(text: &str) -> Value {
    json!(list(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]))
}

/// `NAME=VALUE` several times, values maybe in double quotes; or `NAME VALUE` once.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let first = text.split_whitespace().next()?;
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=')?;
        let name_is_one = !name.is_empty() && !name.contains(char::is_whitespace);
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => behind.split_once(char::is_whitespace).unwrap_or((behind, "")),
        };
        if !name_is_one {
            return None;
        }
        all.push((name.to_owned(), value.to_owned()));
        rest = behind.trim_start();
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_become_a_configuration() {
        let lines = [
            r#"CMD ["sh", "-c", "true"]"#,
            "entrypoint /init now",
            r#"ENV A=b C="d e""#,
            "ENV F g h",
            "EXPOSE 80 53/udp",
            r#"VOLUME ["/a b"]"#,
            "VOLUME /c /d",
            "LABEL x=1",
            "USER 7:8",
            "WORKDIR /w",
            "STOPSIGNAL SIGQUIT",
        ];
        let changes = Changes::parse(&lines.map(str::to_owned)).unwrap();
        let expected = json!({
            "Cmd": ["sh", "-c", "true"], "Entrypoint": ["/bin/sh", "-c", "/init now"], "Env": ["A=b", "C=d e", "F=g h"],
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/a b": {}, "/c": {}, "/d": {}}, "Labels": {"x": "1"},
            "User": "7:8", "WorkingDir": "/w", "StopSignal": "SIGQUIT",
        });
        assert_eq!(changes.document(), expected);
    }

    #[test]
    fn what_an_image_says_stays_but_for_what_is_said_anew() {
        let before = json!({
            "Cmd": ["old"], "Env": ["PATH=/bin", "A=1"], "Labels": {"x": "1", "y": "2"}, "Volumes": null, "User": "7",
        });
        let Value::Object(before) = before else { unreachable!() };
        let over = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
            Changes::over(before.clone(), &lines).unwrap().document()
        };
        let changed = over(&["ENV A=2 B=3", "LABEL y=3", "VOLUME /v"]);
        let expected = json!({
            "Cmd": ["old"], "Env": ["PATH=/bin", "A=2", "B=3"], "Labels": {"x": "1", "y": "3"}, "Volumes": {"/v": {}}, "User": "7",
        });
        assert_eq!(changed, expected);
        assert_eq!(over(&["ENTRYPOINT [\"e\"]"]).get("Cmd"), None);
        assert_eq!(over(&["CMD [\"c\"]", "ENTRYPOINT [\"e\"]"])["Cmd"], json!(["c"]));
    }

    #[test]
    fn anything_else_is_refused_by_its_words() {
        for line in ["", "CMD", "CMD  ", "RUN true", "ENV A", "ENV =b", "ENV a b=c =d", "LABEL A=\"b"] {
            let found = Changes::parse(&[line.to_owned()]).map(Changes::document);
            assert!(found.is_err() || line == "ENV a b=c =d", "{line}: {found:?}");
        }
    }
}
