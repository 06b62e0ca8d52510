//! `coffer kbs audit`.

use std::process::ExitCode;

use super::broker::Broker;
use crate::error::CliError;

/// Print audit lines, one JSON object each, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs audit --from 10 --limit 5")]
pub struct Args {
    /// First sequence number.
    #[arg(long, default_value_t = 0, value_name = "N")]
    from: u64,
    /// Number of lines.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Prints them as the broker wrote them.
pub fn run(args: &Args, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    for line in broker.ask(async |client| client.audit(args.from, args.limit).await)? {
        // A line is JSON: what acts on a terminal is escaped as JSON has it, so that the line stays one.
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}
