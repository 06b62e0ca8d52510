//! The whole parser, made from the table of commands.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args as _;

use crate::commands::{self, GROUPS};
use crate::row::Entry;

/// What may stand before and behind every command.
#[derive(Debug, clap::Args)]
pub struct Globals {
    /// Print one JSON document instead of tables and text.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,

    /// Where boxes, images and keys are kept [default: $COFFER_HOME, else /var/lib/coffer as root, else $XDG_DATA_HOME/coffer, else ~/.local/share/coffer].
    #[arg(long, global = true, value_name = "DIR", help_heading = EVERYWHERE)]
    pub home: Option<PathBuf>,
}

/// Heading of the flags that every command has, apart from its own.
const EVERYWHERE: &str = "Everywhere";

const EXAMPLES: &str = "Examples:
  coffer run --rm busybox echo hello
  coffer help kbs secret put
  coffer --json ps --all";

/// The whole parser.
pub fn parser() -> clap::Command {
    let parser = Globals::augment_args(clap::Command::new("coffer"))
        .about("Runs OCI images in attested microVMs.")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommands(commands::all().map(Entry::parser))
        .after_help(EXAMPLES);
    let list = grouped(&parser);
    parser.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}Options:\n{{options}}{{after-help}}"
    ))
}

/// The commands under their headings.
fn grouped(parser: &clap::Command) -> String {
    let mut text = String::new();
    for group in GROUPS {
        let _ = writeln!(text, "{}:", group.heading);
        let shown = group.commands.iter().filter_map(|entry| parser.find_subcommand(entry.name));
        for command in shown.filter(|command| !command.is_hide_set()) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let aliases: Vec<_> = command.get_visible_aliases().collect();
            let aliases = if aliases.is_empty() { String::new() } else { format!(" [also: {}]", aliases.join(", ")) };
            let _ = writeln!(text, "  {:<14} {about}{aliases}", command.get_name());
        }
        text.push('\n');
    }
    text
}
