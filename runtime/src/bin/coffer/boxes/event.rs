//! What a line of the trail is in Docker's words: none, one event, or one for each box it is about. Pure.

use coffer_runtime::trail::{Line, LineBox};
use serde_json::{Map, Value, json};

use crate::boxes::filters;
use crate::error::{Class, CliError};
use crate::table;

/// What happens to a box by itself, and what commands did: the trail's word, Docker's type and action.
const WORDS: &[(&str, &str, &str)] = &[
    ("box.create", "container", "create"),
    ("box.start", "container", "start"),
    ("box.health", "container", "health_status"),
    ("box.pause", "container", "pause"),
    ("box.unpause", "container", "unpause"),
    ("box.die", "container", "die"),
    ("box.rename", "container", "rename"),
    ("box.update", "container", "update"),
    ("box.destroy", "container", "destroy"),
    ("kill", "container", "kill"),
    ("stop", "container", "stop"),
    ("restart", "container", "restart"),
    ("attach.start", "container", "attach"),
    ("export", "container", "export"),
    ("commit", "container", "commit"),
    ("exec.start", "container", "exec_start"),
    ("exec", "container", "exec_die"),
    ("pull", "image", "pull"),
    ("push", "image", "push"),
    ("tag", "image", "tag"),
    ("rmi", "image", "untag"),
    ("load", "image", "load"),
    ("save", "image", "save"),
    ("import", "image", "import"),
    ("image prune", "image", "prune"),
    ("volume create", "volume", "create"),
    ("volume rm", "volume", "destroy"),
    ("volume prune", "volume", "prune"),
    ("network create", "network", "create"),
    ("network connect", "network", "connect"),
    ("network disconnect", "network", "disconnect"),
    ("network rm", "network", "destroy"),
    ("network prune", "network", "prune"),
];

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    kind: &'static str,
    action: String,
    word: &'static str,
    id: String,
    attributes: Map<String, Value>,
    nanos: i64,
}

impl Event {
    /// The events of a line.
    pub fn of(line: &Line) -> Vec<Self> {
        let known = |row: &&(&str, &str, &str)| row.0 == line.action && line.outcome == "done";
        let Some(&(_, kind, word)) = WORDS.iter().find(known) else { return Vec::new() };
        let mut attributes = Map::new();
        for (key, value) in &line.details {
            match (key.as_str(), value) {
                ("labels", Value::Object(labels)) => attributes.extend(labels.clone()),
                ("image" | "program", value) => drop(attributes.insert(key.clone(), value.clone())),
                ("exit_code", code) => drop(attributes.insert("exitCode".into(), code.to_string().into())),
                ("from", Value::String(name)) => drop(attributes.insert("oldName".into(), format!("/{name}").into())),
                _ => {}
            }
        }
        let program = line.details.get("program").and_then(Value::as_str).filter(|_| word == "exec_start");
        let more = line.details.get("health").and_then(Value::as_str).or(program);
        let action = more.map_or_else(|| word.to_owned(), |more| format!("{word}: {more}"));
        let about = |id: &str, more: &[(&str, &str)]| {
            let mut attributes = attributes.clone();
            attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))));
            Self { kind, action: action.clone(), word, id: id.into(), attributes, nanos: line.nanos() }
        };
        match kind {
            "container" => {
                let mut all: Vec<_> =
                    line.boxes.iter().map(|LineBox { id, name }| about(id, &[("name", name)])).collect();
                // A box joins its networks as it starts, and leaves them as it ends.
                match word {
                    "start" => drop(all.splice(..0, Self::of_its_networks(line, "connect"))),
                    "die" => all.extend(Self::of_its_networks(line, "disconnect")),
                    _ => {}
                }
                all
            }
            // A network, and the box behind it.
            "network" if word.ends_with("connect") => {
                let there = line.boxes.first().map_or("", |found| &found.id);
                line.names.iter().take(1).map(|name| about(name, &[("name", name), ("container", there)])).collect()
            }
            // Files and what was there before stand first.
            "image" if matches!(word, "import" | "tag") => {
                let name = line.names.get(1).map_or("", String::as_str);
                vec![about(name, &[("name", name)])]
            }
            // Each that went, and that it is over.
            "network" | "volume" if word == "prune" => {
                let gone = line.names.iter().map(|name| Self {
                    action: "destroy".into(),
                    word: "destroy",
                    ..about(name, &[("name", name)])
                });
                gone.chain([about("", &[])]).collect()
            }
            _ if word == "prune" || line.names.is_empty() => vec![about("", &[])],
            _ => line.names.iter().map(|name| about(name, &[("name", name)])).collect(),
        }
    }

    /// Of the networks that a box is in, as its line names them.
    fn of_its_networks(line: &Line, word: &'static str) -> Vec<Self> {
        let networks = line.details.get("networks").and_then(Value::as_array).into_iter().flatten();
        let there = line.boxes.first().map_or("", |found| &found.id);
        let of = |name: &str| Self {
            kind: "network",
            action: word.into(),
            word,
            id: name.into(),
            attributes: Map::from_iter([("name".to_owned(), name.into()), ("container".to_owned(), there.into())]),
            nanos: line.nanos(),
        };
        networks.filter_map(Value::as_str).map(of).collect()
    }

    /// In Docker's form.
    pub fn docker(&self) -> Value {
        json!({
            "Type": self.kind, "Action": self.action, "status": self.action, "id": self.id,
            "Actor": { "ID": self.id, "Attributes": self.attributes },
            "scope": "local", "time": self.nanos / 1_000_000_000, "timeNano": self.nanos,
        })
    }

    /// In Docker's line.
    pub fn line(&self) -> String {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let attributes: Vec<_> = self.attributes.iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
        let time = table::rfc3339_fixed(u64::try_from(self.nanos).unwrap_or(0));
        let Self { kind, action, id, .. } = self;
        let said = format!("{time} {kind} {action} {id} ({})", attributes.join(", "));
        coffer_rim::foreign(&said).into_owned()
    }

    fn is(&self, kind: &str, name: &str) -> bool {
        let attribute = |key: &str| self.attributes.get(key).and_then(Value::as_str) == Some(name);
        match kind {
            "container" if self.kind == kind => attribute("name") || self.id.starts_with(name),
            "container" => {
                attribute(kind)
                    || self.attributes.get(kind).and_then(Value::as_str).is_some_and(|id| id.starts_with(name))
            }
            "image" if self.kind == "container" => attribute("image"),
            _ => self.kind == kind && self.id == name,
        }
    }
}

/// Which events are wanted.
#[derive(Debug, Default)]
pub struct Wanted {
    things: Vec<(&'static str, String)>,
    words: Vec<String>,
    kinds: Vec<String>,
    labels: Vec<(String, Option<String>)>,
}

const KINDS: &[&str] = &["container", "image", "volume", "network"];

impl Wanted {
    /// Reads filters.
    ///
    /// # Errors
    /// Class `usage`.
    pub fn read(texts: &[String]) -> Result<Self, CliError> {
        let mut wanted = Self::default();
        for text in texts {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            let key = if key == "box" { "container" } else { key };
            let thing = KINDS.iter().find(|kind| **kind == key);
            // As it is printed, too: with the program, or the health, behind it.
            let word = value.split_once(": ").map_or(value, |(word, _)| word);
            let is_word = WORDS.iter().any(|row| row.2 == word);
            match (key, thing) {
                _ if value.is_empty() => return Err(invalid(text)),
                (_, Some(thing)) => wanted.things.push((thing, value.into())),
                ("event", _) if is_word => wanted.words.push(value.into()),
                ("type", _) if KINDS.contains(&value) => wanted.kinds.push(value.into()),
                ("label", _) => wanted.labels.push(filters::label(value)),
                _ => return Err(invalid(text)),
            }
        }
        Ok(wanted)
    }

    /// It is one of them: of each key that was given, one value fits.
    pub fn admits(&self, event: &Event) -> bool {
        let fits = |kind: &&'static str| {
            let mut names = self.things.iter().filter(|(of, _)| of == kind).peekable();
            names.peek().is_none() || names.any(|(of, name)| event.is(of, name))
        };
        let label = |(key, value): &(String, Option<String>)| {
            event.attributes.get(key).is_some_and(|found| value.as_deref().is_none_or(|value| found == value))
        };
        KINDS.iter().all(fits)
            && (self.words.is_empty() || self.words.iter().any(|word| word == event.word || *word == event.action))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == event.kind))
            && self.labels.iter().all(label)
    }
}

fn invalid(text: &str) -> CliError {
    let words: Vec<_> = WORDS.iter().map(|row| row.2).collect();
    let mut words: Vec<&str> =
        words.iter().enumerate().filter(|(at, word)| !words[..*at].contains(word)).map(|(_, word)| *word).collect();
    words.sort_unstable();
    let hint = format!(
        "filters are container=BOX, image=IMAGE, volume=NAME, network=NAME, label=KEY[=VALUE], type={} and event={}",
        KINDS.join("|"),
        words.join("|"),
    );
    CliError::new(Class::Usage, format!("invalid filter '{text}'")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "written in place")]
    fn line(action: &str, outcome: &str, details: Value) -> Line {
        let value = json!({
            "number": 1, "time": "1970-01-01T00:00:00.000000001Z", "action": action, "outcome": outcome,
            "boxes": [{ "id": "ab".repeat(32), "name": "web" }], "names": ["thing"], "uid": 0, "login_uid": null,
            "details": details, "previous": "0".repeat(64),
        });
        serde_json::from_value(value).unwrap()
    }

    fn event(action: &str, outcome: &str, details: Value) -> Event {
        Event::of(&line(action, outcome, details)).pop().unwrap()
    }

    #[test]
    fn filters_are_read_and_what_is_none_is_refused() {
        for bad in ["", "event", "event=", "event=nosuch", "container=", "bogus=1", "type=plugin", "label="] {
            assert_eq!(Wanted::read(&[bad.into()]).unwrap_err().class, Class::Usage, "{bad}");
        }
        let die = event("box.die", "done", json!({ "image": "busybox", "labels": { "a": "b" }, "exit_code": 3 }));
        let pull = event("pull", "done", json!({}));
        for (filters, of_die, of_pull) in [
            (&["container=web"][..], true, false),
            (&["container=abab"], true, false),
            (&["container=db"], false, false),
            (&["container=db", "container=web"], true, false),
            (&["event=die", "event=start"], true, false),
            (&["event=die: sh"], false, false),
            (&["type=image"], false, true),
            (&["image=thing"], false, true),
            (&["image=busybox"], true, false),
            (&["label=a=b", "event=die"], true, false),
            (&["label=a=c"], false, false),
            (&[], true, true),
        ] {
            let texts: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
            let wanted = Wanted::read(&texts).unwrap();
            assert_eq!((wanted.admits(&die), wanted.admits(&pull)), (of_die, of_pull), "{filters:?}");
        }
    }

    #[test]
    fn events_are_dockers_and_what_failed_or_is_none_of_its_is_no_event() {
        let exec = event("exec.start", "done", json!({ "program": "sh" }));
        for (filter, admitted) in
            [("event=exec_start", true), ("event=exec_start: sh", true), ("event=exec_start: ls", false)]
        {
            assert_eq!(Wanted::read(&[filter.to_owned()]).unwrap().admits(&exec), admitted, "{filter}");
        }
        assert_eq!((exec.kind, &*exec.action, exec.word), ("container", "exec_start: sh", "exec_start"));
        let ended = event("exec", "done", json!({ "program": "sh", "exit_code": 3 }));
        assert_eq!((ended.word, &ended.attributes["exitCode"]), ("exec_die", &"3".into()));
        assert_eq!(event("box.rename", "done", json!({ "from": "old" })).attributes["oldName"], "/old");
        let joined = event("network connect", "done", json!({}));
        assert_eq!((&*joined.id, &joined.attributes["container"]), ("thing", &"ab".repeat(32).into()));
        let mut tagged = line("tag", "done", json!({}));
        tagged.names.push("new:1".into());
        assert_eq!((Event::of(&tagged).len(), &*Event::of(&tagged)[0].id), (1, "new:1"));
        for (action, outcome) in [
            ("pull", "begun"),
            ("pull", "config"),
            ("attest", "done"),
            ("audit.mended", "done"),
            // A guest that refuses has started nothing.
            ("exec", "begun"),
            ("exec", "refused"),
        ] {
            assert_eq!(Event::of(&line(action, outcome, json!({}))), [], "{action}");
        }
    }

    #[test]
    fn a_box_joins_its_networks_as_it_starts_and_a_prune_names_what_went() {
        let told = |action: &str, details| -> Vec<String> {
            let all = Event::of(&line(action, "done", details));
            all.iter()
                .map(|event| format!("{} {} {}", event.kind, event.action, event.id.get(..4).unwrap_or(&event.id)))
                .collect()
        };
        let networks = json!({ "networks": ["app", "back"], "image": "busybox", "labels": { "a": "b" } });
        assert_eq!(
            told("box.start", networks.clone()),
            ["network connect app", "network connect back", "container start abab"]
        );
        assert_eq!(
            told("box.die", networks.clone()),
            ["container die abab", "network disconnect app", "network disconnect back"]
        );
        let joined = &Event::of(&line("box.start", "done", networks))[0];
        assert_eq!((&joined.attributes["container"], joined.attributes.len()), (&"ab".repeat(32).into(), 2));
        assert_eq!(told("network prune", json!({})), ["network destroy thin", "network prune "]);
        assert_eq!(told("volume prune", json!({})), ["volume destroy thin", "volume prune "]);
    }

    #[test]
    fn what_happens_to_boxes_by_itself_are_events() {
        let boxes: Vec<_> = WORDS.iter().map(|row| row.0).filter(|word| word.starts_with("box.")).collect();
        assert_eq!(boxes, coffer_runtime::trail::OF_BOXES);
    }

    #[test]
    fn a_line_is_one_line_whatever_stands_in_a_name() {
        let event = event("box.die", "done", json!({ "exit_code": 3, "labels": { "a": "b\nc" } }));
        let id = "ab".repeat(32);
        let wanted = format!("1970-01-01T00:00:00.000000001Z container die {id} (a=b\\nc, exitCode=3, name=web)");
        assert_eq!(event.line(), wanted);
    }
}
