//! Tells the host, and the console, how far the guest has come. The host never answers.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
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
    use super::*;
    use crate::failure::Code;

    #[test]
    fn a_tee_guest_tells_its_host_words_and_numbers_and_no_sentence() {
        let failure = Failure { errno: 28, ..Failure::new(Code::NotReleased, "kbs:///a/b/the-secret-project") };
        let event = failed(&failure, Speech::FixedWords);
        assert_eq!((event.code.as_str(), event.detail.as_str(), event.errno), ("not-released", "", 28));
        assert_eq!(failed(&failure, Speech::Sentences).detail, failure.detail);
    }
}
