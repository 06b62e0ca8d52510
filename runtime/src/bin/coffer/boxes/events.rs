//! `coffer events`.

use std::process::ExitCode;
use std::time::Duration;

use coffer_rim::out;
use coffer_runtime::boxes::{unix_ms, unix_us};
use coffer_runtime::engine::{BoxEvent, Change, Engine};
use serde_json::{Map, Value, json};

use crate::boxes::filters;
use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::format::{Fields, Format};
use crate::table;
use crate::terminal;

/// Tell what happens to boxes, from now on.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Events are create, start, pause, unpause, die and destroy. What lasts less than a look of 200 ms may not be told.

Examples:
  coffer events
  coffer events --filter event=die --filter container=web --format json
  coffer events --until 2030-01-01 --format json"
)]
pub struct Args {
    /// container=BOX or event=WORD; values of one key are alternatives.
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// End then: a moment (RFC 3339, or seconds since 1970) or a time ago, which has come.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Print events by a template, or as `json`, one a line.
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Which events are wanted.
#[derive(Debug, Default)]
struct Wanted {
    boxes: Vec<String>,
    words: Vec<String>,
}

/// Tells them until nobody listens, or it is time.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let wanted = Wanted::read(&args.filter)?;
    let format = args.format.as_deref().map(|text| Format::of(text, FIELDS)).transpose()?;
    let until = args.until.as_deref().map(|text| filters::moment(text, unix_ms())).transpose()?;
    if context.json && until.is_none() {
        let message = "events without an end are no document";
        return Err(CliError::new(Class::Usage, message).hint("give --until, or use --format json: an object a line"));
    }
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let told = context.runtime()?.block_on(tell(&engine, &wanted, until, |event| {
        if context.json {
            return Ok(Some(event));
        }
        match &format {
            Some(format) => format.print(&[Fields { value: event, labels: Map::new() }], &[])?,
            None => println!("{}", line(&event)),
        }
        Ok(None)
    }))?;
    if context.json {
        println!("{}", Value::from(told));
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives each event to `show`, and what that gives back at the end.
async fn tell(
    engine: &Engine,
    wanted: &Wanted,
    until: Option<i64>,
    show: impl Fn(Value) -> Result<Option<Value>, CliError>,
) -> Result<Vec<Value>, CliError> {
    let mut events = engine.events().map_err(error::of)?;
    let gone = terminal::reader_gone();
    let left = until.map(|until| Duration::from_millis(u64::try_from(until - unix_ms()).unwrap_or(0)));
    let time = async {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(time);
    let mut kept = Vec::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event.map_err(error::of)?,
            () = &mut time => return Ok(kept),
            () = gone.notified() => return Ok(kept),
        };
        let Some(word) = word(&event.change).filter(|word| wanted.admits(&event, word)) else { continue };
        if let Some(shown) = show(described(engine, &event, word))? {
            kept.push(shown);
        }
        // Standard output that cannot be written is said once, and has its exit code.
        if out::is_closed() {
            return Ok(kept);
        }
    }
}

/// For templates.
const FIELDS: &[&str] = &["Type", "Action", "status", "id", "Actor", "scope", "time", "timeNano"];

/// Docker's word; phases of a start are ours alone, and stand in `inspect`.
fn word(change: &Change) -> Option<&'static str> {
    Some(match change {
        Change::Created => "create",
        Change::Started => "start",
        Change::Paused => "pause",
        Change::Unpaused => "unpause",
        Change::Exited { .. } => "die",
        Change::Removed => "destroy",
        _ => return None,
    })
}

/// In Docker's form.
fn described(engine: &Engine, event: &BoxEvent, word: &str) -> Value {
    let mut attributes = json!({ "name": event.name });
    if let Ok(record) = engine.find(event.id.as_str()) {
        attributes["image"] = record.image.into();
        for (key, value) in record.options.labels {
            attributes[key] = value.into();
        }
    }
    if let Change::Exited { code, .. } = &event.change {
        attributes["exitCode"] = code.to_string().into();
    }
    json!({
        "Type": "container", "Action": word, "status": word, "id": event.id,
        "Actor": { "ID": event.id, "Attributes": attributes },
        "scope": "local", "time": unix_ms() / 1000, "timeNano": unix_us().saturating_mul(1000),
    })
}

fn line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let attributes = event["Actor"]["Attributes"].as_object().into_iter().flatten();
    let attributes: Vec<_> = attributes.map(|(key, value)| format!("{key}={}", text(value))).collect();
    let time = table::rfc3339_fixed(event["timeNano"].as_u64().unwrap_or(0));
    let said =
        format!("{time} container {} {} ({})", text(&event["Action"]), text(&event["id"]), attributes.join(", "));
    coffer_rim::foreign(&said).into_owned()
}

impl Wanted {
    fn read(texts: &[String]) -> Result<Self, CliError> {
        let mut wanted = Self::default();
        for text in texts {
            match text.split_once('=') {
                Some(("container" | "box", name)) if !name.is_empty() => wanted.boxes.push(name.into()),
                Some(("event", word)) if WORDS.contains(&word) => wanted.words.push(word.into()),
                Some(("type", "container")) => {}
                _ => {
                    let hint = format!("filters are container=BOX and event={}", WORDS.join("|"));
                    return Err(CliError::new(Class::Usage, format!("invalid filter '{text}'")).hint(hint));
                }
            }
        }
        Ok(wanted)
    }

    fn admits(&self, event: &BoxEvent, word: &str) -> bool {
        let of_box = |name: &String| event.name == *name || event.id.as_str().starts_with(name.as_str());
        (self.boxes.is_empty() || self.boxes.iter().any(of_box))
            && (self.words.is_empty() || self.words.iter().any(|wanted| wanted == word))
    }
}

const WORDS: &[&str] = &["create", "start", "pause", "unpause", "die", "destroy"];

#[cfg(test)]
mod tests {
    use coffer_runtime::BoxId;

    use super::*;

    #[test]
    fn filters_are_read_and_what_is_none_is_refused() {
        for bad in ["", "event", "event=exec", "container=", "bogus=1", "type=image"] {
            assert_eq!(Wanted::read(&[bad.into()]).unwrap_err().class, Class::Usage, "{bad}");
        }
        let wanted = Wanted::read(&["container=web".into(), "event=die".into(), "event=start".into()]).unwrap();
        let event = |name: &str| BoxEvent { id: BoxId::random(), name: name.into(), change: Change::Started };
        assert!(wanted.admits(&event("web"), "die") && wanted.admits(&event("web"), "start"));
        assert!(!wanted.admits(&event("web"), "create") && !wanted.admits(&event("db"), "die"));
        let all = Wanted::default();
        assert!(WORDS.iter().all(|word| all.admits(&event("db"), word)));
    }

    #[test]
    fn every_change_that_docker_has_has_its_word() {
        let exited = Change::Exited { code: 3, error: None };
        let all = [Change::Created, Change::Started, Change::Paused, Change::Unpaused, exited, Change::Removed];
        assert_eq!(all.map(|change| word(&change).unwrap()), *WORDS);
        assert_eq!(word(&Change::Phase("running".into())), None);
    }

    #[test]
    fn a_line_is_one_line_whatever_stands_in_a_name() {
        let event = json!({
            "Action": "die", "id": "ab", "timeNano": 1, "Actor": { "Attributes": { "exitCode": "3", "name": "a\nb" } },
        });
        assert_eq!(line(&event), "1970-01-01T00:00:00.000000001Z container die ab (exitCode=3, name=a\\nb)");
    }
}
