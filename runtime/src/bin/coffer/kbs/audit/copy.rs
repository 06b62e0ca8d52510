//! A copy of the whole trail in a file, and whether one is whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_kbs_client::{
    AdminClient, AuditPage, AuditQuery, ClientError,
    trail::{Chain, ChainError, End, LostLines},
};
use coffer_rim::file::Writer;
use coffer_rim::input;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::kbs::broker::{Broker, unread};

/// Write the whole trail into a file, one line each, and behind them where it ends.
///
/// What is written is checked as `verify` checks it. Lines that are archived are not at the broker any more: the copy begins behind them,
/// and says so at its end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs audit export trail.jsonl
  coffer kbs audit export trail.jsonl --replace
  coffer kbs audit export acme.jsonl --tenant acme")]
pub struct ExportArgs {
    /// File to write; one that is there stays, and a pipe or a device is written into.
    file: PathBuf,
    /// Where a file is there already, replace it: lines that were archived since it was written are in no new one.
    #[arg(long)]
    replace: bool,
    /// Lines of this tenant alone, for an auditor of it: a part of the trail, in which nothing shows that no line is missing.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

/// Writes it.
pub fn export(args: &ExportArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    // Asked once more when it gets its name; nobody waits for a copy that cannot have one.
    if !args.replace && args.file.metadata().is_ok_and(|there| there.is_file()) {
        return Err(there_already(&args.file));
    }
    if let Some(tenant) = &args.tenant {
        let part = write(args, |out| part(broker, tenant, out))?;
        let (row, file, tenant) = (json!({ "file": args.file, "part": part }), args.file.display(), &part.tenant);
        broker.say(&row, || {
            format!(
                "{file} has the {} lines of tenant {tenant}, of a trail that ends with line {}",
                part.lines, part.trail_lines
            )
        });
        return Ok(ExitCode::SUCCESS);
    }
    let end = write(args, |out| pages(broker, None, |line| writeln!(out, "{line}")).map(|(end, _)| end))?;
    let row = json!({ "file": args.file, "first": end.first, "lines": end.lines, "head": end.head });
    broker.say(&row, || match end.first {
        1 => format!("{} has {} lines, head {}", args.file.display(), end.lines, end.head),
        first => {
            let (file, archived) = (args.file.display(), first - 1);
            format!("{file} has lines {first} to {}, head {}; lines 1 to {archived} are archived", end.lines, end.head)
        }
    });
    Ok(ExitCode::SUCCESS)
}

/// Writes a file of lines, and behind them what they are.
fn write<T: Serialize>(
    args: &ExportArgs,
    lines: impl FnOnce(&mut dyn io::Write) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let writer = if args.replace { Writer::private() } else { Writer::private().new_only() };
    let mut asked = Ok(());
    let mut end = None;
    let written = writer.into_pipes().write_with(&args.file, |file| {
        let mut out = BufWriter::new(file);
        match lines(&mut out) {
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
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => there_already(&args.file),
        _ => CliError::caused(Class::Config, &error).while_doing(format_args!("writing {}", args.file.display())),
    })?;
    end.ok_or_else(|| CliError::new(Class::Internal, "an export without an end"))
}

/// The last line of a copy that holds a tenant's lines alone.
#[derive(Serialize, Deserialize)]
struct Part {
    tenant: String,
    lines: u64,
    trail_lines: u64,
    trail_head: String,
}

/// Gives on each line of a tenant. Says where the trail ended meanwhile.
fn part(broker: &Broker<'_>, tenant: &str, out: &mut dyn io::Write) -> Result<Part, CliError> {
    let mut failed = Ok(());
    let part = broker.ask(async |client| {
        let (mut query, mut lines) = (AuditQuery { tenant: Some(tenant.to_owned()), ..AuditQuery::default() }, 0);
        loop {
            let page = page(client, &query).await?;
            for one in &page.lines {
                lines += 1;
                failed = writeln!(out, "{one}").class_while(Class::Config, "writing the copy");
                if failed.is_err() {
                    break;
                }
            }
            match page.next {
                Some(next) if failed.is_ok() && query.from.is_none_or(|from| next > from) => query.from = Some(next),
                _ => {
                    let (trail_lines, trail_head) = (page.end, hex::encode(page.head));
                    return Ok(Part { tenant: tenant.to_owned(), lines, trail_lines, trail_head });
                }
            }
        }
    })?;
    failed.map(|()| part)
}

/// True of a file that says so of itself.
fn says_it_is_a_part(file: &Path) -> bool {
    let last = File::open(file).ok().and_then(|file| lines(BufReader::new(file)).map_while(Result::ok).last());
    last.is_some_and(|last| serde_json::from_str::<Part>(&last).is_ok())
}

fn there_already(file: &Path) -> CliError {
    CliError::new(Class::Config, format!("{} is there already, and stays as it is", file.display()))
        .hint("name another file, or say --replace; what was archived since is in no new copy")
}

/// Check that a trail is whole: files that `export` and `coffer-kbs audit archive` wrote, in their order, or the broker's own.
///
/// Each line names the SHA-256 of the line before it: nothing between the first and the end was changed, removed or added. Who wrote the
/// lines only `coffer-kbs audit verify` can say, at the broker, by MACs under the root key. Note the head elsewhere, and
/// give it with --head next time: a trail without it is another, or was cut.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs audit verify trail.jsonl
  coffer kbs audit verify audit-2025.jsonl audit-2026.jsonl trail.jsonl
  coffer kbs audit verify \\
      --head 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")]
pub struct VerifyArgs {
    /// Files that `export` wrote, or archives, oldest first: each goes on where the one before ends. Left out, the broker is asked.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// SHA-256 of a line that must be in it, as an earlier `export` or `verify` printed it: 64 hex digits.
    #[arg(long, value_name = "HEX", value_parser = head)]
    head: Option<String>,
}

/// Checks it.
pub fn verify(args: &VerifyArgs, whom: &crate::kbs::Args, context: &Context) -> Result<ExitCode, CliError> {
    let noted = args.head.as_deref();
    let (end, lost, what) = if let Some(last) = args.files.last() {
        let (first, end, lost) = check_files(&args.files, noted)?;
        let what = match args.files.len() {
            1 => last.display().to_string(),
            files => format!("the trail in {files} files"),
        };
        (End { first, ..end }, lost, what)
    } else {
        let (end, lost) = pages(&whom.broker(context)?, noted, |_| Ok(()))?;
        (end, lost, "the broker's trail".to_owned())
    };
    let End { first, lines, head, .. } = end;
    if context.json {
        let lost: Vec<_> =
            lost.iter().map(|LostLines { first, last, .. }| json!({ "first": first, "last": last })).collect();
        println!("{}", json!({ "whole": lost.is_empty(), "first": first, "lines": lines, "head": head, "lost": lost }));
        return Ok(ExitCode::SUCCESS);
    }
    let what = coffer_rim::foreign(&what);
    if !lost.is_empty() {
        println!(
            "{what} holds from line {first} to {lines}, head {head}, but for lines that an owner accepted as lost:"
        );
        for LostLines { first, last, .. } in &lost {
            println!("lines {first} to {last}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    match first.saturating_sub(1) {
        0 => println!("{what} is whole: {lines} lines, head {head}"),
        before => println!(
            "{what} is whole from line {first} to {lines}, head {head}; lines 1 to {before} are in archives before it"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines of a file that somebody named, without their ends.
fn lines(from: impl BufRead) -> impl Iterator<Item = io::Result<String>> {
    input::lines(from, LONGEST).map(|line| line.map(|line| line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Bytes of a line, with what a policy saw and JSON's escapes: more than a broker lets any have.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Checks files one after the other. Gives the number of the first line, and where the last file ends.
fn check_files(files: &[PathBuf], noted: Option<&str>) -> Result<(u64, End, Vec<LostLines>), CliError> {
    let (mut chain, mut first, mut last) = (Chain::anywhere(noted), None, None);
    for file in files {
        let reading = || format!("reading {}", file.display());
        let open = File::open(file).map_err(|error| unread(&error, file))?;
        let lines =
            lines(BufReader::new(open)).map(|line| line.class_while(Class::Config, reading()).map_err(Bad::Read));
        let end = chain.file(lines, |_| ()).map_err(|bad| match bad {
            Bad::Read(error) => error,
            Bad::Chain(_) if says_it_is_a_part(file) => CliError::new(
                Class::Config,
                format!("{} has the lines of one tenant alone, as it says at its end", file.display()),
            )
            .hint("a part does not show which lines are missing: export the whole trail, or ask whoever may"),
            Bad::Chain(error) if files.len() == 1 => broken(&error),
            Bad::Chain(error) => broken(&error).while_doing(format!("{}, behind the file before it", file.display())),
        })?;
        first.get_or_insert(end.first);
        last = Some(end);
    }
    let lost = chain.lost().to_vec();
    chain.finish().map_err(|error| broken(&error))?;
    match (first, last) {
        (Some(first), Some(last)) => Ok((first, last, lost)),
        _ => Err(broken(&ChainError::NoEnd)),
    }
}

/// Why a file is not believed.
enum Bad {
    Read(CliError),
    Chain(ChainError),
}

impl From<ChainError> for Bad {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

/// Asks for the whole trail, checks it, and gives each line on. Where it begins, and where it ended with the last line.
fn pages(
    broker: &Broker<'_>,
    noted: Option<&str>,
    mut line: impl FnMut(&str) -> io::Result<()>,
) -> Result<(End, Vec<LostLines>), CliError> {
    let mut failed: Result<(), CliError> = Ok(());
    let mut chain = None;
    let stated = broker.ask(async |client| {
        let mut query = AuditQuery::default();
        loop {
            let page = page(client, &query).await?;
            let before = (page.start - 1, hex::encode(&page.previous));
            // Archives that are made meanwhile change nothing about what was begun.
            let chain = chain.get_or_insert_with(|| match page.start {
                0 | 1 => Chain::whole(noted),
                _ => Chain::after(before.0, &before.1, noted),
            });
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
                _ => return Ok(End { lines: page.end, head: hex::encode(page.head), ..chain.end() }),
            }
        }
    })?;
    failed?;
    let mut chain = chain.ok_or_else(|| broken(&ChainError::NoEnd))?;
    let end = chain.ends(&stated).map_err(|error| broken(&error))?;
    let lost = chain.lost().to_vec();
    chain.finish().map_err(|error| broken(&error)).map(|()| (end, lost))
}

async fn page(client: &AdminClient, query: &AuditQuery) -> Result<AuditPage, ClientError> {
    client.audit_page(query, PAGE).await
}

const PAGE: u32 = 1000;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_the_file_and_none_is_without_an_end() {
        let all: Vec<_> = lines(&b"one\r\ntwo\n\nlast"[..]).map(Result::unwrap).collect();
        assert_eq!(all, ["one", "two", "", "last"]);
        // As a device would give it that never ends a line.
        let mut endless = lines(BufReader::new(io::repeat(0)));
        assert!(endless.next().unwrap().unwrap_err().to_string().contains("longer than any"));
        assert!(endless.next().is_none());
        assert!(lines(&[0xff, b'\n'][..]).next().unwrap().is_err());
    }
}
