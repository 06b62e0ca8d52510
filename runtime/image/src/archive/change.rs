//! Instructions of a Dockerfile that say what an image runs: `CMD ["sh"]`, `ENV A=b`.
//!
//! Source: Dockerfile reference; `docker import --change`.

use std::path::Path;

use serde_json::{Map, Value, json};

/// Why an instruction is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{}\" is no change: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR, and what they take",
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
            "HEALTHCHECK" => self.set("Healthcheck", health(rest)?),
            "USER" => self.set("User", json!(rest)),
            "WORKDIR" => {
                // One that begins at no root goes on from the one before.
                let before = self.config.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
                let folder = Path::new("/").join(before).join(rest);
                self.set("WorkingDir", json!(folder.to_str()?));
            }
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

/// `NONE`, or options and `CMD` with what that takes.
fn health(mut text: &str) -> Option<Value> {
    let mut said = Map::new();
    while let Some(option) = text.strip_prefix("--") {
        let (option, rest) = option.split_once(char::is_whitespace)?;
        let (name, value) = option.split_once('=')?;
        let (key, value) = match name {
            "interval" => ("Interval", nanoseconds(value)?),
            "timeout" => ("Timeout", nanoseconds(value)?),
            "start-period" => ("StartPeriod", nanoseconds(value)?),
            "start-interval" => ("StartInterval", nanoseconds(value)?),
            "retries" => ("Retries", value.parse().ok().filter(|count| *count > 0)?),
            _ => return None,
        };
        said.insert(key.to_owned(), json!(value));
        text = rest.trim_start();
    }
    let test = match text.split_once(char::is_whitespace) {
        None if text.eq_ignore_ascii_case("NONE") && said.is_empty() => json!(["NONE"]),
        Some((word, rest)) if word.eq_ignore_ascii_case("CMD") => match list(rest.trim()) {
            Some(words) => json!([vec!["CMD".to_owned()], words].concat()),
            None => json!(["CMD-SHELL", rest.trim()]),
        },
        _ => return None,
    };
    said.insert("Test".to_owned(), test);
    Some(Value::Object(said))
}

/// A length of time in Go's form, in whole numbers.
fn nanoseconds(mut text: &str) -> Option<i64> {
    let mut total = 0_i64;
    while !text.is_empty() {
        let (number, rest) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let (unit, rest) = rest.split_at(rest.bytes().take_while(u8::is_ascii_alphabetic).count());
        let unit = match unit {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(unit)?)?;
        text = rest;
    }
    Some(total).filter(|total| *total > 0)
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
            "WORKDIR sub/x",
            "STOPSIGNAL SIGQUIT",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD test -e /x",
        ];
        let changes = Changes::parse(&lines.map(str::to_owned)).unwrap();
        let expected = json!({
            "Cmd": ["sh", "-c", "true"], "Entrypoint": ["/bin/sh", "-c", "/init now"], "Env": ["A=b", "C=d e", "F=g h"],
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/a b": {}, "/c": {}, "/d": {}}, "Labels": {"x": "1"},
            "User": "7:8", "WorkingDir": "/w/sub/x", "StopSignal": "SIGQUIT",
            "Healthcheck": {"Test": ["CMD-SHELL", "test -e /x"], "Interval": 90_000_000_000_u64, "Retries": 2},
        });
        assert_eq!(changes.document(), expected);
        assert_eq!(health("none"), Some(json!({"Test": ["NONE"]})));
        assert_eq!(health("CMD [\"a\", \"b\"]"), Some(json!({"Test": ["CMD", "a", "b"]})));
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
        for line in [
            "",
            "CMD",
            "CMD  ",
            "RUN true",
            "ENV A",
            "ENV =b",
            "ENV a b=c =d",
            "LABEL A=\"b",
            "HEALTHCHECK",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=1 CMD x",
            "HEALTHCHECK --bogus=1s CMD x",
            "HEALTHCHECK --retries=0 CMD x",
            "HEALTHCHECK x",
        ] {
            let found = Changes::parse(&[line.to_owned()]).map(Changes::document);
            assert!(found.is_err() || line == "ENV a b=c =d", "{line}: {found:?}");
        }
    }
}
