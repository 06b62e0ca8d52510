//! Tells the host, and the console, how far the guest has come. The host never answers.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use coffer_guest_proto::{
    Event, Phase,
    event::{encode, phase_word},
    ports::HOST_EVENTS,
};
use coffer_machine::vsock::HOST_CID;
use tokio::sync::watch;

use crate::{failure::Failure, sys::vsock};

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
    line: Mutex<Option<vsock::Line>>,
    state: watch::Sender<State>,
    talkative: bool,
}

impl Events {
    /// Connects. `talkative`: whether the console gets more than fixed words.
    pub fn connect(talkative: bool) -> Self {
        let line = vsock::connect(HOST_CID, HOST_EVENTS).ok();
        if let Some(line) = &line {
            let _ = line.set_timeout(Duration::from_secs(2));
        }
        Self {
            line: Mutex::new(line),
            state: watch::Sender::new(State { phase: Phase::Unspecified, exit_status: 0 }),
            talkative,
        }
    }

    /// Without a host, for tests.
    pub fn silent() -> Self {
        Self {
            line: Mutex::new(None),
            state: watch::Sender::new(State { phase: Phase::Unspecified, exit_status: 0 }),
            talkative: false,
        }
    }

    /// The state now and later.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// A phase has been reached.
    pub fn reached(&self, phase: Phase) {
        self.send(phase, 0, "", "");
    }

    /// The workload has ended.
    pub fn exited(&self, exit_status: i32) {
        self.send(Phase::Exited, exit_status, "", "");
    }

    /// The guest gives up.
    pub fn failed(&self, failure: &Failure) {
        self.send(Phase::Failed, 0, failure.code.as_str(), &failure.detail);
    }

    fn send(&self, phase: Phase, exit_status: i32, code: &str, detail: &str) {
        self.state.send_replace(State { phase, exit_status });
        let console = if self.talkative { detail } else { "" };
        println!("coffer: {} {code} {console}", phase_word(phase));
        let event = Event {
            phase: phase.into(),
            since_boot_us: since_boot_us(),
            exit_status,
            code: code.into(),
            detail: detail.into(),
        };
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.as_mut().is_some_and(|line| line.write_all(&encode(&event)).is_err()) {
            *line = None;
        }
    }
}

/// Guest kernel clock in microseconds.
pub fn since_boot_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}
