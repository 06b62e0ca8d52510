//! The agent: gRPC on vsock for the host, within `host_may`, and over RA-TLS for owners, each within `may`.

mod answers;
mod asked;
mod attach;
mod authority;
mod control;
mod exec;
mod gate;
mod owner;
mod refresh;
mod request;
mod room;
mod running;
mod said;
pub mod serve;
mod shares;
mod stats;
#[cfg(test)]
mod tests;
mod turns;
mod typing;

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use coffer_guest_proto::Stream;
use coffer_spec::{Document, Tee};
use tokio::sync::{RwLock, Semaphore, watch};

pub use asked::refusal_of;
pub use refresh::keep_current;
pub use room::Wide;
pub use said::Said;
pub use shares::Shares;

use crate::{
    broker::questions::Questions,
    ending::Ending,
    events::Events,
    lines::Ways,
    log_ring::LogRing,
    owners::{Owners, OwnersError},
    reaper::Reaper,
    secret_env::SecretEnv,
    secrets::Refresher,
    sys::process_id::ProcessId,
    workload::{Places, unix_nanos},
};

/// Programs beside the workload at one time.
const MOST_BESIDE: usize = 256;

/// Those of them that somebody attends to, or did: each costs the agent a few buffers.
const MOST_ATTENDED: usize = 32;

/// Callers who are at the workload's own program at one time.
const MOST_AT_IT: usize = 32;

/// Readers of the log at one time, those of the host among them.
const MOST_READERS: usize = 16;

/// A request to end, by the host or an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopOrder {
    /// Seconds between the spec's signal and SIGKILL.
    pub grace_seconds: u32,
}

/// What every service shares.
pub struct Agent {
    /// The spec this guest was launched with.
    pub document: Document,
    /// Who may ask over RA-TLS.
    pub owners: Owners,
    /// Phase and exit status.
    pub events: Arc<Events>,
    /// The workload's output.
    pub logs: Arc<LogRing>,
    /// Waits for children.
    pub reaper: Arc<Reaper>,
    /// Where things are.
    pub places: Places,
    /// What is added to every environment: secrets that go there. In place before the workload runs.
    pub secret_env: RwLock<SecretEnv>,
    /// Programs that may still be started beside the workload.
    pub beside: Arc<Semaphore>,
    /// Those of them that may have somebody who attends to them.
    pub attended: Shares,
    /// Room that callers have for what they leave unread.
    pub wide: Wide,
    /// Who may still come to the workload's own program.
    pub at_it: Shares,
    /// Who may still come to read the log.
    pub readers: Shares,
    /// How often the key broker is asked, and for whom.
    pub questions: Arc<Questions>,
    /// What was said in the output already.
    pub said: Said,
    /// Whether the workload was told to end.
    pub ending: Ending,
    /// Asks the key broker again, if it has a part in this guest.
    pub refresher: OnceLock<Refresher>,
    workload: Mutex<Option<Ways>>,
    stop: watch::Sender<Option<StopOrder>>,
}

impl Agent {
    /// An agent without a workload yet.
    pub fn new(document: Document, events: Arc<Events>, places: Places) -> Self {
        let shares = |most| Shares::new(most, document.spec().tee != Tee::None);
        let [attended, at_it, readers] = [MOST_ATTENDED, MOST_AT_IT, MOST_READERS].map(shares);
        Self {
            owners: Owners::of(document.spec()),
            document,
            events,
            logs: Arc::new(LogRing::new(crate::log_ring::CAPACITY)),
            reaper: Arc::default(),
            places,
            secret_env: RwLock::default(),
            beside: Arc::new(Semaphore::new(MOST_BESIDE)),
            attended,
            wide: Wide::default(),
            at_it,
            readers,
            questions: Arc::default(),
            said: Said::default(),
            ending: Ending::default(),
            refresher: OnceLock::new(),
            workload: Mutex::default(),
            stop: watch::Sender::new(None),
        }
    }

    /// The workload's process while it runs.
    pub fn workload(&self) -> Option<ProcessId> {
        self.ways().map(|ways| ways.process)
    }

    /// The ways to the workload while it runs.
    pub fn ways(&self) -> Option<Ways> {
        self.workload.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has started, or ended.
    pub fn set_workload(&self, ways: Option<Ways>) {
        *self.workload.lock().unwrap_or_else(PoisonError::into_inner) = ways;
    }

    /// Orders to end, as they come.
    pub fn stop_orders(&self) -> watch::Receiver<Option<StopOrder>> {
        self.stop.subscribe()
    }

    /// Says in the output that a list of owners is not taken.
    pub async fn say_of_owners(&self, error: &OwnersError) {
        self.say("owners", error.word(), &format!("owners: {}: {}", error.word(), error.why())).await;
    }

    /// Says it in the output, unless the same cause was said of the same thing a moment ago.
    async fn say(&self, about: &str, cause: &str, said: &str) {
        if self.said.is_due(about, cause, Instant::now()) {
            self.logs.push(Stream::Stderr, unix_nanos(), format!("coffer: {said}\n").as_bytes()).await;
        }
    }

    fn order_stop(&self, order: StopOrder) {
        self.ending.is_told();
        self.stop.send_replace(Some(order));
    }
}
