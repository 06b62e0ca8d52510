//! `coffer kbs audit`: the trail by what its lines are about, one decision with its policy's input, and a copy of all that can be
//! checked.

mod copy;
mod words;

use std::process::ExitCode;

use coffer_kbs_client::{Archived, AuditQuery, ResourcePath};

use super::broker::{Broker, not_found};
use super::secret::path;
use super::{admin, parse_time};
use crate::error::{Class, CliError};
use crate::exits::Exits;
use crate::row::{self, Does, Entry};

/// Print audit lines, one JSON object each, oldest first; with --json one array of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs audit --from 10 --limit 5
  coffer kbs audit tail --tenant acme --outcome refused
  coffer kbs audit show 86fb0b8a2fdb7edb --input > input.json
  coffer kbs audit export trail.jsonl && coffer kbs audit verify trail.jsonl")]
pub struct Args {
    /// First sequence number; with --newest the last.
    #[arg(long, default_value_t = 0, value_name = "N")]
    from: u64,
    /// Number of lines [default: 1000; where there are more, standard error says so].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// The line with this id alone: a refusal has one.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Newest first.
    #[arg(long)]
    newest: bool,
    #[command(flatten)]
    filter: Filter,
}

/// The row: it runs by itself, and has commands behind it.
pub const ENTRY: Entry = Entry {
    name: "audit",
    exits: Exits::Class,
    define: <Args as clap::Args>::augment_args,
    does: Does::Either(
        |matches, context| {
            let whom: super::Args = row::parse(matches)?;
            run(&row::parse::<Args>(matches)?, &whom.broker(context)?)
        },
        COMMANDS,
    ),
};

const COMMANDS: &[Entry] = &[
    admin!("tail": TailArgs => tail),
    admin!("show": ShowArgs => show),
    admin!("export": copy::ExportArgs => copy::export),
    Entry {
        name: "verify",
        exits: Exits::Class,
        define: <copy::VerifyArgs as clap::Args>::augment_args,
        does: Does::Run(|matches, context| {
            copy::verify(&row::parse::<copy::VerifyArgs>(matches)?, &row::parse(matches)?, context)
        }),
    },
];

/// Which lines.
#[derive(Debug, clap::Args)]
struct Filter {
    /// Lines of this tenant alone.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// About this secret: `repository/type/tag`, with or without `kbs:///`.
    #[arg(long, value_name = "PATH", value_parser = path)]
    path: Option<ResourcePath>,
    /// This event, such as `secret.release`, or all of a word, such as `secret`; the broker names all there are.
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// With this outcome, such as `refused` or `released`; the broker names all there are.
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// Not before this time, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// Before this time, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
}

impl Filter {
    fn query(&self) -> AuditQuery {
        AuditQuery {
            tenant: self.tenant.clone(),
            path: self.path.as_ref().map(ToString::to_string),
            event: self.event.clone(),
            outcome: self.outcome.clone(),
            since_unix: self.since,
            until_unix: self.until,
            ..AuditQuery::default()
        }
    }
}

fn run(args: &Args, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let from = Some(args.from).filter(|from| *from != 0);
    let query = AuditQuery { id: args.id.clone(), newest: args.newest, from, ..args.filter.query() };
    // One more than is printed, where nobody said how many: whoever keeps the output is told that it is not all.
    let most = args.limit.map_or(USUAL + 1, |limit| limit as usize);
    let mut found = broker.ask(async |client| client.audit_find(&query, most).await)?;
    let next = args.limit.is_none().then(|| found.lines.drain(USUAL.min(found.lines.len())..).next()).flatten();
    if found.lines.is_empty() && args.id.is_some() {
        return Err(no_line(&found.archived));
    }
    print(broker, &found.lines);
    tell_of(&found.archived);
    if let Some(next) = next.as_deref().and_then(sequence_of) {
        eprintln!(
            "coffer: more lines follow: --from {next} goes on, --limit N prints more; `coffer kbs audit export FILE` writes all"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines that are printed where nobody says how many.
const USUAL: usize = 1000;

/// Number of a line.
fn sequence_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?["sequence"].as_u64()
}

/// Print the last audit lines, newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs audit tail --tenant acme --outcome refused
  coffer kbs audit tail --event secret --since 2027-01-01T00:00:00Z --limit 5")]
struct TailArgs {
    /// Number of lines.
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    filter: Filter,
}

fn tail(args: &TailArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let query = AuditQuery { newest: true, ..args.filter.query() };
    let found = broker.ask(async |client| client.audit_find(&query, args.limit as usize).await)?;
    print(broker, &found.lines);
    tell_of(&found.archived);
    Ok(ExitCode::SUCCESS)
}

/// Print one decision by its id, or what its policy saw.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs audit show 86fb0b8a2fdb7edb
  coffer kbs audit show 86fb0b8a2fdb7edb --explain
  coffer kbs audit show 86fb0b8a2fdb7edb --input > input.json
  opa eval --input input.json --data web.rego data.web.allow")]
struct ShowArgs {
    /// Id, as whoever was answered was told it.
    id: String,
    /// What the policy saw, in place of the line: the Rego input as JSON, byte for byte.
    #[arg(long)]
    input: bool,
    /// In words: every reason, and the checks that were not passed.
    #[arg(long, conflicts_with = "input")]
    explain: bool,
    /// Of this tenant: what an auditor of that tenant may read.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

fn show(args: &ShowArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (tenant, id) = (args.tenant.as_deref(), &args.id);
    let found = broker.ask(async |client| client.decision_found(tenant, id).await)?;
    let found = found.map_err(|archived| no_line(&archived))?;
    if args.explain && !broker.json() {
        let said = words::in_words(&found.line);
        print!("{}", said.unwrap_or_else(|| format!("{}\n", found.line)));
        return Ok(ExitCode::SUCCESS);
    }
    if !args.input {
        println!("{}", found.line);
        return Ok(ExitCode::SUCCESS);
    }
    let Some(input) = found.input else {
        return Err(CliError::new(Class::NotFound, format!("no input is kept of decision {id}"))
            .hint("inputs are kept of the last decisions of a tenant for which a policy was asked: see docs/kbs.md"));
    };
    println!("{input}");
    Ok(ExitCode::SUCCESS)
}

fn no_line(archived: &[Archived]) -> CliError {
    match archived.last() {
        None => not_found("there is no line with this id".into(), "audit tail"),
        Some(last) => CliError::new(Class::NotFound, "there is no line with this id at the broker").hint(format!(
            "lines 1 to {} are archived, in files at the broker: look for the id in {}",
            last.last,
            archived
                .iter()
                .rev()
                .take(FILES)
                .map(|one| coffer_rim::foreign(&one.file).to_string())
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}

/// Says where lines are that were asked for and are archived. On standard error: what is printed is lines.
fn tell_of(archived: &[Archived]) {
    for one in archived.iter().rev().take(FILES).rev() {
        eprintln!("coffer: archived at the broker: {}", coffer_rim::foreign(&one.to_string()));
    }
    if let Some(more) = archived.len().checked_sub(FILES).filter(|more| *more > 0) {
        eprintln!("coffer: and older lines in {more} archives before these");
    }
}

/// Archives that are named.
const FILES: usize = 8;

fn print(broker: &Broker<'_>, lines: &[String]) {
    if broker.json() {
        println!("{}", one_document(lines));
        return;
    }
    for line in lines {
        // A line is JSON: what acts on a terminal is escaped as JSON has it, so that the line stays one.
        println!("{line}");
    }
}

/// An array of the lines as the broker wrote them, so that what is computed over their bytes still holds.
fn one_document(lines: &[String]) -> String {
    let whole = |line: &String| match serde_json::from_str::<serde::de::IgnoredAny>(line) {
        Ok(_) => line.clone(),
        Err(_) => serde_json::Value::from(line.as_str()).to_string(),
    };
    format!("[{}]", lines.iter().map(whole).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_one_document_and_keep_their_bytes() {
        let lines = ["{\"seq\":1, \"b\":0}".to_owned(), "no JSON \"".to_owned()];
        let text = one_document(&lines);
        assert!(text.contains(&lines[0]), "{text}");
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&parsed[0]["seq"], &parsed[1]), (&1.into(), &lines[1].as_str().into()));
        assert_eq!(one_document(&[]), "[]");
    }
}
