//! Looks at the health of a box that runs: a program in it, again and again, as its host may.
//!
//! Trusts: nothing of what it writes, which is bounded. Never: ends a box, or starts it again, for what was seen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use coffer_guest_proto::exec_request::Message as Ask;
use coffer_guest_proto::exec_response::Message as Tell;
use coffer_guest_proto::{ExecRequest, ExecStart};
use coffer_rim::{Class, Failure};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::agent;
use crate::boxes::unix_ms;
use crate::health::{Health, HealthCheck, HealthStatus, Look};

/// Whoever looks. Dropping it ends that.
pub(super) struct Looking(JoinHandle<()>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to look. `paused`: while nothing in the box runs, nobody looks. `changed`: is told of another status.
pub(super) fn look(
    folder: PathBuf,
    check: HealthCheck,
    paused: watch::Receiver<bool>,
    changed: mpsc::Sender<HealthStatus>,
) -> Looking {
    Looking(tokio::spawn(go_on(folder, check, paused, changed)))
}

async fn go_on(
    folder: PathBuf,
    check: HealthCheck,
    mut paused: watch::Receiver<bool>,
    changed: mpsc::Sender<HealthStatus>,
) {
    let (ms, began, mut health) = (Duration::from_millis, Instant::now(), Health::default());
    let is_excused = || began.elapsed() < ms(check.start_period_ms);
    loop {
        let starting = health.status == HealthStatus::Starting && is_excused();
        sleep(ms(if starting { check.start_interval_ms } else { check.interval_ms })).await;
        // Whoever pauses it is gone when it ends, and so are we.
        if paused.wait_for(|paused| !paused).await.is_err() {
            return;
        }
        paused.mark_unchanged();
        let (start, excused) = (unix_ms(), is_excused());
        let (exit_code, output) = one(&folder, &check).await;
        if paused.has_changed().unwrap_or(true) {
            continue; // it had no time to answer
        }
        let told = health.note(Look { start, end: unix_ms(), exit_code, output }, &check, excused);
        if let Err(error) = health.write(&folder) {
            tracing::warn!(%error, "the health of the box is not recorded");
        }
        if let Some(status) = told {
            let _ = changed.send(status).await;
        }
    }
}

/// Exit code and output; -1 and why where there is none.
async fn one(folder: &Path, check: &HealthCheck) -> (i32, String) {
    let mut output = Vec::new();
    // The agent ends a program whose caller goes.
    let ended = timeout(Duration::from_millis(check.timeout_ms), run(folder, check.argv(), &mut output)).await;
    match ended {
        Ok(Ok(code)) => (code, shown(&output)),
        Ok(Err(failure)) => (NONE, shown(failure.message.as_bytes())),
        Err(_) => (NONE, format!("the look at its health took more than {} ms", check.timeout_ms)),
    }
}

const NONE: i32 = -1;
/// Stands behind what was cut.
const CUT: &str = "...";

fn shown(output: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(output).into_owned();
    if text.len() > Health::MOST_OUTPUT {
        let most = Health::MOST_OUTPUT - CUT.len();
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(CUT);
    }
    text
}

async fn run(folder: &Path, argv: Vec<String>, output: &mut Vec<u8>) -> Result<i32, Failure> {
    let mut client = agent::exec(folder).await?;
    // Held until it has ended: its end is the program's.
    let (input, asks) = mpsc::channel(2);
    for ask in [Ask::Start(ExecStart { argv, ..ExecStart::default() }), Ask::StdinClosed(true)] {
        let _ = input.send(ExecRequest { message: Some(ask) }).await;
    }
    let refused = |status: tonic::Status| agent::of_plain_status(&status);
    let mut answers = client.run(ReceiverStream::new(asks)).await.map_err(refused)?.into_inner();
    while let Some(answer) = answers.message().await.map_err(refused)? {
        match answer.message {
            Some(Tell::Stdout(bytes) | Tell::Stderr(bytes)) => {
                let room = (Health::MOST_OUTPUT + 1).saturating_sub(output.len());
                output.extend(bytes.into_iter().take(room));
            }
            Some(Tell::ExitStatus(code)) => return Ok(code),
            _ => {}
        }
    }
    Err(Failure::new(Class::Unreachable, "the guest ended before its look did"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_bounded_and_says_so() {
        assert_eq!(shown(b"well\xff"), "well\u{fffd}");
        for long in ["x".repeat(9000), "é".repeat(3000)] {
            let text = shown(long.as_bytes());
            assert!(text.len() <= Health::MOST_OUTPUT && text.ends_with(CUT), "{}", text.len());
        }
    }

    #[tokio::test]
    async fn a_box_that_nobody_can_look_into_is_unhealthy_and_while_it_is_paused_nobody_looks() {
        let dir = tempfile::tempdir().unwrap();
        let check = HealthCheck {
            test: vec!["CMD".into(), "true".into()],
            interval_ms: 10,
            timeout_ms: 1000,
            start_period_ms: 0,
            start_interval_ms: 10,
            retries: 2,
        };
        let (pause, paused) = watch::channel(true);
        let (changed, mut told) = mpsc::channel(4);
        let looking = look(dir.path().to_path_buf(), check, paused, changed);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(Health::read(dir.path()).unwrap(), Health::default());
        pause.send_replace(false);
        assert_eq!(told.recv().await, Some(HealthStatus::Unhealthy));
        drop(looking);
        let health = Health::read(dir.path()).unwrap();
        assert!(health.failing_streak >= 2 && health.log[0].exit_code == NONE, "{health:?}");
        assert_eq!(told.recv().await, None);
    }
}
