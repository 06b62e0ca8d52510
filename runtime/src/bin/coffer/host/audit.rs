//! `coffer audit`: what was done on this host, as its trail has it.

use std::process::ExitCode;

use coffer_rim::foreign;
use coffer_runtime::boxes::unix_ms;
use coffer_runtime::trail::{Checked, Line, Lines, MENDED, Mended, OF_BOXES, Outcome, Trail, check};
use serde_json::{Map, Value, json};

use crate::boxes::filters;
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::exits::Exits;
use crate::row::{self, Does, Entry};
use crate::table;

/// Show what was done on this host: commands, what came of them, and what happened to boxes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each line is about one act, and holds the digest of the line before it: `coffer audit verify` finds what was changed, removed or moved.
A command has a line before it does anything (begun) and one that says what came of it. The last 16 MiB are kept.
Whoever is root here, or has this home, can write all of it anew: it is no proof against them. Keep the last digest elsewhere for one.

Examples:
  coffer audit
  coffer audit --box web --action exec
  coffer audit --outcome refused --since 24h
  coffer --json audit --action box.die
  coffer audit verify"
)]
pub struct Args {
    /// This act alone, such as `exec` or `box.die`, or all of a word, such as `box` or `volume`.
    #[arg(long, value_name = "ACT")]
    action: Option<String>,
    /// With this outcome: begun, done, or the class of a failure, such as refused.
    #[arg(long, value_name = "OUTCOME", value_parser = outcome)]
    outcome: Option<Outcome>,
    /// About this box, by name, id or the beginning of one; also one that is gone.
    #[arg(long = "box", value_name = "BOX")]
    name: Option<String>,
    /// Not before this moment (RFC 3339, or seconds since 1970) or time ago.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// Check that no line was changed, removed or moved.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It follows the digests from the oldest line that is kept to the head beside them, and names the first line where they break. Exit 5 where they do.

A writer that finds the end otherwise than the last one left it goes on from there, and says so in a line (audit.mended). A loss of power does that, \
a writer that was killed, and whoever cuts lines off and takes the head away: exit 5 too, until somebody has looked and says up to which line.

Examples:
  coffer audit verify
  coffer audit verify --accept-mended-to 17
  coffer --json audit verify"
)]
pub struct VerifyArgs {
    /// Lines that say that the trail was mended are known and accepted up to this one.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    accept_mended_to: u64,
}

/// The row: it runs by itself, and has a command behind it.
pub const ENTRY: Entry = Entry {
    name: "audit",
    exits: Exits::Class,
    define: <Args as clap::Args>::augment_args,
    does: Does::Either(|matches, context| run(&row::parse::<Args>(matches)?, context), COMMANDS),
};

const COMMANDS: &[Entry] = &[command!("verify": VerifyArgs => verify)];

fn outcome(text: &str) -> Result<Outcome, String> {
    let words: Vec<_> = Outcome::all().map(Outcome::word).collect();
    let found = Outcome::all().find(|outcome| outcome.word() == text);
    found.ok_or_else(|| format!("outcomes are {}", words.join(", ")))
}

/// Shows them, oldest first.
fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let now = unix_ms().saturating_mul(1_000_000);
    let since = args.since.as_deref().map(|text| filters::moment_nanos(text, now)).transpose()?;
    let engine = context.engine()?;
    // The end of a box whose supervisor died belongs there too.
    engine.open().map_err(error::of)?;
    let id = args.name.as_deref().and_then(|name| engine.find(name).ok()).map(|found| found.id.to_string());
    let trail = engine.trail().map_err(error::of)?;
    let checked = check(trail.folder()).class_while(Class::Config, "cannot read the trail")?;
    let mut lines = Lines::all(trail.folder());
    let (mut known, mut about) =
        (args.action.as_deref().is_none_or(|wanted| is_act(wanted, context)), args.name.is_none() || id.is_some());
    let (mut shown, mut rows) = (Vec::new(), Vec::new());
    while let Some(line) = lines.next_line().class_while(Class::Config, "cannot read the trail")? {
        let is_act = args.action.as_deref().is_none_or(|wanted| is_of(&line.action, wanted));
        let is_about = args.name.as_deref().is_none_or(|name| {
            let mut named = (context.boxes_named)(&line.action, &line.names).into_iter();
            line.is_about(name) || id.as_deref().is_some_and(|id| line.is_about(id)) || named.any(|found| found == name)
        });
        (known, about) = (known || is_act, about || is_about);
        let wanted = is_act
            && is_about
            && args.outcome.is_none_or(|outcome| outcome.word() == line.outcome)
            && since.is_none_or(|since| line.nanos() >= since);
        match (wanted, context.json) {
            (true, true) => shown.push(json!(line)),
            (true, false) => rows.push(row_of(&line)),
            (false, _) => {}
        }
    }
    if let (false, Some(action)) = (known, &args.action) {
        let message = format!("no act is called '{}'", foreign(action));
        return Err(CliError::new(Class::Usage, message).hint(format!("acts are {}", all_acts(context).join(", "))));
    }
    if let (false, Some(name)) = (about, &args.name) {
        let message = format!("there is no box {}, and no line about one", foreign(name));
        return Err(CliError::new(Class::NotFound, message).hint("`coffer audit` shows every line that is kept"));
    }
    if let Some(doubt) = doubt(&checked, 0) {
        eprintln!("warning: {doubt}: see `coffer audit verify`");
    }
    if context.json {
        println!("{}", Value::from(shown));
    } else {
        table::print(&["NUMBER", "TIME", "ACT", "OUTCOME", "ABOUT", "UID", "DETAILS"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn is_of(action: &str, wanted: &str) -> bool {
    action.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ' ']))
}

/// Whether there are lines of it, or of what it begins.
fn is_act(wanted: &str, context: &Context) -> bool {
    all_acts(context).iter().any(|act| is_of(act, wanted))
}

fn all_acts(context: &Context) -> Vec<String> {
    let mut all = (context.acts)();
    all.extend(OF_BOXES.iter().chain([&MENDED]).map(|act| (*act).to_owned()));
    all.sort_unstable();
    all
}

/// Why not all of it is vouched for, if anything speaks against it. `accepted`: lines that say that it was mended are known up to here.
fn doubt(checked: &Checked, accepted: u64) -> Option<String> {
    if let Some(broken) = &checked.broken {
        return Some(format!("the trail is not as it was written: {broken}"));
    }
    let mut mended = checked.mended.iter().filter(|line| line.number > accepted);
    let Mended { number, details } = mended.next()?;
    let others = mended.count();
    let others = if others == 0 { String::new() } else { format!(", and in {others} later lines") };
    Some(format!("the trail was mended: line {number} says how it was found ({}){others}", foreign(&words(details))))
}

fn words(details: &Map<String, Value>) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let words: Vec<_> = details.iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
    words.join(" ")
}

fn row_of(line: &Line) -> Vec<String> {
    let boxes = line.boxes.iter().map(|found| found.name.as_str());
    let mut about: Vec<&str> = boxes.chain(line.names.iter().map(String::as_str)).collect();
    about.dedup();
    vec![
        line.number.to_string(),
        table::rfc3339(line.nanos() / 1_000_000),
        line.action.clone(),
        line.outcome.clone(),
        about.join(" "),
        line.login_uid.unwrap_or(line.uid).to_string(),
        words(&line.details),
    ]
}

/// Follows the chain.
fn verify(args: &VerifyArgs, context: &Context) -> Result<ExitCode, CliError> {
    let trail = Trail::at(context.open_home()?.trail());
    let checked = check(trail.folder()).class_while(Class::Config, "cannot read the trail")?;
    if let Some(doubt) = doubt(&checked, args.accept_mended_to) {
        let hint = match (&checked.broken, checked.mended.last()) {
            (None, Some(Mended { number, .. })) => format!(
                "a loss of power does that, and so does whoever cuts lines off: look at what stands around it; `coffer audit verify --accept-mended-to {number}` takes it as known"
            ),
            _ => "`coffer audit` shows what is there; what stands behind that line is not vouched for".to_owned(),
        };
        return Err(CliError::new(Class::NotAuthentic, doubt).hint(hint));
    }
    if context.json {
        println!(
            "{}",
            json!({
                "first": checked.first, "last": checked.last, "digest": checked.digest,
                "half_line_bytes": checked.half_line_bytes, "mended": checked.mended.iter().map(|line| line.number).collect::<Vec<_>>(),
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("lines {} to {} follow one another; sha256 of the last: {}", checked.first, checked.last, checked.digest);
    if checked.half_line_bytes > 0 {
        println!(
            "a line behind them was never finished ({} bytes): the next writer cuts it off",
            checked.half_line_bytes
        );
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_meant_by_itself_or_by_its_first_word() {
        for (action, wanted, is_it) in [
            ("box.die", "box.die", true),
            ("box.die", "box", true),
            ("volume rm", "volume", true),
            ("box.die", "bo", false),
            ("exec", "exec", true),
            ("box", "box.die", false),
        ] {
            assert_eq!(is_of(action, wanted), is_it, "{action} {wanted}");
        }
        assert!(outcome("refused").is_ok() && outcome("begun").is_ok());
        assert!(outcome("fine").unwrap_err().contains("not-authentic"));
    }
}
