//! Signals that we hand on to a program in a box, and when we stop waiting for what they do there.

use std::io;
use std::time::Duration;

use coffer_runtime::engine::{ExecInput, ExecInputs};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::terminal;

/// How long a program has to end once we were told to.
pub const GRACE: Duration = Duration::from_secs(10);

const INTERRUPT: i32 = libc::SIGINT;
const TERMINATE: i32 = libc::SIGTERM;

/// All that can be handed on and mean something to a program: not those about a job, a child or a terminal of ours.
fn handed_on() -> impl Iterator<Item = i32> {
    let named = [
        libc::SIGHUP,
        INTERRUPT,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        TERMINATE,
        libc::SIGSTKFLT,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGPWR,
    ];
    named.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
}

/// What becomes of a signal besides being handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Nothing.
    Go,
    /// The program has [`GRACE`] to end.
    Grace,
    /// It has had its time.
    End,
}

/// What has come so far.
#[derive(Debug, Default)]
struct Heard {
    interrupts: u32,
    terminations: u32,
}

impl Heard {
    fn hear(&mut self, number: i32) -> Then {
        match number {
            INTERRUPT => {
                self.interrupts += 1;
                if self.interrupts < 3 { Then::Go } else { Then::End }
            }
            TERMINATE => {
                self.terminations += 1;
                if self.terminations < 2 { Then::Grace } else { Then::End }
            }
            _ => Then::Go,
        }
    }
}

/// Hands every signal on as itself. Comes with the number of the one that ends our waiting: 10 s after SIGTERM, at the second one,
/// or at the third SIGINT. `says`: that the program goes on after the second one is said.
///
/// # Errors
/// The kernel's, if a signal cannot be waited for.
pub fn hand_on(inputs: ExecInputs, says: bool) -> io::Result<oneshot::Receiver<i32>> {
    let (sender, mut signals) = mpsc::channel(16);
    let ignored = ignored();
    for number in handed_on() {
        // What whoever started us had us ignore (nohup, a job in the background) stays ignored.
        if ignored & 1 << (number - 1) != 0 {
            continue;
        }
        let mut coming = signal(SignalKind::from_raw(number))?;
        let sender = sender.clone();
        tokio::spawn(async move { while coming.recv().await.is_some() && sender.send(number).await.is_ok() {} });
    }
    let (end, ended) = oneshot::channel();
    tokio::spawn(async move {
        let mut heard = Heard::default();
        let mut deadline = None;
        loop {
            let in_time = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let number = tokio::select! {
                number = signals.recv() => number,
                () = in_time => break,
            };
            let Some(number) = number else { return };
            match heard.hear(number) {
                Then::Go if says && number == INTERRUPT && heard.interrupts == 2 => {
                    eprintln!("coffer: the program goes on after ^C; a third one ends it");
                }
                Then::Go => {}
                Then::Grace => deadline = Some(tokio::time::Instant::now() + GRACE),
                Then::End => {
                    let _ = end.send(number);
                    return;
                }
            }
            // Input that the program does not read stands before it; that is no reason not to hear more.
            let _ = tokio::time::timeout(Duration::from_secs(1), inputs.send(ExecInput::Signal(number))).await;
        }
        let _ = end.send(TERMINATE);
    });
    Ok(ended)
}

/// Tells the program of each size that our terminal gets.
///
/// # Errors
/// The kernel's.
pub fn hand_on_sizes(inputs: ExecInputs) -> io::Result<()> {
    let (mut resized, mut continued) =
        (signal(SignalKind::window_change())?, signal(SignalKind::from_raw(libc::SIGCONT))?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = resized.recv() => {}
                _ = continued.recv() => {}
            }
            if !inputs.send(ExecInput::Resize(terminal::size())).await {
                return;
            }
        }
    });
    Ok(())
}

/// One bit for each signal, the first for the first. Source: proc_pid_status(5), SigIgn.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_to_end_once_and_waited_for_that_long() {
        let mut heard = Heard::default();
        let said: Vec<Then> =
            [libc::SIGHUP, INTERRUPT, libc::SIGUSR1, INTERRUPT, INTERRUPT].map(|n| heard.hear(n)).into();
        assert_eq!(said, [Then::Go, Then::Go, Then::Go, Then::Go, Then::End]);
        let mut heard = Heard::default();
        assert_eq!([TERMINATE, libc::SIGQUIT, TERMINATE].map(|n| heard.hear(n)), [Then::Grace, Then::Go, Then::End]);
    }

    #[test]
    fn what_is_about_our_own_job_is_not_handed_on() {
        let all: Vec<i32> = handed_on().collect();
        for number in
            [libc::SIGKILL, libc::SIGSTOP, libc::SIGTSTP, libc::SIGCHLD, libc::SIGPIPE, libc::SIGWINCH, libc::SIGURG]
        {
            assert!(!all.contains(&number), "{number}");
        }
        for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM, 64] {
            assert!(all.contains(&number), "{number}");
        }
    }
}
