//! `coffer supervise`: the process behind a running box. Started by the other commands, never by people.

use std::process::ExitCode;

use coffer_runtime::boxes::unix_us;
use coffer_runtime::supervisor;
use coffer_runtime::{BoxId, Home};

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};

/// Supervise a box.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// Id of the box.
    id: String,
    /// When the start was asked for, Unix microseconds [default: now].
    origin: Option<i64>,
}

/// Supervises it until it ends, in a session of its own: a terminal's ^C is not for us.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    // Fails only where we lead a process group, which a person who types this does.
    let _ = rustix::process::setsid();
    let id = BoxId::try_from(args.id.clone()).class(Class::Usage)?;
    let home = Home::open(&context.home).class(Class::Config)?;
    supervisor::supervise(&home, &id, &context.search, args.origin.unwrap_or_else(unix_us))?;
    Ok(ExitCode::SUCCESS)
}
