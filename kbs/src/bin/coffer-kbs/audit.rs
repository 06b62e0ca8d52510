//! `coffer-kbs audit verify`: also beside a running server.

use std::path::PathBuf;

use coffer_rim::{Class, Classify as _, Failure};
use serde_json::json;

use crate::error::OrFail as _;

/// What to do with the trail.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check every line's MAC, the chain, the end mark, and every row that decides something.
    #[command(after_help = "Examples:\n  coffer-kbs audit verify --state ./kbs\n  \
                            coffer-kbs audit verify --state ./kbs --log kbs.log")]
    Verify {
        /// State folder.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// What `coffer-kbs serve` printed, kept elsewhere: each line of the trail in it must be in the database as well.
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
    },
}

/// Checks the trail.
pub fn run(command: &Command, as_json: bool) -> Result<(), Failure> {
    let Command::Verify { state, log } = command;
    let text = log.as_ref().map(std::fs::read_to_string).transpose();
    let text = text.class_while(Class::Config, "the copy of the log")?;
    let (summary, found) = crate::event_loop()?.block_on(async {
        let store = coffer_kbs::open_store(state).await.or_fail()?;
        let found = store.verify_against(text.as_deref().unwrap_or_default()).await.or_fail()?;
        Ok::<_, Failure>((store.verify_audit().await.or_fail()?, found))
    })?;
    let compared = found.map_err(|fault| {
        let hint = "this database was set back or is another, or the copy was changed: find out who did it";
        Failure::caused(Class::NotAuthentic, &fault).hint(hint)
    })?;
    if compared == 0
        && let Some(log) = log
    {
        let none = format!("no whole line of an audit trail stands in {}", log.display());
        return Err(Failure::new(Class::Config, none).hint("give what `coffer-kbs serve` printed, or an export"));
    }
    if as_json {
        coffer_rim::println!(
            "{}",
            json!({
                "ok": true, "lines": summary.lines, "head": summary.head, "rows": summary.rows, "compared": compared,
            })
        );
    } else {
        coffer_rim::println!(
            "audit trail holds: {} lines, head {}; {} rows are as written",
            summary.lines,
            summary.head,
            summary.rows
        );
        if let Some(log) = log {
            coffer_rim::println!("{compared} lines of {} are in it", log.display());
        }
    }
    Ok(())
}
