//! `coffer diff`.
//!
//! Trusts: nothing of the list. What is no list of changes, or more than there can be, is an error.

use std::io::Read as _;
use std::process::ExitCode;

use coffer_runtime::changes::{self, Change};
use serde_json::json;

use crate::boxes::cp::pump::take;
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::prove::guest::Trust;

/// List what a running box has in its root file system that its image has not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A is what was added, C what was changed, D what was deleted. What is mounted in the box, volumes and memory, is not looked at, \
nor are its host name files, which each box has of its own.
Where the spec does not let the host cp or exec, it is done as owner, in a guest that proves itself first.

Examples:
  coffer diff web
  coffer --json diff web"
)]
pub struct Args {
    #[command(flatten)]
    trust: Trust,
    /// Name or id; or coffer://HOST:PORT of a guest elsewhere, with --reference.
    #[arg(value_name = "BOX")]
    name: String,
}

/// Lists it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let list = context.runtime()?.block_on(async {
        let mut session = engine.read_changes(&args.name, false, &trust).await.map_err(error::of)?;
        take(&mut session, false, |from| {
            let mut list = Vec::new();
            from.take(changes::LONGEST + 1).read_to_end(&mut list).class(Class::Config)?;
            Ok(list)
        })
        .await
    })?;
    let changes = changes::read(&list).class(Class::Config)?;
    if context.json {
        let of = |change: &Change| json!({ "change": change.kind.letter(), "path": change.path });
        println!("{}", json!({ "changes": changes.iter().map(of).collect::<Vec<_>>() }));
        return Ok(ExitCode::SUCCESS);
    }
    for Change { kind, path } in &changes {
        println!("{} {}", kind.letter(), coffer_rim::foreign(path));
    }
    Ok(ExitCode::SUCCESS)
}
