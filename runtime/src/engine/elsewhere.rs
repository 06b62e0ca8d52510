//! Ends a guest elsewhere, or sends a workload a signal, as its owner: where its host has no word in it but the plug.

use std::time::Duration;

use coffer_guest_proto::control_client::ControlClient;
use coffer_guest_proto::{SignalRequest, StateRequest, StopRequest};
use coffer_spec::Act;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

use super::guest::Guest;
use super::prove::{Kept, OwnerMayNot, ProveError, must_run};
use super::{Engine, Fault, Hint, How, OpenError, Trust};
use crate::{Class, Failure, agent};

/// Why a guest elsewhere does not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElsewhereError {
    /// It is no address.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The guest did not prove itself.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// It is a box here, of which its host decides.
    #[error("{0} is a box of this machine: its host does that, and nothing of it is proved")]
    Here(String),
    /// Of a box here: its spec does not let its owner, either.
    #[error(transparent)]
    MayNot(#[from] OwnerMayNot),
    /// Its agent refused, or the line broke.
    #[error(transparent)]
    Agent(#[from] Failure),
}

impl Fault for ElsewhereError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Prove(error) => error.class(),
            Self::Here(_) => Class::Usage,
            Self::MayNot(error) => error.class(),
            Self::Agent(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Prove(error) => error.hint(),
            Self::Here(_) => Some("leave out what it must prove".into()),
            Self::MayNot(error) => error.hint(),
            Self::Agent(failure) => Fault::hint(failure),
        }
    }
}

/// Seconds that a workload has where nobody says how many: what a box was made with its host alone knows.
const GRACE: u32 = 10;
/// How often it is looked whether a guest has ended, and how long that may take beyond its grace.
const LOOK: Duration = Duration::from_millis(200);
const AFTERMATH: Duration = Duration::from_secs(15);

impl Engine {
    /// Stops a guest elsewhere, and waits until its line ends: that it has ended is its host's word.
    ///
    /// # Errors
    /// [`ElsewhereError`].
    pub async fn stop_elsewhere(&self, word: &str, how: How, trust: &Trust) -> Result<(), ElsewhereError> {
        let (mut control, mut kept) = self.control_elsewhere(word, trust).await?;
        let refused = |status: tonic::Status| agent::of_status(&status);
        let grace_seconds = match how {
            How::Kill => 0,
            How::Grace(grace) | How::Signal { grace: Some(grace), .. } => grace,
            How::Own | How::Signal { grace: None, .. } => GRACE,
        };
        let grace = Duration::from_secs(grace_seconds.into());
        if let How::Signal { number, .. } = how {
            control.signal(SignalRequest { number }).await.map_err(refused)?;
            if let Ok(ended) = timeout(grace, kept.unless_lapsed(gone(&mut control))).await {
                return Ok(ended??);
            }
        }
        control.stop(StopRequest { grace_seconds }).await.map_err(refused)?;
        let late = || Failure::new(Class::Unreachable, "it took the order, and has not ended");
        let ended = timeout(grace + AFTERMATH, kept.unless_lapsed(gone(&mut control))).await;
        Ok(ended.map_err(|_| late())???)
    }

    /// Sends a workload a signal as its owner: of a guest elsewhere any, of a box here one that takes the right to exec.
    ///
    /// # Errors
    /// [`ElsewhereError`].
    pub async fn signal_as_owner(&self, word: &str, number: i32, trust: &Trust) -> Result<(), ElsewhereError> {
        let guest = self.guest(word)?;
        if let Guest::Here(record) = &guest {
            must_run(record)?;
            let document = self.document(record)?;
            let act = Act::of_signal(number, document.spec().process.stop_signal);
            if number == libc::SIGKILL || act != Act::Exec {
                return Err(ElsewhereError::Here(record.name.clone()));
            }
            self.owner_listed(&document, &record.name, act)?;
        }
        let (mut control, _kept) = self.control(&guest, trust).await?;
        Ok(control.signal(SignalRequest { number }).await.map(drop).map_err(|status| agent::of_status(&status))?)
    }

    async fn control_elsewhere(
        &self,
        word: &str,
        trust: &Trust,
    ) -> Result<(ControlClient<Channel>, Kept), ElsewhereError> {
        let guest = self.guest(word)?;
        if let Guest::Here(record) = guest {
            return Err(ElsewhereError::Here(record.name));
        }
        self.control(&guest, trust).await
    }

    async fn control(&self, guest: &Guest, trust: &Trust) -> Result<(ControlClient<Channel>, Kept), ElsewhereError> {
        let kept = Kept::new(self.connect(guest, trust).await?);
        Ok((ControlClient::new(kept.channel()), kept))
    }
}

/// Until its agent does not answer any more. A refusal is an answer, and no end.
async fn gone(control: &mut ControlClient<Channel>) -> Result<(), Failure> {
    loop {
        match control.state(StateRequest {}).await {
            Ok(_) => sleep(LOOK).await,
            Err(status) if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) => {
                return Err(agent::of_status(&status));
            }
            Err(_) => return Ok(()),
        }
    }
}
