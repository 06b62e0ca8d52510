//! `coffer logs`.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use coffer_guest_proto::control_client::ControlClient;
use coffer_guest_proto::{LogsRequest, Stream};
use coffer_runtime::boxes::files;
use coffer_runtime::lock::BoxLock;
use coffer_runtime::supervisor::message::LogPiece;
use coffer_runtime::supervisor::{former, of_state};
use coffer_runtime::{BoxRecord, BoxState, Home, agent, owner_access};
use coffer_spec::{Act, Document};
use tonic::transport::Channel;

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::guest::{self, Trust};
use crate::live::print;

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
        "all" | "-1" => usize::MAX,
        number => number.parse().map_err(|_| {
            CliError::new(Class::Usage, format!("invalid value {number:?} for --tail: expected a number or `all`"))
        })?,
    };
    let (home, state) = context.open_state()?;
    let record = state.find(&args.name).map_err(of_state)?;
    let folder = home.box_folder(&record.id);
    if args.console {
        for path in [former(&folder.join(files::CONSOLE)), folder.join(files::CONSOLE)] {
            let text = std::fs::read(path).unwrap_or_default();
            // The guest wrote this: nothing of it may drive the terminal.
            let lines = String::from_utf8_lossy(&text)
                .chars()
                .filter(|c| *c == '\n' || *c == '\t' || !c.is_control())
                .collect::<String>();
            let _ = std::io::stdout().write_all(lines.as_bytes());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let document = guest::document(&home, &record)?;
    if document.spec().host_may.contains(Act::Logs) {
        from_file(&folder, tail, args.follow);
        return Ok(ExitCode::SUCCESS);
    }
    may_as_owner(&home, &record, &document)?;
    context.runtime()?.block_on(as_owner(context, &home, &record, &args.trust, tail, args.follow))?;
    Ok(ExitCode::SUCCESS)
}

/// Output lives in the guest alone where the host may not read it.
fn may_as_owner(home: &Home, record: &BoxRecord, document: &Document) -> Result<(), CliError> {
    let name = &record.name;
    if record.state != BoxState::Running {
        return Err(CliError::new(
            Class::Refused,
            format!("the spec of {name} does not let the host read its output, and the guest that had it is gone"),
        ));
    }
    guest::owner_listed(home, document, name, Act::Logs)
}

fn from_file(folder: &Path, tail: usize, follow: bool) {
    let path = folder.join(files::LOG);
    let mut kept = VecDeque::new();
    for part in [former(&path), path.clone()] {
        let Ok(file) = std::fs::File::open(part) else { continue };
        for piece in BufReader::new(file).lines().map_while(Result::ok).filter_map(|line| parse(&line)) {
            if kept.len() >= tail {
                kept.pop_front();
            }
            if tail > 0 {
                kept.push_back(piece);
            }
        }
    }
    kept.iter().for_each(print);
    if follow {
        follow_file(folder, &path);
    }
}

fn parse(line: &str) -> Option<LogPiece> {
    serde_json::from_str(line).ok()
}

/// Polls for new lines until the box has ended; a file that was started anew is read from its beginning.
fn follow_file(folder: &Path, path: &Path) {
    use std::io::{Seek as _, SeekFrom};
    let mut position = std::fs::metadata(path).map_or(0, |found| found.len());
    loop {
        let alive = BoxLock::is_held(folder);
        let length = std::fs::metadata(path).map_or(0, |found| found.len());
        if length < position {
            position = 0;
        }
        if length > position
            && let Ok(mut file) = std::fs::File::open(path)
            && file.seek(SeekFrom::Start(position)).is_ok()
        {
            let mut reader = BufReader::new(file);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 0 && line.ends_with('\n')) {
                position += line.len() as u64;
                if let Some(piece) = parse(&line) {
                    print(&piece);
                }
                line.clear();
            }
        }
        if !alive {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Fetches output as owner, from a guest that proves itself first.
async fn as_owner(
    context: &Context,
    home: &Home,
    record: &BoxRecord,
    trust: &Trust,
    tail: usize,
    follow: bool,
) -> Result<(), CliError> {
    let connection = guest::connect(context, home, record, trust).await?;
    let control = ControlClient::new(connection.channel());
    connection.kept(show(control, tail, follow)).await.map_err(|lapsed| owner_access::lapsed(&lapsed))?
}

async fn show(mut control: ControlClient<Channel>, tail: usize, follow: bool) -> Result<(), CliError> {
    let request = LogsRequest { follow, from_sequence: 0 };
    let answer = control.logs(request).await.map_err(|status| agent::of_status(&status))?;
    let mut pieces = answer.into_inner();
    let mut kept = VecDeque::new();
    while let Some(piece) = pieces.message().await.map_err(|status| agent::of_status(&status))? {
        let piece = LogPiece::new(piece.stream == i32::from(Stream::Stderr), piece.unix_nanos, piece.data);
        if follow {
            print(&piece);
        } else {
            kept.push_back(piece);
            if kept.len() > tail {
                kept.pop_front();
            }
        }
    }
    kept.iter().for_each(print);
    Ok(())
}

/// Shows the output of a simulated box of ours from its first byte to its end.
pub async fn follow_as_owner(context: &Context, home: &Home, record: &BoxRecord) -> Result<(), CliError> {
    let document = guest::document(home, record)?;
    guest::owner_listed(home, &document, &record.name, Act::Logs)?;
    as_owner(context, home, record, &Trust::of_own_simulator(record), usize::MAX, true)
        .await
        .map_err(|failure| failure.while_doing("as owner"))
}

/// Reads a file or standard input, at most so many bytes.
pub fn read_input(path: Option<&Path>, limit: u64) -> Result<Vec<u8>, CliError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let (name, read) = match path {
        Some(path) if path != Path::new("-") => {
            let file =
                std::fs::File::open(path).class_while(Class::Config, format!("cannot read {}", path.display()))?;
            (path.display().to_string(), file.take(limit + 1).read_to_end(&mut bytes))
        }
        _ => ("standard input".to_string(), std::io::stdin().lock().take(limit + 1).read_to_end(&mut bytes)),
    };
    read.class_while(Class::Config, format!("cannot read {name}"))?;
    if bytes.len() as u64 > limit {
        return Err(CliError::new(Class::Usage, format!("{name} is longer than {limit} bytes")));
    }
    Ok(bytes)
}
