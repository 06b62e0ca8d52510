//! `coffer-kbs audit verify|archive`: also beside a running server.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use coffer_kbs::{ArchivesSummary, AuditSummary, Compared, Reach, Store};
use coffer_rim::{Class, Classify as _, Failure, input};
use serde_json::json;
use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use crate::error::OrFail as _;

/// What to do with the trail.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check every line's MAC, the chain, the end mark, and every row that decides something.
    #[command(after_help = "Examples:\n  coffer-kbs audit verify --state ./kbs\n  \
                            coffer-kbs audit verify --state ./kbs --log kbs.log\n  \
                            coffer-kbs audit verify --state ./kbs --archive audit-2025.jsonl \\\n      --archive audit-2026.jsonl")]
    Verify {
        /// State folder.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// An archive of this database; all of them, in any order. Without any, lines that are archived are named, and not looked at.
        #[arg(long, value_name = "FILE", num_args = 1..)]
        archive: Vec<PathBuf>,
        /// What `coffer-kbs serve` printed, kept elsewhere: each line of the trail in it must be in the database as well, or in an
        /// archive.
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
    },
    /// Move old lines into a file that proves itself, with what policies saw of their decisions. The server may run.
    #[command(
        after_help = "Examples:\n  coffer-kbs audit archive --state ./kbs --before 2027-01-01 \\\n      --out audit-2026.jsonl\n  \
                            coffer-kbs audit archive --state ./kbs --keep 100000 --out audit-1.jsonl"
    )]
    Archive(ArchiveArgs),
}

/// Arguments of `archive`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("reach").required(true)))]
pub struct ArchiveArgs {
    /// State folder.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Lines before this day or time (RFC 3339, UTC for a day).
    #[arg(long, value_name = "TIME", group = "reach", value_parser = moment)]
    before: Option<i64>,
    /// All lines but the last N.
    #[arg(long, value_name = "N", group = "reach")]
    keep: Option<u64>,
    /// File to write; one that is there stays, and nothing happens.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Does it.
pub fn run(command: &Command, as_json: bool) -> Result<(), Failure> {
    match command {
        Command::Verify { state, archive, log } => verify(state, archive, log.as_deref(), as_json),
        Command::Archive(args) => archive(args, as_json),
    }
}

/// Checks the trail.
fn verify(state: &Path, archives: &[PathBuf], log: Option<&Path>, as_json: bool) -> Result<(), Failure> {
    let (AuditSummary { lines, archived, head, rows, lost }, found, looked) = crate::event_loop::event_loop()?
        .block_on(async {
            let store = coffer_kbs::open_store(state).await.or_fail()?;
            let found = match log {
                Some(log) => compared(&store, log).await?,
                None => Compared::default(),
            };
            let summary = store.verify_audit().await.or_fail()?;
            let looked = if archives.is_empty() {
                ArchivesSummary::default()
            } else {
                coffer_kbs::verify_archives(&store, archives, &found.archived).await.or_fail()?
            };
            Ok::<_, Failure>((summary, found, looked))
        })?;
    let compared = found.lines + looked.compared;
    let only_there = found.lost;
    let not_compared = found.archived.len() as u64 - looked.compared;
    if let Some(log) = log.filter(|_| compared > 0 && not_compared > 0) {
        let some = format!("{not_compared} lines of {} are archived, and were not compared", log.display());
        return Err(Failure::new(Class::Config, some).hint("give the archives too, with --archive"));
    }
    if compared == 0
        && let Some(log) = log
    {
        let none = format!("no whole line of an audit trail that is here stands in {}", log.display());
        let hint = if not_compared > 0 {
            "its lines are archived: give the archives too, with --archive"
        } else {
            "give what `coffer-kbs serve` printed, or an export"
        };
        return Err(Failure::new(Class::Config, none).hint(hint));
    }
    if as_json {
        coffer_rim::println!(
            "{}",
            json!({
                "ok": true, "lines": lines, "archived": archived, "archives": looked.files, "head": head, "rows": rows,
                "compared": compared, "lost": lost, "lost_in_log": only_there,
            })
        );
        return Ok(());
    }
    coffer_rim::println!("audit trail holds: {lines} lines, head {head}; {rows} rows are as written");
    if lost > 0 {
        coffer_rim::println!(
            "{lost} of them are lost, as somebody accepted: `coffer kbs audit --event audit.lost` prints what stands in their place"
        );
    }
    match (archived, looked.files) {
        (0, _) => {}
        (_, 0) => coffer_rim::println!(
            "lines 1 to {archived} are archived, and were not looked at: give the files with --archive"
        ),
        (_, files) => coffer_rim::println!("lines 1 to {archived} are in {files} archives, each as it was written"),
    }
    if let Some(log) = log {
        coffer_rim::println!("{compared} lines of {} are in it", log.display());
        if only_there > 0 {
            coffer_rim::println!(
                "{only_there} lines of it were lost here, as the trail says in their place: keep that copy"
            );
        }
    }
    Ok(())
}

/// Compares a copy of the log, some megabytes at a time.
async fn compared(store: &Store, log: &Path) -> Result<Compared, Failure> {
    const HINT: &str = "this database was set back or is another, or the copy was changed: find out who did it";
    let reading = || format!("the copy of the log {}", log.display());
    let file = File::open(log).class_while(Class::Config, reading())?;
    let (mut all, mut piece) = (Compared::default(), String::new());
    let mut lines = input::lines(BufReader::new(file), PIECE);
    loop {
        let line = lines.next().transpose().class_while(Class::Config, reading())?;
        let ended = line.is_none();
        piece.push_str(&line.unwrap_or_default());
        if ended || piece.len() as u64 > PIECE {
            let found = store.verify_against(&piece).await.or_fail()?;
            let found = found.map_err(|fault| Failure::caused(Class::NotAuthentic, &fault).hint(HINT))?;
            all = all.and(found).map_err(|line| {
                Failure::new(
                    Class::NotAuthentic,
                    format!("line {line} stands twice in {}, each time otherwise", log.display()),
                )
                .hint(HINT)
            })?;
            piece.clear();
        }
        if ended {
            return Ok(all);
        }
    }
}

/// Bytes that are held of a copy; no line of a trail is as long.
const PIECE: u64 = 4 * 1024 * 1024;

/// Moves lines into a file.
fn archive(args: &ArchiveArgs, as_json: bool) -> Result<(), Failure> {
    let reach = match (args.before, args.keep) {
        (Some(time), _) => Reach::Before(time),
        (None, kept) => Reach::AllBut(kept.unwrap_or(u64::MAX)),
    };
    let done =
        crate::event_loop::event_loop()?.block_on(coffer_kbs::archive(&args.state, reach, &args.out)).or_fail()?;
    if as_json {
        let mut value = json!(done);
        value["file"] = json!(args.out);
        coffer_rim::println!("{value}");
        return Ok(());
    }
    let (out, first, last) = (args.out.display(), done.first, done.last);
    coffer_rim::println!(
        "{out} has audit lines {first} to {last}, and {} inputs of policies; head {}",
        done.inputs,
        done.head
    );
    coffer_rim::println!(
        "they are no longer in the database, which recorded SHA-256 {}: keep the file, and copies of it",
        done.sha256
    );
    Ok(())
}

/// A day or a time.
fn moment(text: &str) -> Result<i64, String> {
    let day = Date::parse(text, format_description!("[year]-[month]-[day]"));
    let time = day.map(|day| day.midnight().assume_utc()).or_else(|_| OffsetDateTime::parse(text, &Rfc3339));
    time.map(OffsetDateTime::unix_timestamp)
        .map_err(|_| "expected a day, 2027-01-01, or a time, 2027-01-01T00:00:00Z".into())
}
