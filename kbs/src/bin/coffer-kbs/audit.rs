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
    let log = match log {
        Some(path) => std::fs::read_to_string(path).class_while(Class::Config, path.display().to_string())?,
        None => String::new(),
    };
    let (summary, fault) = crate::event_loop()?.block_on(async {
        let store = coffer_kbs::open_store(state).await.or_fail()?;
        Ok::<_, Failure>((store.verify_audit().await.or_fail()?, store.verify_against(&log).await.or_fail()?))
    })?;
    if let Some(fault) = fault {
        let hint = "this database was set back or is another: find out who did it, and restore the newest backup";
        return Err(Failure::caused(Class::NotAuthentic, &fault).hint(hint));
    }
    if as_json {
        coffer_rim::println!(
            "{}",
            json!({ "ok": true, "lines": summary.lines, "head": summary.head, "rows": summary.rows })
        );
    } else {
        coffer_rim::println!(
            "audit trail holds: {} lines, head {}; {} rows are as written",
            summary.lines,
            summary.head,
            summary.rows
        );
    }
    Ok(())
}
