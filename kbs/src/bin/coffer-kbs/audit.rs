//! `coffer-kbs audit verify`: also beside a running server.

use std::path::PathBuf;

use coffer_rim::Failure;
use serde_json::json;

use crate::error::OrFail as _;

/// What to do with the trail.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check every line's MAC, the chain, the end mark, and every row that decides something.
    #[command(after_help = "Examples:\n  coffer-kbs audit verify --state ./kbs")]
    Verify {
        /// State folder.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
}

/// Checks the trail.
pub fn run(command: &Command, as_json: bool) -> Result<(), Failure> {
    let Command::Verify { state } = command;
    let summary = crate::event_loop()?
        .block_on(async { coffer_kbs::open_store(state).await.or_fail()?.verify_audit().await.or_fail() })?;
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
