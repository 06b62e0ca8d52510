//! A copy of the whole trail in a file, and whether one is whole.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_kbs_client::{AdminClient, AuditPage, AuditQuery, ClientError};
use coffer_rim::file::Writer;
use serde_json::json;

use super::chain::{Chain, ChainError, End};
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::kbs::broker::Broker;

/// Write the whole trail into a file, one line each, and behind them where it ends.
///
/// What is written is checked as `verify` checks it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs audit export trail.jsonl")]
pub struct ExportArgs {
    /// File to write; one that is there is replaced, and a pipe or a device is written into.
    file: PathBuf,
}

/// Writes it.
pub fn export(args: &ExportArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let mut asked = Ok(());
    let mut end = None;
    let written = Writer::private().into_pipes().write_with(&args.file, |file| {
        let mut out = BufWriter::new(file);
        let mut chain = Chain::new(None);
        let done = pages(broker, &mut chain, |line| writeln!(out, "{line}"));
        match done.and_then(|stated| finish(chain, &stated)) {
            Ok(whole) => {
                writeln!(out, "{}", json!(whole))?;
                end = Some(whole);
                out.flush()
            }
            Err(error) => {
                asked = Err(error);
                Err(io::Error::other("the trail could not be read"))
            }
        }
    });
    asked?;
    written.class_while(Class::Config, format_args!("writing {}", args.file.display()))?;
    let end = end.ok_or_else(|| CliError::new(Class::Internal, "an export without an end"))?;
    let row = json!({ "file": args.file, "lines": end.lines, "head": end.head });
    broker.say(&row, || format!("{} has {} lines, head {}", args.file.display(), end.lines, end.head));
    Ok(ExitCode::SUCCESS)
}

/// Check that a trail is whole: a file that `export` wrote, or the broker's own.
///
/// Each line names the SHA-256 of the line before it: nothing between the first and the end was changed, removed or added. Who wrote the
/// lines only `coffer-kbs audit verify` can say, at the broker, by MACs under the root key. Note the head elsewhere, and
/// give it with --head next time: a trail without it is another, or was cut.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs audit verify trail.jsonl
  coffer kbs audit verify \\
      --head 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")]
pub struct VerifyArgs {
    /// File that `export` wrote; left out, the broker is asked.
    file: Option<PathBuf>,
    /// SHA-256 of a line that must be in it, as an earlier `export` or `verify` printed it: 64 hex digits.
    #[arg(long, value_name = "HEX", value_parser = head)]
    head: Option<String>,
}

/// Checks it.
pub fn verify(args: &VerifyArgs, whom: &crate::kbs::Args, context: &Context) -> Result<ExitCode, CliError> {
    let noted = args.head.as_deref();
    let (end, what) = if let Some(file) = &args.file {
        (check_file(file, noted)?, file.display().to_string())
    } else {
        let broker = whom.broker(context)?;
        let mut chain = Chain::new(noted);
        let stated = pages(&broker, &mut chain, |_| Ok(()))?;
        (finish(chain, &stated)?, "the broker's trail".to_owned())
    };
    if context.json {
        println!("{}", json!({ "whole": true, "lines": end.lines, "head": end.head }));
    } else {
        println!("{} is whole: {} lines, head {}", coffer_rim::foreign(&what), end.lines, end.head);
    }
    Ok(ExitCode::SUCCESS)
}

fn check_file(file: &Path, noted: Option<&str>) -> Result<End, CliError> {
    let reading = || format!("reading {}", file.display());
    let open = File::open(file).class_while(Class::Config, reading())?;
    let (mut chain, mut stated) = (Chain::new(noted), None);
    for line in BufReader::new(open).lines() {
        let line = line.class_while(Class::Config, reading())?;
        if stated.is_some() {
            return Err(broken(&ChainError::BehindTheEnd));
        }
        match serde_json::from_str::<End>(&line) {
            Ok(end) => stated = Some(end),
            Err(_) => chain.next(&line).map_err(|error| broken(&error))?,
        }
    }
    finish(chain, &stated.ok_or_else(|| broken(&ChainError::NoEnd))?)
}

/// Asks for the whole trail, and gives each line on. Where it ended with the last of them.
fn pages(
    broker: &Broker<'_>,
    chain: &mut Chain,
    mut line: impl FnMut(&str) -> io::Result<()>,
) -> Result<End, CliError> {
    let mut failed: Result<(), CliError> = Ok(());
    let end = broker.ask(async |client| {
        let mut query = AuditQuery::default();
        loop {
            let page = page(client, &query).await?;
            for one in &page.lines {
                let next = chain.next(one).map_err(|error| broken(&error));
                failed = next.and_then(|()| line(one).class_while(Class::Config, "writing the copy"));
                if failed.is_err() {
                    return Ok(chain.end());
                }
            }
            match page.next {
                // More may have been written meanwhile: the end that counts is the one these lines were read with.
                Some(next) if next <= page.end => query.from = Some(next),
                _ => return Ok(End { lines: page.end, head: hex::encode(page.head) }),
            }
        }
    })?;
    failed.map(|()| end)
}

async fn page(client: &AdminClient, query: &AuditQuery) -> Result<AuditPage, ClientError> {
    client.audit_page(query, PAGE).await
}

const PAGE: u32 = 1000;

fn finish(chain: Chain, stated: &End) -> Result<End, CliError> {
    chain.finish(stated).map_err(|error| broken(&error))
}

fn broken(error: &ChainError) -> CliError {
    let hint = "compare it with another copy; `coffer-kbs audit verify` at the broker says which lines are its own";
    CliError::caused(Class::NotAuthentic, error).hint(hint)
}

fn head(text: &str) -> Result<String, String> {
    match hex::decode(text) {
        Ok(bytes) if bytes.len() == 32 => Ok(text.to_lowercase()),
        _ => Err("expected 64 hex digits".into()),
    }
}
