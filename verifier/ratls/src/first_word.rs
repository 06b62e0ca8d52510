//! The first word of a peer, listened for while this end speaks already.
//!
//! In TLS 1.3 a client is done before the peer has looked at its key. Whoever waits for a word of the peer before it says one learns
//! what became of the key, and pays a round trip for it; whoever does not wait is told by the first read instead.
//! Trusts: nothing. What a peer says first is no evidence, and no error here admits anybody.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connect_error::ConnectError;

/// A stream whose first read is remembered.
pub(crate) struct Listening<IO> {
    io: IO,
    heard: Option<Heard>,
}

/// What was heard on a stream first.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Word>>);

#[derive(Default)]
enum Word {
    #[default]
    Nothing,
    Bytes,
    End,
    Broken(io::Error),
}

/// Listens to `io`.
pub(crate) fn listen<IO>(io: IO) -> (Listening<IO>, Heard) {
    let heard = Heard::default();
    (Listening { io, heard: Some(heard.clone()) }, heard)
}

/// Why the peer of a handshake that was done never said a word.
pub(crate) fn no_word(read: io::Result<()>) -> ConnectError {
    match read {
        // An end without TLS's own word for it is an error.
        Ok(()) => ConnectError::NoPlace,
        Err(error) if is_about_our_key(&error) => ConnectError::KeyNotTaken(error),
        Err(error) => ConnectError::HungUp(error),
    }
}

/// The peer's own word on a certificate that it looked at. Others it says of bytes that somebody between bent, and of itself.
fn is_about_our_key(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = inner else { return false };
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

impl Heard {
    /// What `error` of a first call is, with what was heard: where that is nothing, why.
    pub(crate) fn explain(&self, error: ConnectError) -> ConnectError {
        match (std::mem::take(&mut *self.lock()), error) {
            (Word::End, _) => no_word(Ok(())),
            (Word::Broken(error), _) => no_word(Err(error)),
            // What this end said was not taken.
            (Word::Nothing, ConnectError::Call(status)) => no_word(Err(io::Error::other(*status))),
            (Word::Nothing, ConnectError::Transport(error)) => no_word(Err(io::Error::other(error))),
            (Word::Nothing | Word::Bytes, error) => error,
        }
    }

    /// Ends where nothing was heard for so long.
    pub(crate) async fn silence(&self, patience: Duration) {
        tokio::time::sleep(patience).await;
        if !matches!(*self.lock(), Word::Nothing) {
            std::future::pending::<()>().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Word> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Listening<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.remaining();
        let mut done = std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if before > 0
            && let Some(heard) = self.heard.take()
        {
            *heard.lock() = match done {
                Ok(()) if buf.remaining() < before => Word::Bytes,
                Ok(()) => Word::End,
                Err(error) => {
                    done = Err(error.kind().into());
                    Word::Broken(error)
                }
            };
        }
        Poll::Ready(done)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Listening<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tonic::Status;

    use super::*;

    /// A stream that has this to say.
    struct Says(Option<io::Result<&'static [u8]>>);

    impl AsyncRead for Says {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(self.0.take().unwrap_or(Ok(b"")).map(|bytes| buf.put_slice(bytes)))
        }
    }

    async fn explained(first: io::Result<&'static [u8]>, error: ConnectError) -> ConnectError {
        let (mut stream, heard) = listen(Says(Some(first)));
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        heard.explain(error)
    }

    fn call() -> ConnectError {
        ConnectError::Call(Box::new(Status::unavailable("broken")))
    }

    #[tokio::test]
    async fn what_was_read_first_says_why_a_call_failed() {
        let alert = |alert| io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
        for of_our_key in [AlertDescription::AccessDenied, AlertDescription::CertificateUnknown] {
            assert!(matches!(explained(Err(alert(of_our_key)), call()).await, ConnectError::KeyNotTaken(_)));
        }
        // Whoever carries the bytes can have the peer say these.
        for of_bent_bytes in
            [AlertDescription::BadRecordMac, AlertDescription::DecodeError, AlertDescription::DecryptError]
        {
            assert!(matches!(explained(Err(alert(of_bent_bytes)), call()).await, ConnectError::HungUp(_)));
        }
        assert!(matches!(explained(Ok(b""), call()).await, ConnectError::NoPlace));
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(matches!(explained(Err(reset()), call()).await, ConnectError::HungUp(_)));
        assert!(matches!(explained(Ok(b"settings"), call()).await, ConnectError::Call(_)));
    }

    #[test]
    fn where_nothing_was_read_a_call_that_failed_was_not_taken_and_another_error_stands() {
        assert!(matches!(listen(()).1.explain(call()), ConnectError::HungUp(_)));
        let internal = ConnectError::Internal(String::new());
        assert!(matches!(listen(()).1.explain(internal), ConnectError::Internal(_)));
    }

    #[tokio::test]
    async fn silence_is_told_and_a_word_ends_it() {
        let moment = Duration::from_millis(10);
        listen(()).1.silence(moment).await;
        let (mut stream, heard) = listen(Says(Some(Ok(b"settings"))));
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 8);
        assert!(tokio::time::timeout(moment * 5, heard.silence(moment)).await.is_err());
    }
}
