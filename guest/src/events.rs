//! Tells the host, and the console, how far the guest has come. The host never answers; behind the last word it hangs up.

use std::{
    io::{self, Read as _, Write as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use coffer_guest_proto::{Event, Phase, Speech, event::encode, ports::HOST_EVENTS};
use tokio::sync::watch;

use crate::{failure::Failure, host::Host, sys::vsock::Line};

/// The state everybody may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// How far.
    pub phase: Phase,
    /// With `Exited`.
    pub exit_status: i32,
}

/// The line to the host. Without one the guest goes on: the host may only refuse service.
#[derive(Debug)]
pub struct Events {
    line: Mutex<Option<Line>>,
    state: watch::Sender<State>,
    speech: Speech,
    /// When this guest's time began, on the kernel's clock.
    began_us: u64,
}

impl Events {
    /// Connects. `speech`: whether host and console get more than fixed words. `began_us`: what its kernel's clock showed when
    /// this guest began, in microseconds: 0 where the kernel is the guest's own.
    pub fn connect(host: Host, speech: Speech, began_us: u64) -> Self {
        let line = host.connect(HOST_EVENTS).ok();
        if let Some(line) = &line {
            let _ = line.set_timeout(Duration::from_secs(2));
        }
        Self {
            line: Mutex::new(line),
            state: watch::Sender::new(State { phase: Phase::Unspecified, exit_status: 0 }),
            speech,
            began_us,
        }
    }

    /// Without a host, for tests.
    pub fn silent() -> Self {
        Self {
            line: Mutex::new(None),
            state: watch::Sender::new(State { phase: Phase::Unspecified, exit_status: 0 }),
            speech: Speech::FixedWords,
            began_us: 0,
        }
    }

    /// The state now and later.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// A phase has been reached.
    pub fn reached(&self, phase: Phase) {
        self.send(Event { phase: phase.into(), ..Event::default() });
    }

    /// The workload has ended.
    pub fn exited(&self, exit_status: i32) {
        self.send(Event { phase: Phase::Exited.into(), exit_status, ..Event::default() });
    }

    /// The guest gives up.
    pub fn failed(&self, failure: &Failure) {
        self.send(failed(failure, self.speech));
    }

    /// Blocks until the host has hung up, as it does once it has the last word, but no longer than `patience`: what lies in a line
    /// of a machine that ends is lost. A host that answers is not waited for.
    pub fn wait_until_heard(&self, patience: Duration) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner).take();
        match line {
            Some(mut line) if line.set_timeout(patience).is_ok() => {
                let begun = Instant::now();
                // A child that ends meanwhile breaks off the reading, not the waiting.
                while line.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
                    && begun.elapsed() < patience
                {}
            }
            _ => std::thread::sleep(patience),
        }
    }

    /// Microseconds since this guest began.
    pub fn age_us(&self) -> u64 {
        since_boot_us().saturating_sub(self.began_us)
    }

    fn send(&self, event: Event) {
        let event = Event { since_boot_us: self.age_us(), ..event };
        let Event { exit_status, code, detail, .. } = &event;
        self.state.send_replace(State { phase: event.phase(), exit_status: *exit_status });
        println!("coffer: {} {code} {detail}", event.phase().word());
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.as_mut().is_some_and(|line| line.write_all(&encode(&event)).is_err()) {
            *line = None;
        }
    }
}

/// The event of a guest that gives up. In TEE mode no sentence leaves: it may hold names of the workload's.
fn failed(failure: &Failure, speech: Speech) -> Event {
    Event {
        phase: Phase::Failed.into(),
        code: failure.code.word().into(),
        detail: match speech {
            Speech::FixedWords => String::new(),
            Speech::Sentences => failure.detail.clone(),
        },
        errno: failure.errno,
        denial_id: failure.denial_id,
        ..Event::default()
    }
}

/// The kernel's clock in microseconds.
pub fn since_boot_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use std::os::{fd::OwnedFd, unix::net::UnixStream};

    use super::*;
    use crate::failure::Code;

    #[test]
    fn a_tee_guest_tells_its_host_words_and_numbers_and_no_sentence() {
        let failure = Failure { errno: 28, ..Failure::new(Code::NotReleased, "kbs:///a/b/the-secret-project") };
        let event = failed(&failure, Speech::FixedWords);
        assert_eq!((event.code.as_str(), event.detail.as_str(), event.errno), ("not-released", "", 28));
        assert_eq!(failed(&failure, Speech::Sentences).detail, failure.detail);
    }

    #[test]
    fn the_last_word_is_waited_for_until_the_host_hangs_up_and_no_longer_than_said() {
        let connected = || {
            let (host, guest) = UnixStream::pair().unwrap();
            (host, Events { line: Mutex::new(Some(OwnedFd::from(guest).into())), ..Events::silent() })
        };
        let long = Duration::from_mins(10);
        let (mut host, events) = connected();
        let waits = std::thread::spawn(move || {
            events.exited(3);
            events.wait_until_heard(long);
        });
        host.read_exact(&mut [0; 4]).unwrap();
        drop(host);
        waits.join().unwrap();
        // One that answers, against what was agreed.
        let (mut host, events) = connected();
        host.write_all(b"x").unwrap();
        events.wait_until_heard(long);
        // Two that say nothing.
        let (_host, events) = connected();
        let begun = Instant::now();
        events.wait_until_heard(Duration::from_millis(30));
        Events::silent().wait_until_heard(Duration::from_millis(30));
        assert!(begun.elapsed() >= Duration::from_millis(50), "{:?}", begun.elapsed());
    }
}
