//! What whoever called is told.

use coffer_guest_proto::{ExecResponse, Stream, exec_response::Message as Tell};
use tokio::sync::mpsc;
use tonic::Status;

/// To whoever called.
#[derive(Clone)]
pub(super) struct Answers(pub(super) mpsc::Sender<Result<ExecResponse, Status>>);

impl Answers {
    /// What a program wrote.
    pub(super) async fn show(&self, stream: Stream, bytes: Vec<u8>) -> Result<(), Gone> {
        self.tell(if stream == Stream::Stderr { Tell::Stderr(bytes) } else { Tell::Stdout(bytes) }).await
    }

    /// Says something that is not waited for: left out where whoever called reads nothing.
    pub(super) fn mention(&self, message: Tell) {
        let _ = self.0.try_send(Ok(ExecResponse { message: Some(message) }));
    }

    /// Nobody is there any more, if it fails.
    pub(super) async fn tell(&self, message: Tell) -> Result<(), Gone> {
        self.0.send(Ok(ExecResponse { message: Some(message) })).await.map_err(|_| Gone)
    }
}

/// Whoever called is gone.
#[derive(Debug)]
pub(super) struct Gone;
