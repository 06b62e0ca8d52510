//! What a running box uses, as its own guest counts it: asked as the host where the spec lets it, else as a listed owner.
//!
//! Believes the guest: the figures decide nothing. A guest that does not answer is given up after a while.

use std::time::Duration;

use coffer_guest_proto::control_client::ControlClient;
use coffer_guest_proto::{StatsRequest, StatsResponse};
use coffer_spec::Act;
use tonic::transport::Channel;

use super::guest::Guest;
use super::prove::Kept;
use super::{Engine, ExecError, OpenError, Trust};
use crate::state::BoxState;
use crate::{Class, Failure, agent};

/// What a box uses. What there is no figure of is absent: a box without a machine does not tell its host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Since when it counts.
    pub uptime: Duration,
    /// Programs, or processes of its kernel.
    pub processes: u32,
    /// Processors it has.
    pub processors: Option<u32>,
    /// Time of all its processors.
    pub busy: Option<Duration>,
    /// Bytes of memory in use.
    pub memory: Option<u64>,
    /// Bytes of memory it has.
    pub memory_limit: Option<u64>,
    /// Bytes received and sent, where it has a network.
    pub network: Option<(u64, u64)>,
    /// Bytes read from its disks and written to them.
    pub disk: Option<(u64, u64)>,
}

impl Usage {
    /// Per cent of one processor, between an earlier look and this one.
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    pub fn processor_percent(&self, before: &Self) -> Option<f64> {
        let time = self.uptime.checked_sub(before.uptime).filter(|time| !time.is_zero())?;
        // Programs that ended unseen may take theirs with them.
        let busy = self.busy?.saturating_sub(before.busy?);
        Some(busy.as_micros() as f64 * 100.0 / time.as_micros() as f64)
    }

    /// Per cent of its memory.
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    pub fn memory_percent(&self) -> Option<f64> {
        let limit = self.memory_limit.filter(|limit| *limit > 0)?;
        Some(self.memory? as f64 * 100.0 / limit as f64)
    }
}

impl From<StatsResponse> for Usage {
    fn from(told: StatsResponse) -> Self {
        let used = told.memory_total_bytes.checked_sub(told.memory_available_bytes).filter(|used| *used > 0);
        Self {
            uptime: Duration::from_micros(told.uptime_us),
            processes: told.processes,
            processors: told.processors,
            busy: told.busy_us.map(Duration::from_micros),
            memory: told.memory_used_bytes.or(used),
            memory_limit: Some(told.memory_total_bytes).filter(|total| *total > 0),
            network: told.network_received_bytes.zip(told.network_sent_bytes),
            disk: told.disk_read_bytes.zip(told.disk_written_bytes),
        }
    }
}

/// A way to the figures of one box, which stays open.
pub struct Meter {
    control: ControlClient<Channel>,
    /// Attestation is the state of a connection, so the connection outlives the call.
    connection: Option<Kept>,
}

/// How long a guest may take for its figures.
const PATIENCE: Duration = Duration::from_secs(10);

impl Meter {
    /// The figures of now.
    ///
    /// # Errors
    /// Class `unreachable` if the guest does not give any, or `refused`.
    pub async fn read(&mut self) -> Result<Usage, ExecError> {
        let Self { control, connection } = self;
        let answer = tokio::time::timeout(PATIENCE, async {
            let call = control.stats(StatsRequest {});
            // Over a plain port whoever is inside could say anything; over a proven one it is the agent.
            match connection {
                Some(kept) => kept.unless_lapsed(call).await?.map_err(|status| agent::of_status(&status)),
                None => call.await.map_err(|status| agent::of_plain_status(&status)),
            }
        });
        let silent = |_| Failure::new(Class::Unreachable, "the guest's agent says nothing of what it uses");
        Ok(answer.await.map_err(silent)??.into_inner().into())
    }
}

impl Engine {
    /// The way to what a box uses. `trust`: what the guest must prove where only its owner may see it.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn meter(&self, word: &str, trust: &Trust) -> Result<Meter, ExecError> {
        let record = match self.guest(word)? {
            Guest::Here(record) => record,
            guest @ Guest::Elsewhere(_) => return self.meter_of(&guest, trust).await,
        };
        match record.state {
            BoxState::Running => {}
            BoxState::Paused => return Err(ExecError::Paused(record.name)),
            _ => return Err(ExecError::NotRunning(record.name)),
        }
        let document = self.document(&record)?;
        if document.spec().host_may.allows(Act::Stats) {
            let folder = self.home().map_err(OpenError::from)?.box_folder(&record.id);
            return Ok(Meter { control: agent::control(&folder).await?, connection: None });
        }
        self.owner_listed(&document, &record.name, Act::Stats)?;
        self.meter_of(&Guest::Here(record), trust).await
    }

    async fn meter_of(&self, guest: &Guest, trust: &Trust) -> Result<Meter, ExecError> {
        let kept = Kept::new(self.connect(guest, trust).await?);
        Ok(Meter { control: ControlClient::new(kept.channel()), connection: Some(kept) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> StatsResponse {
        StatsResponse {
            memory_total_bytes: 1000,
            memory_available_bytes: 750,
            uptime_us: 2_000_000,
            processes: 3,
            busy_us: Some(1_500_000),
            network_received_bytes: Some(1),
            ..StatsResponse::default()
        }
    }

    #[test]
    fn what_is_not_told_is_no_figure() {
        let usage = Usage::from(told());
        assert_eq!((usage.memory, usage.memory_limit, usage.memory_percent()), (Some(250), Some(1000), Some(25.0)));
        assert_eq!((usage.network, usage.disk), (None, None), "half of a pair");
        let none = Usage::from(StatsResponse::default());
        assert_eq!((none.memory, none.memory_limit, none.memory_percent(), none.busy), (None, None, None, None));
        let nonsense = StatsResponse { memory_available_bytes: 2000, ..told() };
        assert_eq!(Usage::from(nonsense).memory, None);
    }

    #[test]
    fn processors_are_counted_between_two_looks() {
        let (before, after) = (Usage::from(told()), StatsResponse { uptime_us: 3_000_000, ..told() });
        let of = |busy_us| Usage::from(StatsResponse { busy_us, ..after }).processor_percent(&before);
        assert_eq!(of(Some(2_000_000)), Some(50.0));
        assert_eq!(of(Some(3_500_000)), Some(200.0), "two of them");
        assert_eq!(of(Some(0)), Some(0.0), "programs took theirs with them");
        assert_eq!(of(None), None);
        assert_eq!(before.processor_percent(&before), None, "no time has passed");
    }
}
