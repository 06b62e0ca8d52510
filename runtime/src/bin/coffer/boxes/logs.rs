//! `coffer logs`.

use std::path::Path;
use std::process::ExitCode;

use coffer_rim::{foreign, input};
use coffer_runtime::boxes::unix_us;
use coffer_runtime::engine::{self, Engine, LogStream, LogsRequest, Window};
use serde_json::{Value, json};

use crate::boxes::filters;
use crate::context::Context;
use crate::error::{self, Class, CliError, NamedFile as _};
use crate::output::Output;
use crate::prove::guest::Trust;
use crate::stamps::Stamps;
use crate::terminal;

/// Show the output of a box.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Where the spec does not let the host read the output, it is fetched as owner, from a guest that proves itself first.

Examples:
  coffer logs -f web
  coffer logs --tail 20 web
  coffer logs -t --since 10m --until 5m web"
)]
pub struct Args {
    /// Stay and show what comes.
    #[arg(short, long)]
    follow: bool,
    /// A time before each line: when it was written, by the guest's clock.
    #[arg(short, long)]
    timestamps: bool,
    /// What was written since then: a moment (RFC 3339, or seconds since 1970) or a time ago (10m, 1h30m).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// What was written until then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Number of lines to show from the end, or `all`.
    #[arg(short = 'n', long, value_name = "N", default_value = "all")]
    tail: String,
    /// Show what the guest's serial line said instead.
    #[arg(long)]
    console: bool,
    #[command(flatten)]
    trust: Trust,
    /// Name or id; or coffer://HOST:PORT of a guest elsewhere, with --reference.
    #[arg(value_name = "BOX")]
    name: String,
}

/// Shows it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let tail = match args.tail.as_str() {
        "all" | "-1" => None,
        number => Some(number.parse().map_err(|_| {
            CliError::new(Class::Usage, format!("invalid value {number:?} for --tail: expected a number or `all`"))
        })?),
    };
    let engine = context.engine()?;
    if args.console {
        show_console(&engine.console(&args.name).map_err(error::of)?, context);
        return Ok(ExitCode::SUCCESS);
    }
    let trust = args.trust.read()?;
    let moment = |text: &Option<String>| {
        let read = text.as_ref().map(|text| filters::moment_nanos(text, unix_us().saturating_mul(1000)));
        Ok::<_, CliError>(read.transpose()?.map(|nanos| u64::try_from(nanos).unwrap_or(0)))
    };
    let window = Window { since: moment(&args.since)?, until: moment(&args.until)? };
    let request = LogsRequest { window, tail, follow: args.follow };
    let output = Output::new(context, &Value::Null);
    let shown = context.runtime()?.block_on(show(&engine, args, request, &trust, &output));
    if shown.is_ok() && output.is_empty() && !context.json && tail != Some(0) && window == Window::default() {
        say_if_it_runs(&engine, &args.name);
    }
    output.end(context, shown.map(|tail| (tail, ExitCode::SUCCESS)))
}

async fn show(
    engine: &Engine,
    args: &Args,
    request: LogsRequest,
    trust: &engine::Trust,
    output: &Output,
) -> Result<Value, CliError> {
    let mut stream = engine.logs(&args.name, request, trust).await.map_err(error::of)?;
    // Whoever wants the last of it does not miss what was first.
    let mut known = if request.tail.is_some() { stream.dropped() } else { 0 };
    let mut first = true;
    let end = |stream: &LogStream| json!({ "dropped_bytes": stream.dropped() });
    let mut stamps = args.timestamps.then(Stamps::default);
    let gone = terminal::reader_gone();
    loop {
        let piece = tokio::select! {
            piece = stream.next() => piece.map_err(error::of)?,
            () = gone.notified() => return Ok(end(&stream)),
        };
        let dropped = stream.dropped() - std::mem::replace(&mut known, stream.dropped());
        let missed = dropped > 0 && piece.is_some() && !output.is_json();
        if missed && !first {
            eprintln!(
                "coffer: {dropped} bytes of the output are missing here: it came faster than it was read, or stored"
            );
        } else if missed && request.window.since.is_none() {
            eprintln!(
                "coffer: the log begins later: {dropped} bytes of the output are gone (--log-opt max-size, max-file)"
            );
        }
        first = false;
        let shown = piece.map(|piece| match &mut stamps {
            // In JSON each piece has its time.
            Some(stamps) if !output.is_json() => output.show(&stamps.stamped(&piece)),
            _ => output.show(&piece),
        });
        if shown != Some(true) {
            return Ok(end(&stream));
        }
    }
}

/// No output of a box that has just been started is no end of its output.
fn say_if_it_runs(engine: &Engine, name: &str) {
    if engine.find(name).is_ok_and(|record| record.state.is_up()) {
        eprintln!("coffer: {} has written nothing yet", foreign(name));
        eprintln!("hint: with --follow what it writes is shown as it comes");
    }
}

/// The guest wrote this: nothing of it may drive the terminal.
fn show_console(text: &[u8], context: &Context) {
    let text = String::from_utf8_lossy(text);
    if context.json {
        println!("{}", serde_json::json!({ "console": text }));
        return;
    }
    for line in text.lines() {
        println!("{}", foreign(line.trim_end_matches('\r')));
    }
}

/// Reads a file or standard input, at most so many bytes.
pub fn read_input(path: Option<&Path>, limit: u64) -> Result<Vec<u8>, CliError> {
    let (name, read) = match path {
        Some(path) if path != Path::new("-") => (path.display().to_string(), input::read(path, limit)),
        _ => ("standard input".to_string(), input::all(std::io::stdin().lock(), limit)),
    };
    match read {
        Err(long) if long.kind() == std::io::ErrorKind::FileTooLarge => {
            Err(CliError::new(Class::Usage, format!("{name} {long}")))
        }
        other => other.named(format!("cannot read {name}")),
    }
}
