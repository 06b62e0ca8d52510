//! `coffer supervise`: the process behind a running box. Started by the other commands, never by people.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use coffer_runtime::boxes::unix_us;
use coffer_runtime::supervisor::{self, Again};
use coffer_runtime::{BoxId, Home, State};

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
    /// Follow the run before, whose lock we have, after so many milliseconds.
    #[arg(long, value_name = "MS")]
    again: Option<u64>,
}

/// Supervises it until it ends, in a session of its own: a terminal's ^C is not for us.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    // Fails only where we lead a process group, which a person who types this does.
    let _ = rustix::process::setsid();
    let id = BoxId::try_from(args.id.clone()).class(Class::Usage)?;
    let home = Home::open(&context.home).class(Class::Config)?;
    let after = args.again.map(|wait| Again::taken_over(&home.box_folder(&id), Duration::from_millis(wait)));
    let after = after.transpose().class_while(Class::Config, "this is no supervisor that was left a box")?;
    let next = supervisor::supervise(&home, &id, &context.search, args.origin.unwrap_or_else(unix_us), after)?;
    next.map_or(Ok(ExitCode::SUCCESS), |next| Err(become_the_next(&next, &home, &id)))
}

/// Comes back only where that cannot be; the record then says that the box has ended.
fn become_the_next(next: &Again, home: &Home, id: &BoxId) -> CliError {
    let wait = u64::try_from(next.wait.as_millis()).unwrap_or(u64::MAX).to_string();
    // This program, also where an upgrade has put another in its place.
    let mut words = Command::new("/proc/self/exe");
    words.arg("--home").arg(home.root()).args(["supervise", id.as_str(), "--again", &wait]);
    let error = next.hand_over().map_or_else(|error| error, |()| words.exec());
    if let Ok(state) = State::open(home) {
        let _ = state.given_up(id);
    }
    CliError::caused(Class::Internal, &error).while_doing("the box is not started again")
}
