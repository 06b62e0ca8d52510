//! Signals that we hand on to a program in a box, and when we stop waiting for what they do there.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use coffer_runtime::engine::{ExecInput, ExecInputs};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::terminal;

/// How long a program has to end once we were told to.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long it has after a SIGINT before we say that it goes on.
const MOMENT: Duration = Duration::from_secs(1);

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

/// How we stand to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// It gets our signals; else they end our waiting.
    pub proxied: bool,
    /// The number of the SIGINT that ends our waiting.
    pub interrupts: u32,
    /// Said of the one before it, where that has not ended the program.
    pub goes_on: &'static str,
}

impl Manner {
    /// Of `exec`.
    pub const EXEC: Self =
        Self { proxied: true, interrupts: 3, goes_on: "coffer: the program goes on after ^C; a third one ends it" };

    /// With `--sig-proxy`, or without.
    #[must_use]
    pub fn proxied(self, proxied: bool) -> Self {
        Self { proxied, ..self }
    }
}

/// What becomes of a signal besides being handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Go,
    /// The program has [`GRACE`] to end.
    Grace,
    /// It has had its time.
    End,
}

/// What has come so far.
#[derive(Debug)]
pub struct Heard {
    manner: Manner,
    interrupts: u32,
    terminations: u32,
}

impl Heard {
    /// Nothing yet.
    pub const fn nothing(manner: Manner) -> Self {
        Self { manner, interrupts: 0, terminations: 0 }
    }

    /// One more.
    pub fn hear(&mut self, number: i32) -> Then {
        match number {
            _ if !self.manner.proxied => Then::End,
            INTERRUPT => {
                self.interrupts += 1;
                if self.interrupts < self.manner.interrupts { Then::Go } else { Then::End }
            }
            TERMINATE => {
                self.terminations += 1;
                if self.terminations < 2 { Then::Grace } else { Then::End }
            }
            _ => Then::Go,
        }
    }
}

/// What is said of a SIGINT that the program has not ended by, a moment later; once.
#[derive(Debug)]
pub struct Patience {
    at: Option<tokio::time::Instant>,
    words: &'static str,
}

impl Heard {
    /// For the SIGINT before the last one.
    pub fn is_last_but_one(&self, number: i32) -> bool {
        number == INTERRUPT && self.interrupts + 1 == self.manner.interrupts
    }
}

impl Patience {
    /// With nothing to say yet.
    pub const fn new(words: &'static str) -> Self {
        Self { at: None, words }
    }

    /// In a moment.
    pub fn begin(&mut self) {
        self.at = Some(tokio::time::Instant::now() + MOMENT);
    }

    /// Says it when it is time to.
    pub async fn say(&mut self) {
        until(self.at).await;
        self.at = None;
        eprintln!("{}", self.words);
    }
}

/// Comes at a deadline, if there is one.
pub async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Signals that we get, in the order in which they came, also those that came before there was anybody to hand them to.
pub struct Signals {
    coming: mpsc::Receiver<i32>,
    /// Looked at, and for whoever comes.
    kept: VecDeque<i32>,
}

impl Signals {
    /// The next one; none where they cannot be waited for any more.
    pub async fn recv(&mut self) -> Option<i32> {
        match self.kept.pop_front() {
            Some(number) => Some(number),
            None => self.coming.recv().await,
        }
    }

    /// Comes with the first one that ends whoever has nothing to hand it to. The others are kept.
    pub async fn ending(&mut self) -> i32 {
        while let Some(number) = self.coming.recv().await {
            if ENDING.contains(&number) {
                return number;
            }
            self.kept.push_back(number);
        }
        std::future::pending().await
    }
}

/// What ends whoever waits for something that is not there yet.
const ENDING: [i32; 4] = [libc::SIGHUP, INTERRUPT, libc::SIGQUIT, TERMINATE];

/// The signals that we get and a program can be handed. `sizes`: also that our terminal has another size, for a program that has none
/// of its own. Where none is handed on, those that would end us.
///
/// # Errors
/// The kernel's, if a signal cannot be waited for.
pub fn coming(manner: Manner, sizes: bool) -> io::Result<Signals> {
    let (sender, coming) = mpsc::channel(16);
    let ignored = ignored();
    let wanted = |number: &i32| manner.proxied || ENDING.contains(number);
    for number in handed_on().chain(sizes.then_some(libc::SIGWINCH)).filter(wanted) {
        // What whoever started us had us ignore (nohup, a job in the background) stays ignored.
        if ignored & 1 << (number - 1) != 0 {
            continue;
        }
        let mut coming = signal(SignalKind::from_raw(number))?;
        let sender = sender.clone();
        tokio::spawn(async move { while coming.recv().await.is_some() && sender.send(number).await.is_ok() {} });
    }
    Ok(Signals { coming, kept: VecDeque::new() })
}

/// Hands every signal on as itself. Comes with the number of the one that ends our waiting: 10 s after SIGTERM, at the second one,
/// or at the last SIGINT of `manner`. `says`: that the program goes on after the one before it is said.
pub fn hand_on(inputs: ExecInputs, mut signals: Signals, manner: Manner, says: bool) -> oneshot::Receiver<i32> {
    let (end, ended) = oneshot::channel();
    tokio::spawn(async move {
        let mut heard = Heard::nothing(manner);
        let mut patience = Patience::new(manner.goes_on);
        let mut deadline = None;
        loop {
            let number = tokio::select! {
                number = signals.recv() => number,
                () = until(deadline) => break,
                () = patience.say() => continue,
            };
            let Some(number) = number else { return std::future::pending().await };
            match heard.hear(number) {
                Then::Go if says && heard.is_last_but_one(number) => patience.begin(),
                Then::Go => {}
                Then::Grace => deadline = Some(tokio::time::Instant::now() + GRACE),
                Then::End => {
                    let _ = end.send(number);
                    return;
                }
            }
            deliver(&inputs, number).await;
        }
        let _ = end.send(TERMINATE);
    });
    ended
}

/// Hands one on. Input that the program does not read stands before it; that is no reason not to hear more.
pub async fn deliver(inputs: &ExecInputs, number: i32) {
    let _ = tokio::time::timeout(Duration::from_secs(1), inputs.send(ExecInput::Signal(number))).await;
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
        let mut heard = Heard::nothing(Manner::EXEC);
        let said: Vec<Then> =
            [libc::SIGHUP, INTERRUPT, libc::SIGUSR1, INTERRUPT, INTERRUPT].map(|n| heard.hear(n)).into();
        assert_eq!(said, [Then::Go, Then::Go, Then::Go, Then::Go, Then::End]);
        let mut heard = Heard::nothing(Manner::EXEC);
        assert_eq!([TERMINATE, libc::SIGQUIT, TERMINATE].map(|n| heard.hear(n)), [Then::Grace, Then::Go, Then::End]);
        let mut heard = Heard::nothing(Manner { interrupts: 2, ..Manner::EXEC });
        assert_eq!(heard.hear(INTERRUPT), Then::Go);
        assert!(heard.is_last_but_one(INTERRUPT) && !heard.is_last_but_one(TERMINATE));
        assert_eq!(heard.hear(INTERRUPT), Then::End);
        // Not handed on, the first ends our waiting.
        assert_eq!(Heard::nothing(Manner::EXEC.proxied(false)).hear(libc::SIGHUP), Then::End);
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
