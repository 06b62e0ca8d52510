//! Runs a program in a running box: as the host where the spec lets it, else as owner in a guest that proves itself first.

use coffer_guest_proto::exec_client::ExecClient;
use coffer_guest_proto::exec_request::Message as Ask;
use coffer_guest_proto::exec_response::Message as Tell;
use coffer_guest_proto::exec_start::Own;
use coffer_guest_proto::{ExecRequest as Frame, ExecResponse, ExecStart, STDIN_ROOM, TerminalSize as Size};
use coffer_spec::Act;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::guest::Guest;
use super::prove::{Kept, OwnerMayNot, ProveError};
use super::stdin_room::{PIECE, Room};
use super::{Engine, Fault, Hint, OpenError, Trust};
use crate::state::{BoxRecord, BoxState};
use crate::{Class, Failure, agent};

/// A program to run in a box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// NAME=value, on top of the workload's own.
    pub env: Vec<String>,
    /// Working directory [default: the workload's].
    pub cwd: Option<String>,
    /// User: name or id, and optionally :group [default: the workload's].
    pub user: Option<String>,
    /// A terminal of this size; all that the program writes comes as standard output then.
    pub terminal: Option<TerminalSize>,
    /// It goes on by itself: no input, and what it writes is dropped.
    pub detached: bool,
}

/// Size of a terminal in characters, 0 where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in each.
    pub columns: u16,
}

impl From<TerminalSize> for Size {
    fn from(TerminalSize { rows, columns }: TerminalSize) -> Self {
        Self { rows: rows.into(), columns: columns.into() }
    }
}

/// What goes to the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes on its standard input.
    Stdin(Vec<u8>),
    /// The end of its standard input.
    StdinClosed,
    /// A signal's number.
    Signal(i32),
    /// Its terminal has another size.
    Resize(TerminalSize),
    /// It goes on without us; [`ExecOutput::Detached`] comes once it is known there.
    Detach,
}

/// What comes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of its standard output.
    Stdout(Vec<u8>),
    /// Bytes of its standard error.
    Stderr(Vec<u8>),
    /// It ended with this status. Nothing follows.
    Exited(i32),
    /// It goes on without us. Nothing follows.
    Detached,
    /// So many bytes of its output do not come: we read too slowly.
    Lost(u64),
    /// This signal was not sent, for want of the right to it.
    SignalRefused(i32),
}

/// Why a program does not run in a box.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something that was given is empty.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// The box does not run.
    #[error("box {0} is not running")]
    NotRunning(String),
    /// Nothing runs in it until it goes on.
    #[error("box {0} is paused")]
    Paused(String),
    /// Neither host nor owner may.
    #[error(transparent)]
    MayNot(#[from] OwnerMayNot),
    /// The guest did not prove itself.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// The guest's agent does not answer, or refuses.
    #[error(transparent)]
    Agent(#[from] Failure),
    /// No status of the program came.
    #[error("the guest ended before the program did")]
    GuestEnded,
    /// What was asked for came after its agent.
    #[error("the guest's agent is of an older release, and does not know what it was asked for")]
    OlderAgent,
}

impl Fault for ExecError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Empty(_) => Class::Usage,
            Self::NotRunning(_) | Self::Paused(_) => Class::Config,
            Self::OlderAgent => Class::Platform,
            Self::MayNot(error) => error.class(),
            Self::Prove(error) => error.class(),
            Self::Agent(failure) => failure.class(),
            Self::GuestEnded => Class::Unreachable,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::NotRunning(name) => Some(Hint::StartBox { name: name.clone() }),
            Self::Paused(name) => Some(Hint::UnpauseBox { name: name.clone() }),
            Self::MayNot(error) => error.hint(),
            Self::Prove(error) => error.hint(),
            Self::Agent(failure) => Fault::hint(failure),
            Self::OlderAgent => Some("create the box anew, on the platform of this release".to_owned().into()),
            Self::Empty(_) | Self::GuestEnded => None,
        }
    }

    fn docker_code(&self) -> Option<u8> {
        match self {
            Self::Agent(failure) => failure.docker_code(),
            _ => None,
        }
    }
}

impl ExecRequest {
    /// Empty is not absent.
    fn check(&self) -> Result<(), ExecError> {
        let empty = |text: &Option<String>| text.as_deref() == Some("");
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(ExecError::Empty("program"));
        }
        if self.env.iter().any(|entry| entry.is_empty() || entry.starts_with('=')) {
            return Err(ExecError::Empty("name of an environment variable"));
        }
        match (empty(&self.cwd), empty(&self.user)) {
            (true, _) => Err(ExecError::Empty("working directory")),
            (_, true) => Err(ExecError::Empty("user")),
            _ => Ok(()),
        }
    }
}

/// A program that runs in a box. Dropping it ends the program's lines, and with them the program's owner's interest in it.
pub struct ExecSession {
    input: mpsc::Sender<Frame>,
    room: Room,
    answers: Streaming<ExecResponse>,
    /// The agent has not yet said that it knows what it was asked for.
    unheard: bool,
    /// Attestation is the state of a connection, so the connection outlives the call.
    connection: Option<Kept>,
}

/// The sending side of an [`ExecSession`]. It ends with that, whoever holds it.
#[derive(Clone, Debug)]
pub struct ExecInputs {
    line: mpsc::WeakSender<Frame>,
    room: Room,
}

impl ExecInputs {
    /// Sends; false once the program, or the session, has ended. Input waits until the program reads; nothing else waits for it.
    pub async fn send(&self, input: ExecInput) -> bool {
        let ask = match input {
            ExecInput::Stdin(bytes) => {
                for piece in bytes.chunks(PIECE) {
                    if !self.room.take(piece.len()).await || !self.ask(Ask::Stdin(piece.to_vec())).await {
                        return false;
                    }
                }
                return true;
            }
            ExecInput::StdinClosed => Ask::StdinClosed(true),
            ExecInput::Signal(number) => Ask::Signal(number),
            ExecInput::Resize(size) => Ask::Resize(size.into()),
            ExecInput::Detach => Ask::Detach(true),
        };
        self.ask(ask).await
    }

    async fn ask(&self, ask: Ask) -> bool {
        let Some(line) = self.line.upgrade() else { return false };
        line.send(Frame { message: Some(ask) }).await.is_ok()
    }
}

impl Drop for ExecSession {
    fn drop(&mut self) {
        self.room.end();
    }
}

impl ExecSession {
    /// The way to the program.
    pub fn inputs(&self) -> ExecInputs {
        ExecInputs { line: self.input.downgrade(), room: self.room.clone() }
    }

    /// The next piece from the program.
    ///
    /// # Errors
    /// [`ExecError::Agent`] or [`ExecError::GuestEnded`].
    pub async fn next(&mut self) -> Result<ExecOutput, ExecError> {
        loop {
            // Over a plain port whoever is inside could say anything; over a proven one it is the agent.
            let next = self.answers.message();
            let answer = match &mut self.connection {
                Some(kept) => kept.unless_lapsed(next).await?.map_err(|status| agent::of_status(&status))?,
                None => next.await.map_err(|status| agent::of_plain_status(&status))?,
            };
            let Some(answer) = answer else { return Err(ExecError::GuestEnded) };
            match answer.message {
                Some(Tell::Heard(_)) => self.unheard = false,
                Some(_) if self.unheard => return Err(ExecError::OlderAgent),
                Some(Tell::Detached(_)) => return Ok(ExecOutput::Detached),
                Some(Tell::Stdout(bytes)) => return Ok(ExecOutput::Stdout(bytes)),
                Some(Tell::Stderr(bytes)) => return Ok(ExecOutput::Stderr(bytes)),
                Some(Tell::ExitStatus(code)) => return Ok(ExecOutput::Exited(code)),
                Some(Tell::StdinRoom(more)) => self.room.give(more),
                Some(Tell::Lost(bytes)) => return Ok(ExecOutput::Lost(bytes)),
                Some(Tell::RefusedSignal(number)) => return Ok(ExecOutput::SignalRefused(number)),
                None => {}
            }
        }
    }
}

impl Engine {
    /// Runs a program. `trust`: what the guest must prove where only its owner may.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn exec(&self, word: &str, request: ExecRequest, trust: &Trust) -> Result<ExecSession, ExecError> {
        request.check()?;
        let ExecRequest { argv, env, cwd, user, terminal, detached } = request;
        let terminal = terminal.map(Into::into);
        let start = ExecStart { argv, env, cwd, user, terminal, detached, own: None };
        self.begin(word, Act::Exec, Ask::Start(start), trust).await
    }

    /// The session that `first` begins, which its caller must be let `act` for.
    pub(super) async fn begin(
        &self,
        word: &str,
        act: Act,
        first: Ask,
        trust: &Trust,
    ) -> Result<ExecSession, ExecError> {
        let record = match self.guest(word)? {
            Guest::Here(record) => record,
            // It is an owner's, and its guest knows what he may.
            guest @ Guest::Elsewhere(_) => return self.begin_as_owner(&guest, act, first, trust).await,
        };
        match record.state {
            BoxState::Running => self.begin_in(&record, act, first, trust).await,
            BoxState::Paused => Err(ExecError::Paused(record.name)),
            _ => Err(ExecError::NotRunning(record.name)),
        }
    }

    /// The same in a box that runs, whether or not its record says so yet.
    pub(super) async fn begin_in(
        &self,
        record: &BoxRecord,
        act: Act,
        first: Ask,
        trust: &Trust,
    ) -> Result<ExecSession, ExecError> {
        let document = self.document(record)?;
        if document.spec().host_may.allows(act) {
            let home = self.home().map_err(OpenError::from)?;
            return session(agent::exec(&home.box_folder(&record.id)).await?, None, act, first).await;
        }
        self.owner_listed(&document, &record.name, act)?;
        let record = BoxRecord { state: BoxState::Running, ..record.clone() };
        self.begin_as_owner(&Guest::Here(Box::new(record)), act, first, trust).await
    }

    async fn begin_as_owner(
        &self,
        guest: &Guest,
        act: Act,
        first: Ask,
        trust: &Trust,
    ) -> Result<ExecSession, ExecError> {
        let kept = Kept::new(self.connect(guest, trust).await?);
        session(ExecClient::new(kept.channel()), Some(kept), act, first).await
    }
}

/// The session on this connection.
async fn session(
    mut client: ExecClient<Channel>,
    connection: Option<Kept>,
    act: Act,
    first: Ask,
) -> Result<ExecSession, ExecError> {
    let (input, receiver) = mpsc::channel(16);
    let attaches = matches!(first, Ask::Attach(_));
    let reads_layers =
        matches!(&first, Ask::Start(ExecStart { own: Some(Own::ReadRoot(_) | Own::ReadChanges(_)), .. }));
    let unheard = attaches || matches!(&first, Ask::Start(start) if start.detached || start.terminal.is_some());
    let _ = input.send(Frame { message: Some(first) }).await;
    let failed = |status: tonic::Status| match (status.code(), &connection) {
        (tonic::Code::InvalidArgument, _) if attaches || reads_layers => ExecError::OlderAgent,
        // It is refused before the agent reads what it was to be: it says the first of all that come by this way.
        (code, Some(_)) if status.message() == format!("owner-may-not:{}", Act::Exec) => {
            agent::of_status(&tonic::Status::new(code, format!("owner-may-not:{act}"))).into()
        }
        (_, Some(_)) => agent::of_status(&status).into(),
        (_, None) => agent::of_plain_status(&status).into(),
    };
    let answer = client.run(ReceiverStream::new(receiver)).await.map_err(failed)?;
    let room = answer.metadata().get(STDIN_ROOM).and_then(|room| room.to_str().ok()?.parse().ok());
    Ok(ExecSession { input, room: Room::of(room), answers: answer.into_inner(), unheard, connection })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_not_absent() {
        let some = |text: &str| Some(text.to_owned());
        let good = ExecRequest { argv: vec!["id".into(), String::new()], ..ExecRequest::default() };
        assert!(good.check().is_ok());
        for (bad, what) in [
            (ExecRequest { argv: Vec::new(), ..good.clone() }, "program"),
            (ExecRequest { argv: vec![String::new()], ..good.clone() }, "program"),
            (ExecRequest { env: vec!["=x".into()], ..good.clone() }, "environment"),
            (ExecRequest { cwd: some(""), ..good.clone() }, "working directory"),
            (ExecRequest { user: some(""), ..good.clone() }, "user"),
        ] {
            let error = bad.check().unwrap_err();
            assert!(error.class() == Class::Usage && error.to_string().contains(what), "{error}");
        }
    }
}
