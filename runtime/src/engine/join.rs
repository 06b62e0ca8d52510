//! To a box's own program: as the host where the spec lets it, else as owner in a guest that proves itself first.
//!
//! Never: ends the program, or its input, because a session is dropped.

use coffer_guest_proto::exec_request::Message as Ask;
use coffer_guest_proto::{Attach, Shown as Wire};
use coffer_spec::{Act, Document, Tee};

use super::{Engine, ExecError, ExecSession, TerminalSize, Trust};
use crate::state::BoxRecord;

/// How one attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// What comes of what the program writes.
    pub shown: Shown,
    /// Size of our terminal, where the program has one.
    pub terminal: Option<TerminalSize>,
}

/// Which of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// What it writes from now on.
    FromNow,
    /// And what was written before, as far as the guest keeps it.
    FromBeginning,
    /// Nothing.
    Not,
}

impl From<AttachRequest> for Ask {
    fn from(request: AttachRequest) -> Self {
        let shown = match request.shown {
            Shown::FromNow => Wire::FromNow,
            Shown::FromBeginning => Wire::FromBeginning,
            Shown::Not => Wire::Not,
        };
        Self::Attach(Attach { shown: shown.into(), terminal: request.terminal.map(Into::into) })
    }
}

impl Engine {
    /// Attaches to a box. `trust`: what its guest must prove where only its owner may.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn attach(&self, word: &str, request: AttachRequest, trust: &Trust) -> Result<ExecSession, ExecError> {
        self.begin(word, Act::Attach, request.into(), trust).await
    }

    /// Attaches to a box that its caller has just started, once its agent answers: its record may not say yet that it runs.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn attach_started(
        &self,
        record: &BoxRecord,
        request: AttachRequest,
        trust: &Trust,
    ) -> Result<ExecSession, ExecError> {
        self.begin_in(record, Act::Attach, request.into(), trust).await
    }
}

impl Trust {
    /// What a guest of this spec must prove to whoever starts it and attaches: nothing where the host may; where only its owner may, it
    /// is simulated and the simulator of this installation is believed, that. Else nobody attaches who names no reference.
    pub fn to_attach(document: &Document, record: &BoxRecord, allow_simulated: bool) -> Option<Self> {
        let spec = document.spec();
        match spec.tee {
            _ if spec.host_may.allows(Act::Attach) => Some(Self::default()),
            Tee::Simulated if allow_simulated => Some(Self::of_own_simulator(record)),
            _ => None,
        }
    }
}
