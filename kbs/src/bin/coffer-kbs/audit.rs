//! `coffer-kbs audit verify`: also beside a running server.

use std::path::PathBuf;

use serde_json::json;

use crate::error::Failure;

/// What to do with the trail.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check every line's MAC, the chain and the end mark.
    #[command(after_help = "Example:\n  coffer-kbs audit verify --state ./kbs")]
    Verify {
        /// State folder.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
}

/// Checks the trail.
pub fn run(command: &Command, as_json: bool) -> Result<(), Failure> {
    let Command::Verify { state } = command;
    let summary = coffer_kbs::open_store(state)?.verify_audit()?;
    if as_json {
        crate::print(&json!({ "ok": true, "lines": summary.lines, "head": summary.head }).to_string());
    } else {
        crate::print(&format!("audit trail holds: {} lines, head {}", summary.lines, summary.head));
    }
    Ok(())
}
