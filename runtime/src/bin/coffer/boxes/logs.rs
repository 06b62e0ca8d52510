//! `coffer logs`.

use std::path::Path;
use std::process::ExitCode;

use coffer_rim::{foreign, input, out};
use coffer_runtime::engine::LogsRequest;

use crate::boxes::live::print;
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::prove::guest::Trust;

/// Show the output of a box.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Where the spec does not let the host read the output, it is fetched as owner, from a guest that proves itself first.

Examples:
  coffer logs -f web
  coffer logs --tail 20 web"
)]
pub struct Args {
    /// Stay and show what comes.
    #[arg(short, long)]
    follow: bool,
    /// Number of pieces to show from the end, or `all`.
    #[arg(short = 'n', long, value_name = "N", default_value = "all")]
    tail: String,
    /// Show what the guest's serial line said instead.
    #[arg(long)]
    console: bool,
    #[command(flatten)]
    trust: Trust,
    /// Name or id.
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
        show_console(&engine.console(&args.name).map_err(error::of)?);
        return Ok(ExitCode::SUCCESS);
    }
    let trust = args.trust.read()?;
    let request = LogsRequest { tail, follow: args.follow };
    context.runtime()?.block_on(async {
        let mut output = engine.logs(&args.name, request, &trust).await.map_err(error::of)?;
        while let Some(piece) = output.next().await.map_err(error::of)? {
            print(&piece);
            if out::is_closed() {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The guest wrote this: nothing of it may drive the terminal.
fn show_console(text: &[u8]) {
    for line in String::from_utf8_lossy(text).lines() {
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
        other => other.class_while(Class::Config, format!("cannot read {name}")),
    }
}
