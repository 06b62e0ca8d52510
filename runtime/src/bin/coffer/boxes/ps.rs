//! `coffer ps`.

use std::process::ExitCode;

use coffer_runtime::boxes::unix_ms;
use coffer_runtime::health::HealthStatus;
use coffer_runtime::publish::Publish;
use coffer_runtime::{BoxRecord, BoxState};
use coffer_spec::Tee;
use serde_json::json;

use crate::boxes::{filters, port};
use crate::context::Context;
use crate::error::{self, CliError};
use crate::format::{Fields, Format};
use crate::table;

/// List boxes.
#[derive(Debug, clap::Args)]
#[command(visible_aliases = ["ls", "list"], after_help = "Fields for --format: ID Image ImageID Command CreatedAt RunningFor State Status Ports Names Labels LocalVolumes Size TEE \
Isolation ExitCode, and .Label \"KEY\"; `--format json` prints them all, a box a line.

Examples:
  coffer ps --all
  coffer ps -aq --filter status=exited
  coffer ps -a --format 'table {{.Names}}\\t{{.Status}}'
  coffer --json ps")]
pub struct Args {
    /// Also boxes that do not run.
    #[arg(short, long)]
    all: bool,
    /// Ids only.
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids, commands and reasons.
    #[arg(long)]
    no_trunc: bool,
    /// The newest N boxes, whether they run or not.
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "latest")]
    last: Option<usize>,
    /// The newest box, whether it runs or not.
    #[arg(short, long)]
    latest: bool,
    /// What the files of boxes take, too.
    #[arg(short, long)]
    size: bool,
    /// Print boxes by a template, a `table` of one, or as `json`.
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// name=TEXT, id=PREFIX, status=created|running|paused|restarting|exited|dead|removed, label=KEY[=VALUE], exited=CODE, ancestor=IMAGE,
    /// before=BOX, since=BOX, network=NAME, health=starting|healthy|unhealthy|none, publish=PORT or expose=PORT; values of one key are alternatives, but for labels. Removed are boxes
    /// of --rm that did not come to run their workload.
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Lists them, newest first.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let mut filter = filters::boxes(&args.filter)?;
    let format = args.format.as_deref().map(|text| Format::of(text, FIELDS)).transpose()?;
    let most = if args.latest { Some(1) } else { args.last };
    if !args.all && most.is_none() && filter.states.is_empty() && filter.exits.is_empty() {
        filter.states.extend([BoxState::Running, BoxState::Paused, BoxState::Restarting]);
    }
    let engine = context.engine()?;
    let mut boxes = engine.list(&filter).map_err(error::of)?;
    boxes.truncate(most.unwrap_or(usize::MAX));
    // What cannot be read of one box keeps nobody from seeing the others.
    let ports = |found: &BoxRecord| engine.ports_of(found).ok();
    let health = |found: &BoxRecord| engine.health(found).map(|health| health.status);
    let shown = |found: &BoxRecord| Shown {
        size: args.size.then(|| engine.disk_bytes(found).ok()).flatten(),
        whole: args.no_trunc,
        ports: ports(found),
        health: health(found),
    };
    if context.json {
        println!(
            "{}",
            serde_json::Value::from(
                boxes.iter().map(|found| summary(found, ports(found).as_deref(), health(found))).collect::<Vec<_>>()
            )
        );
    } else if args.quiet {
        for found in &boxes {
            println!("{}", if args.no_trunc { found.id.as_str() } else { found.id.short() });
        }
    } else if let Some(format) = format {
        let rows: Vec<_> = boxes.iter().map(|found| shown(found).fields(found)).collect();
        format.print(&rows, HEADINGS)?;
    } else {
        let rows: Vec<_> = boxes.iter().map(|found| shown(found).row(found)).collect();
        let mut heading = vec!["BOX ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "TEE", "PORTS", "NAMES"];
        heading.extend(args.size.then_some("SIZE"));
        table::print(&heading, &rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// What stands above a column, where that is not the field's name.
const HEADINGS: &[(&str, &str)] = &[
    ("ID", "BOX ID"),
    ("ImageID", "IMAGE ID"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("ExitCode", "EXIT CODE"),
];

/// For templates.
const FIELDS: &[&str] = &[
    "ID",
    "Image",
    "ImageID",
    "Command",
    "CreatedAt",
    "RunningFor",
    "State",
    "Status",
    "Ports",
    "Names",
    "Labels",
    "LocalVolumes",
    "Size",
    "TEE",
    "Isolation",
    "ExitCode",
];

/// How a box is shown.
struct Shown {
    size: Option<u64>,
    whole: bool,
    ports: Option<Vec<Publish>>,
    health: Option<HealthStatus>,
}

impl Shown {
    // Image, command and error are foreign text; the table escapes its cells, and the templates what they make.
    fn row(&self, found: &BoxRecord) -> Vec<String> {
        let mut row = vec![
            self.id(found),
            found.image.clone(),
            self.command(found),
            created(found),
            self.status(found),
            tee_word(found.options.tee).into(),
            self.ports(),
            found.name.clone(),
        ];
        row.extend(self.size.map(table::size));
        row
    }

    fn id(&self, found: &BoxRecord) -> String {
        if self.whole { found.id.as_str() } else { found.id.short() }.into()
    }

    fn command(&self, found: &BoxRecord) -> String {
        let command = found.options.command.join(" ");
        format!("\"{}\"", if self.whole { command } else { cut(&command, 20) })
    }

    fn ports(&self) -> String {
        let ports = self.ports.as_ref();
        ports.map_or("?".to_owned(), |ports| ports.iter().map(Publish::to_string).collect::<Vec<_>>().join(", "))
    }

    fn status(&self, found: &BoxRecord) -> String {
        if self.whole { whole_status(found, self.health) } else { status(found, self.health) }
    }

    fn fields(&self, found: &BoxRecord) -> Fields {
        let options = &found.options;
        let labels: Vec<_> = options.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Fields {
            value: json!({
                "ID": self.id(found), "Image": found.image, "ImageID": options.image_digest,
                "Command": self.command(found), "CreatedAt": table::rfc3339(found.created),
                "RunningFor": created(found), "State": found.state,
                "Status": self.status(found), "Ports": self.ports(),
                "Names": found.name, "Labels": labels.join(","), "LocalVolumes": (options.volumes + options.data.len()).to_string(),
                "Size": self.size.map(table::size).unwrap_or_default(), "TEE": tee_word(options.tee),
                "Isolation": options.isolation, "ExitCode": found.exit_code,
            }),
            labels: options.labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect(),
        }
    }
}

fn created(found: &BoxRecord) -> String {
    format!("{} ago", table::span(unix_ms() - found.created))
}

/// At most so many characters; `…` stands for the rest.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.into();
    }
    text.chars().take(most - 1).collect::<String>() + "…"
}

/// `Up 3 seconds`, `Up 3 seconds (healthy)`, `Up 3 seconds (Paused)`, `Restarting (1) 2 seconds ago`, `Exited (0) 5 minutes ago`.
fn status(found: &BoxRecord, health: Option<HealthStatus>) -> String {
    let since = |moment: Option<i64>| table::span(unix_ms() - moment.unwrap_or(found.created));
    match found.state {
        BoxState::Created => "Created".into(),
        BoxState::Running => {
            let health = match health {
                None => String::new(),
                Some(HealthStatus::Starting) => " (health: starting)".into(),
                Some(status) => format!(" ({})", status.word()),
            };
            format!("Up {}{health}", since(found.started))
        }
        BoxState::Paused => format!("Up {} (Paused)", since(found.started)),
        BoxState::Restarting => format!("Restarting {}", how_it_ended(found)),
        BoxState::Dead => "Dead".into(),
        BoxState::Exited => format!("Exited {}", how_it_ended(found)),
        BoxState::Removed => format!("Removed {}", how_it_ended(found)),
    }
}

/// `(0) 5 minutes ago`; behind it a key broker's refusal by its word and number.
fn how_it_ended(found: &BoxRecord) -> String {
    let since = table::span(unix_ms() - found.finished.unwrap_or(found.created));
    let refusal = refusal(found).map(|refusal| format!(" ({refusal})")).unwrap_or_default();
    format!("({}) {since} ago{refusal}", found.exit_code.unwrap_or(0))
}

fn refusal(found: &BoxRecord) -> Option<String> {
    let reason = found.reason.as_ref()?;
    Some(match &reason.denial_id {
        Some(id) => format!("{} {id}", reason.code),
        None => reason.code.clone(),
    })
}

/// [`status`], and why.
fn whole_status(found: &BoxRecord, health: Option<HealthStatus>) -> String {
    match &found.error {
        Some(error) if !found.state.is_up() => format!("{}: {error}", status(found, health)),
        _ => status(found, health),
    }
}

/// The word for a secure processor.
pub fn tee_word(tee: Tee) -> &'static str {
    match tee {
        Tee::Snp => "snp",
        Tee::Simulated => "simulated",
        Tee::None => "none",
    }
}

fn summary(found: &BoxRecord, ports: Option<&[Publish]>, health: Option<HealthStatus>) -> serde_json::Value {
    json!({
        "id": found.id, "name": found.name, "image": found.image, "command": found.options.command,
        "state": found.state, "status": status(found, health), "health": health, "exit_code": found.exit_code, "error": found.error,
        "reason": found.reason,
        "labels": found.options.labels, "tee": tee_word(found.options.tee), "created": table::rfc3339(found.created),
        "ports": ports.map(|ports| ports.iter().map(port::row).collect::<Vec<_>>()),
        "supervisor_pid": found.supervisor_pid, "vmm_pid": found.vmm_pid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_cut_by_characters_and_says_so() {
        assert_eq!([cut("Größe", 5), cut("Größen", 5), cut("", 1)], ["Größe", "Größ…", ""]);
    }
}
