//! `coffer stats`.

use std::process::ExitCode;
use std::time::Duration;

use coffer_rim::out;
use coffer_runtime::BoxState;
use coffer_runtime::engine::{Engine, ExecError, Filter, Guest, Meter, Trust, Usage};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::format::{Fields, Format};
use crate::prove;
use crate::{table, terminal};

/// Show what running boxes use, anew each second.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each box's own guest counts. CPU % is of one processor: two busy ones are 200 %. NET I/O and BLOCK I/O are what came in and what \
went out since the start. PIDS counts programs and their threads. `--` stands for what is not counted: a box of --isolation process \
has no machine, so that its programs and their memory are counted, and neither a limit of that nor disks. Where the spec does not let \
the host see it, a listed owner does, in a guest that proves itself first. A box whose figures are not to be had keeps none from its \
own.

Fields for --format: Container ID Name CPUPerc MemUsage MemPerc NetIO BlockIO PIDs

Examples:
  coffer stats
  coffer stats --no-stream web
  coffer --json stats --no-stream"
)]
pub struct Args {
    #[command(flatten)]
    trust: prove::guest::Trust,
    /// Also boxes that do not run.
    #[arg(short, long, conflicts_with = "boxes")]
    all: bool,
    /// Once, and end.
    #[arg(long)]
    no_stream: bool,
    /// Whole ids.
    #[arg(long)]
    no_trunc: bool,
    /// Print boxes by a template, a `table` of one, or as `json`.
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names, ids, or coffer://HOST:PORT of guests elsewhere, with --reference [default: all that run].
    #[arg(value_name = "BOX")]
    boxes: Vec<String>,
}

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let format = args.format.as_deref().map(|text| Format::of(text, FIELDS)).transpose()?;
    if context.json && !args.no_stream {
        let message = "figures without an end are no document";
        let hint = "give --no-stream, or use --format json: an object a line";
        return Err(CliError::new(Class::Usage, message).hint(hint));
    }
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    prove::guest::Trust::tells_apart(&trust, args.boxes.iter().map(String::as_str))?;
    let show = |rows: &[Watched]| show(args, context, format.as_ref(), rows);
    let failed = context.runtime()?.block_on(watch(args, context.json, &engine, &trust, show))?;
    Ok(failed.map_or(ExitCode::SUCCESS, |failure| context.exit(&failure)))
}

/// One box: the way to its figures, and the last two of them.
struct Watched {
    guest: Guest,
    meter: Option<Meter>,
    /// Why there is none, of a box that was named.
    failure: Option<CliError>,
    /// It was printed.
    said: bool,
    before: Option<Usage>,
    now: Option<Usage>,
}

impl Watched {
    async fn of(guest: Guest, engine: &Engine, trust: &Trust) -> Result<Self, ExecError> {
        let word = guest.id().map_or_else(|| guest.name(), |id| id.as_str().to_owned());
        let meter = Some(engine.meter(&word, trust).await?);
        Ok(Self { meter, ..Self::silent(guest) })
    }

    const fn silent(guest: Guest) -> Self {
        Self { guest, meter: None, failure: None, said: false, before: None, now: None }
    }

    async fn look(&mut self) -> Result<(), ExecError> {
        self.before = self.now.take();
        if let Some(meter) = &mut self.meter {
            self.now = Some(meter.read().await?);
        }
        Ok(())
    }

    fn processor_percent(&self) -> Option<f64> {
        self.now.as_ref()?.processor_percent(self.before.as_ref()?)
    }
}

async fn watch(
    args: &Args,
    json: bool,
    engine: &Engine,
    trust: &Trust,
    show: impl Fn(&[Watched]) -> Result<(), CliError>,
) -> Result<Option<CliError>, CliError> {
    let gone = terminal::reader_gone();
    // A box that is named has figures, or we say why not; of all others there are those that can be had.
    let named = !args.boxes.is_empty();
    let guests = args.boxes.iter().map(|name| engine.guest(name)).collect::<Result<Vec<_>, _>>().map_err(error::of)?;
    let mut watched = Vec::new();
    for guest in guests {
        watched.push(match Watched::of(guest.clone(), engine, trust).await {
            Ok(one) => one,
            Err(error) => Watched { failure: Some(error::of(error)), ..Watched::silent(guest) },
        });
    }
    loop {
        if !named {
            watched = Box::pin(all(args, engine, trust, watched)).await?;
        }
        let looks = join_all(watched.iter_mut().map(Watched::look)).await;
        for (one, look) in watched.iter_mut().zip(looks) {
            if let Err(error) = look {
                // One that is not named is asked anew next time, if it runs then.
                (one.meter, one.failure) = (None, named.then(|| error::of(error)));
            }
        }
        for one in &mut watched {
            if let Some(failure) = &one.failure
                && !std::mem::replace(&mut one.said, true)
                && !json
            {
                error::print(failure, false);
            }
        }
        if named && !json && watched.iter().all(|one| one.failure.is_some()) {
            return Ok(last(&watched));
        }
        // The first figures of a box have nothing to be compared with.
        let first = watched.iter().any(|one| one.now.is_some() && one.before.is_none());
        if !(args.no_stream && first) {
            show(&watched)?;
        }
        // Standard output that cannot be written is said once, and has its exit code.
        if args.no_stream && !first || out::is_closed() {
            return Ok(last(&watched));
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = gone.notified() => return Ok(None),
        }
    }
}

/// What the command fails as.
fn last(boxes: &[Watched]) -> Option<CliError> {
    boxes.iter().rev().find_map(|one| one.failure.clone())
}

/// Those that run now, as far as they are known with their figures; newest first.
async fn all(args: &Args, engine: &Engine, trust: &Trust, mut known: Vec<Watched>) -> Result<Vec<Watched>, CliError> {
    let mut found = Vec::new();
    for record in engine.list(&Filter::default()).map_err(error::of)? {
        let runs = record.state == BoxState::Running;
        if !runs && record.state != BoxState::Paused && !args.all {
            continue;
        }
        let place = known.iter().position(|one| one.guest.id() == Some(&record.id) && one.meter.is_some());
        let guest = Guest::Here(Box::new(record));
        found.push(match place.filter(|_| runs) {
            Some(place) => known.swap_remove(place),
            None if runs => Watched::of(guest.clone(), engine, trust).await.unwrap_or_else(|_| Watched::silent(guest)),
            None => Watched::silent(guest),
        });
    }
    Ok(found)
}

fn show(args: &Args, context: &Context, format: Option<&Format>, boxes: &[Watched]) -> Result<(), CliError> {
    if context.json {
        let mut all = json!({ "boxes": boxes.iter().map(figures).collect::<Vec<_>>() });
        if let Some(failure) = last(boxes) {
            all["error"] = failure.json()["error"].take();
        }
        println!("{all}");
        return Ok(());
    }
    if !args.no_stream && terminal::shows() {
        // From the corner down, over what was shown a second ago.
        print!("\u{1b}[H\u{1b}[J");
    }
    let rows: Vec<Fields> = boxes.iter().map(|one| fields(one, args.no_trunc)).collect();
    if let Some(format) = format {
        return format.print(&rows, HEADINGS);
    }
    let cell = |row: &Fields, name: &str| row.value[name].as_str().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| COLUMNS.iter().map(|(name, _)| cell(row, name)).collect()).collect();
    table::print(&COLUMNS.map(|(_, above)| above), &rows);
    Ok(())
}

/// Fields in their columns, and what stands above. Source: Docker's formatter of stats.
const COLUMNS: [(&str, &str); 8] = [
    ("ID", "BOX ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
const HEADINGS: &[(&str, &str)] = &COLUMNS;
/// For templates.
const FIELDS: &[&str] = &["Container", "ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];

/// What is not counted.
const NONE: &str = "--";

fn fields(one: &Watched, whole: bool) -> Fields {
    let Watched { guest, now, .. } = one;
    let id = guest.id().map_or(NONE, |id| if whole { id.as_str() } else { id.short() });
    let now = now.as_ref();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    let percent = |value: Option<f64>| or_none(value.map(|value| format!("{value:.2}%")));
    let pair = |pair: Option<(u64, u64)>| {
        or_none(pair.map(|(left, right)| format!("{} / {}", table::size(left), table::size(right))))
    };
    let bytes = |value: Option<u64>| or_none(value.map(table::binary_size));
    let memory = format!("{} / {}", bytes(now.and_then(|it| it.memory)), bytes(now.and_then(|it| it.memory_limit)));
    Fields {
        value: json!({
            "Container": id, "ID": id, "Name": guest.name(), "CPUPerc": percent(one.processor_percent()),
            "MemUsage": memory, "MemPerc": percent(now.and_then(Usage::memory_percent)),
            "NetIO": pair(now.and_then(|it| it.network)), "BlockIO": pair(now.and_then(|it| it.disk)),
            "PIDs": or_none(now.map(|it| it.processes.to_string())),
        }),
        labels: Map::new(),
    }
}

fn figures(one: &Watched) -> Value {
    let now = one.now.clone().unwrap_or_default();
    let counted = one.now.is_some();
    let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut row = json!({
        "id": one.guest.id(), "name": one.guest.name(), "cpu_percent": one.processor_percent(),
        "cpu_us": now.busy.map(microseconds), "processors": now.processors,
        "memory_bytes": now.memory, "memory_limit_bytes": now.memory_limit, "memory_percent": now.memory_percent(),
        "pids": counted.then_some(now.processes), "uptime_us": counted.then(|| microseconds(now.uptime)),
        "network_received_bytes": now.network.map(|it| it.0), "network_sent_bytes": now.network.map(|it| it.1),
        "disk_read_bytes": now.disk.map(|it| it.0), "disk_written_bytes": now.disk.map(|it| it.1),
    });
    if let Some(failure) = &one.failure {
        row["error"] = failure.json()["error"].take();
    }
    row
}
