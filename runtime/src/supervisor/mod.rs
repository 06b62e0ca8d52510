//! One process per running box: holds the box's lock, owns its guest, and ends when the guest does.
//!
//! ```text
//!  lock taken
//!      │
//!      ▼
//!  Preparing ── a step fails, or nobody wants the box any more ──▶ not started: the record says what it said before
//!      │ files written, lines listened on, guest started
//!      ▼ record: running
//!  Booting ── "running" ──▶ Running
//!      │ stop, command lost,   │ stop, command lost,
//!      │ "exited", "failed",   │ "exited"
//!      │ too late              │
//!      ▼                       ▼
//!  Ending ◀────────────────────┘   asked once; a further stop joins it and can only bring its deadline nearer;
//!      │                           killed at the deadline, on `kill`, or when it cannot be asked
//!      ▼
//!  guest gone (which can happen in every state)
//!      │ record: exited, restarting, or box removed
//!      ▼
//!  lock let go, or, to start again by the box's policy, kept by the supervisor that this one becomes
//! ```
//!
//! The kernel ends the guest when the supervisor dies, however it dies. The supervisor stops the box when the attached
//! command dies, records how the box ended, and removes what a `--rm` box leaves.
//! Trusts: the box record and folder. Believes a guest about its own fate only.

mod again;
pub mod control;
mod fate;
mod health;
pub mod lifeline;
mod lines;
pub(crate) mod logs;
pub mod message;
mod networks;
mod run;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use coffer_rim::{Class, Classify as _, Failure};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::home::Home;
use crate::id::BoxId;
use crate::monitor;
use crate::tools::Search;
use message::Reporter;
use run::{Order, Patience};

pub use again::Again;

pub use crate::bounded::former;
pub use crate::boxes::DEFAULT_GRACE;
pub use crate::state::of_state;

/// Supervises a box until it ends, with the monitor its record names. The start counts from `origin_unix_us`, or, `after` a run
/// before it, from when it is started. Gives the run that is to follow, if one is.
///
/// # Errors
/// What kept the box from starting, or its end from being recorded; the command that waits is told as well.
pub fn supervise(
    home: &Home,
    id: &BoxId,
    search: &Search,
    origin_unix_us: i64,
    after: Option<Again>,
) -> Result<Option<Again>, Failure> {
    leave_no_core_dumps()?;
    // One thread: a guest dies with the thread that started it, so it must be the one that lives longest.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (reporter, writer) = Reporter::to_stdout();
        let order = Order {
            home,
            id,
            monitors: &|isolation| monitor::of(isolation, search),
            search,
            origin_unix_us,
            after,
            reporter,
            signals: true,
            patience: Patience::default(),
        };
        let ended = order.run(lifeline::watch_stdin()).await;
        let _ = tokio::time::timeout(Duration::from_secs(2), writer).await;
        ended
    })
}

/// No core dump of ours, or of the monitors and boxes that we start, holds a guest's memory: none is written, and what a program
/// that takes them in a pipe gets all the same, where that cannot be forbidden, has ELF headers alone (core(5)).
fn leave_no_core_dumps() -> Result<(), Failure> {
    const FILTER: &str = "/proc/self/coredump_filter";
    let what = "cannot forbid core dumps";
    let limit = |most| setrlimit(Resource::Core, Rlimit { current: Some(most), maximum: Some(most) });
    // At 1 nothing is written either, nor handed to a program; whoever was given 0 may not raise it.
    limit(1).or_else(|_| limit(0)).class_while(Class::Platform, what)?;
    match std::fs::write(FILTER, "0x10") {
        // A kernel that writes no core dumps.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => written.class_while(Class::Platform, what),
    }
}
