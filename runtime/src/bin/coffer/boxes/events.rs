//! `coffer events`.

use std::process::ExitCode;
use std::time::Duration;

use coffer_rim::out;
use coffer_runtime::boxes::unix_ms;
use coffer_runtime::engine::Engine;
use serde_json::{Map, Value};

use crate::boxes::event::{Event, Wanted};
use crate::boxes::filters;
use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::format::{Fields, Format};
use crate::terminal;

/// Tell what happens to boxes, images, volumes and networks: from now on, or with --since what is kept, and on from there.
#[derive(Debug, clap::Args)]
#[command(after_help = "They are read from the home's trail, as `coffer audit` shows it, which keeps the last 16 MiB.

Examples:
  coffer events
  coffer events --since 1h --until 0s
  coffer events --since 2026-01-31 --filter event=die --filter container=web
  coffer events --format json
  coffer events --filter type=image --format '{{.Action}} {{.Actor.ID}}'")]
pub struct Args {
    /// container=BOX, event=WORD, type=container|image|volume|network, image=IMAGE, volume=NAME, network=NAME or label=KEY[=VALUE]; values of one key are alternatives.
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Begin with what happened then: a moment (RFC 3339, or seconds since 1970) or a time ago.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End then; what has come already ends it at once.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Print events by a template, or as `json`, one a line.
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Between which moments, in Unix nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Span {
    since: Option<i64>,
    until: Option<i64>,
}

/// Tells them until nobody listens, or it is time.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let wanted = Wanted::read(&args.filter)?;
    let format = args.format.as_deref();
    let format = format.map(|text| Ok::<_, CliError>((text, Format::of(text, FIELDS)?))).transpose()?;
    let now = unix_ms().saturating_mul(1_000_000);
    let moment = |text: &Option<String>| text.as_deref().map(|text| filters::moment_nanos(text, now)).transpose();
    let span = Span { since: moment(&args.since)?, until: moment(&args.until)? };
    if context.json && span.until.is_none() {
        let message = "events without an end are no document";
        return Err(CliError::new(Class::Usage, message).hint("give --until, or use --format json: an object a line"));
    }
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let told = context.runtime()?.block_on(tell(&engine, &wanted, span, |event| {
        if context.json {
            return Ok(Some(event.docker()));
        }
        match &format {
            Some((text, format)) => {
                format.print(&[Fields { value: as_named_in(text, event), labels: Map::new() }], &[])?;
            }
            None => println!("{}", event.line()),
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
    span: Span,
    show: impl Fn(&Event) -> Result<Option<Value>, CliError>,
) -> Result<Vec<Value>, CliError> {
    let events = if span.since.is_some() { engine.all_events() } else { engine.events() };
    let mut events = events.map_err(error::of)?;
    let gone = terminal::reader_gone();
    let left = span.until.map(|until| Duration::from_nanos(u64::try_from(until - unix_ms() * 1_000_000).unwrap_or(0)));
    let time = async {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(time);
    let (mut kept, mut is_over) = (Vec::new(), false);
    loop {
        let line = if is_over {
            // What was written before the time came is told, however late it is read.
            events.kept().map_err(error::of)?
        } else {
            tokio::select! {
                biased;
                () = gone.notified() => return Ok(kept),
                line = events.next() => Some(line.map_err(error::of)?),
                () = &mut time => {
                    is_over = true;
                    continue;
                }
            }
        };
        let Some(line) = line else { return Ok(kept) };
        let at = line.nanos();
        if span.since.is_some_and(|since| at < since) || span.until.is_some_and(|until| at > until) {
            continue;
        }
        for event in Event::of(&line).iter().filter(|event| wanted.admits(event)) {
            if let Some(shown) = show(event)? {
                kept.push(shown);
            }
            // Standard output that cannot be written is said once, and has its exit code.
            if out::is_closed() {
                return Ok(kept);
            }
        }
    }
}

/// For templates.
const FIELDS: &[&str] = &[
    "Type", "Action", "status", "id", "Actor", "scope", "time", "timeNano", "Status", "ID", "Scope", "Time", "TimeNano",
];

/// Fields that Docker's templates call otherwise than its JSON.
const OTHERWISE: &[(&str, &str)] =
    &[("Status", "status"), ("ID", "id"), ("Scope", "scope"), ("Time", "time"), ("TimeNano", "timeNano")];

/// With those of the other names that a template has: the whole of it has each field once.
fn as_named_in(text: &str, event: &Event) -> Value {
    let mut value = event.docker();
    for (name, key) in OTHERWISE.iter().filter(|(name, _)| text.contains(&format!(".{name}"))) {
        value[*name] = value[*key].clone();
    }
    value
}
