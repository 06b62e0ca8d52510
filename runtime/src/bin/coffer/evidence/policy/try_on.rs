//! `coffer policy try`: what a policy would say of decisions that were recorded.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_policies::decision_log::{RecordError, Recorded};
use coffer_policies::trial::{Tried, again};
use coffer_policies::{INPUT_LIMIT, Policy};
use coffer_rim::{foreign, input};
use coffer_verifier::said::json_error;
use serde_json::{Value, json};

use super::explain::read_input;
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::rego;

/// Say who would be refused, and who no more, of decisions that were recorded.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing is decided. What the typed policy refused stays refused. Exit status: 0 tried, 3 a record that cannot be read, or none at all.

Examples:
  coffer verify report.bin --certs certs --decision-log log.jsonl
  coffer policy try next.rego --on log.jsonl
  coffer policy try next.rego --against team.rego --on inputs/")]
pub struct Args {
    #[command(flatten)]
    texts: rego::Texts,

    /// What was recorded: a log of decisions, one line of JSON each, or a folder of inputs, *.json.
    #[arg(long, value_name = "FILE|DIR")]
    on: PathBuf,

    /// Compare with what this policy says, not with what was said then.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// Most records.
const RECORDS: usize = 100_000;
/// Longest line: an input, and what a log has around it.
const LINE: usize = INPUT_LIMIT + 64 * 1024;

/// Tries.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let policy = args.texts.load()?.policy()?;
    if let Some(path) = &args.against {
        args.texts.bundles.asked(std::slice::from_ref(path))?;
    }
    let against = match &args.against {
        Some(path) => Some(rego::load(std::slice::from_ref(path), &args.texts.bundles)?.policy()?),
        None => None,
    };
    let (mut tried, mut without) = (Vec::new(), 0_usize);
    let mut each = |at: &str, record: &Recorded| match again(&policy, against.as_ref(), at, record) {
        Some(one) => tried.push(one),
        None => without += 1,
    };
    if args.on.is_dir() {
        folder(&args.on, &mut each)?;
    } else {
        log(&args.on, &mut each)?;
    }
    if tried.is_empty() && without == 0 {
        let message = format!("{}: nothing is recorded there, so nothing was tried", args.on.display());
        return Err(CliError::new(Class::Config, message).hint(
            "name a log that `coffer verify --decision-log FILE` wrote, or a folder of inputs, NAME.json each, as `coffer policy input` \
             prints them",
        ));
    }
    say(&tried, without, context, &policy);
    Ok(ExitCode::SUCCESS)
}

fn say(tried: &[Tried], without: usize, context: &Context, policy: &Policy) {
    let count =
        |before: bool, after: bool| tried.iter().filter(|one| one.before == Some(before) && one.after == after).count();
    let (refused, accepted) = (count(true, false), count(false, true));
    let of_unknown = |after: bool| tried.iter().filter(|one| one.before.is_none() && one.after == after).count();
    let unknown = (of_unknown(false), of_unknown(true));
    if context.json {
        let value = json!({
            "decisions": tried, "would_be_refused": refused, "would_be_accepted": accepted, "without_input": without,
            "of_unknown": { "refused": unknown.0, "accepted": unknown.1 },
        });
        println!("{value}");
        return;
    }
    let word = |answer: bool| if answer { "accepted" } else { "refused" };
    for one in tried {
        let before = one.before.map_or("unknown", word);
        let masked = if one.masked { " (parts are masked)" } else { "" };
        let line = format!("{before:<8} -> {:<8}  {}{masked}  {}", word(one.after), one.id, one.reasons.join("; "));
        println!("{}", foreign(line.trim_end()));
    }
    let known = tried.len() - unknown.0 - unknown.1;
    let plural = if known == 1 { "" } else { "s" };
    println!("{known} decision{plural}: {refused} would be refused, {accepted} accepted");
    if unknown != (0, 0) {
        println!(
            "{} more {} nothing of what was decided then: {} refused, {} accepted now; --against compares with a policy",
            unknown.0 + unknown.1,
            if unknown.0 + unknown.1 == 1 { "says" } else { "say" },
            unknown.0,
            unknown.1
        );
    }
    if without > 0 {
        println!(
            "{without} more {} not tried: {} sees nothing of evidence that is not authentic",
            if without == 1 { "was" } else { "were" },
            foreign(policy.name())
        );
    }
}

fn folder(path: &Path, each: &mut impl FnMut(&str, &Recorded)) -> Result<(), CliError> {
    let reading = || format!("reading {}", path.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).class_while(Class::Config, reading())? {
        // What is called so and cannot be read is said: nothing that was recorded is passed over.
        let path = entry.class_while(Class::Config, reading())?.path();
        if path.extension().is_some_and(|end| end == "json") {
            names.push(path);
        }
    }
    at_most(names.len(), path)?;
    names.sort();
    for name in names {
        let at = name.display().to_string();
        each(&at, &recorded(&at, read_input(&name)?)?);
    }
    Ok(())
}

fn log(path: &Path, each: &mut impl FnMut(&str, &Recorded)) -> Result<(), CliError> {
    let reading = || format!("reading {}", path.display());
    let mut file = BufReader::new(input::open(path).class_while(Class::Config, reading())?);
    let mut line = Vec::new();
    for number in 1_usize.. {
        line.clear();
        let read = file.by_ref().take(LINE as u64 + 1).read_until(b'\n', &mut line);
        if read.class_while(Class::Config, reading())? == 0 {
            break;
        }
        at_most(number, path)?;
        let at = format!("{}:{number}", path.display());
        if line.len() > LINE {
            return Err(CliError::new(Class::Config, format!("{at}: longer than {LINE} bytes")));
        }
        if !line.trim_ascii().is_empty() {
            let value = serde_json::from_slice(&line).map_err(|error| {
                // Each line is a text by itself.
                CliError::new(Class::Config, format!("{at}: {}", json_error(&line, &error)))
                    .hint(RecordError::Other.hint())
            })?;
            each(&at, &recorded(&at, value)?);
        }
    }
    Ok(())
}

fn recorded(at: &str, value: Value) -> Result<Recorded, CliError> {
    Recorded::of(value).map_err(|error| CliError::caused(Class::Config, &error).while_doing(at).hint(error.hint()))
}

fn at_most(count: usize, path: &Path) -> Result<(), CliError> {
    if count > RECORDS {
        return Err(CliError::new(Class::Config, format!("{}: more than {RECORDS} records", path.display())));
    }
    Ok(())
}
