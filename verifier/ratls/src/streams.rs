//! A stream of bytes as one request on an attested HTTP/2 connection: what goes through the ingress of a guest.
//!
//! `POST /coffer.ingress.v1.Ingress/Open`; the request's body goes in, the answer's body comes out, and both are bytes as they are.
//! The end of a body is the end of that direction and no more. A stream that breaks off is reset, so that whoever reads knows
//! that bytes are missing.
//! Trusts: that HTTP/2 of the connection is its peer's. Never: opens one where this end has not shown evidence, keeps more than a few
//! pieces of a direction whose reader is slow, says that something ended which broke off.
//! Source: docs/design/protocol.md §4.10.

mod local;

use core::{
    convert::Infallible,
    pin::{Pin, pin},
    task::{Context, Poll},
};
use std::{io, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use local::{Leader, broken, said};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::oneshot,
    time::timeout,
};
use tonic::{body::Body, server::NamedService, transport::Channel};
use tower::Service;

use crate::state::ConnectionState;

/// Where a stream is asked for.
const OPEN: &str = "/coffer.ingress.v1.Ingress/Open";
/// Names the word of a refusal.
const REFUSAL: &str = "coffer-refusal";
/// How long the other end may take to open a stream; it waits for the workload ten seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a stream was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRefusal {
    /// This end has not been asked for evidence on the connection.
    AttestationRequired,
    /// The client is none of those who may.
    NotAdmitted,
    /// Nothing listens on the port behind.
    PortClosed,
    /// As many streams as there may be are open.
    TooMany,
}

impl StreamRefusal {
    const ALL: [Self; 4] = [Self::AttestationRequired, Self::NotAdmitted, Self::PortClosed, Self::TooMany];

    /// Its stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AttestationRequired => "attestation-required",
            Self::NotAdmitted => "not-admitted",
            Self::PortClosed => "port-closed",
            Self::TooMany => "too-many",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::AttestationRequired => StatusCode::UNAUTHORIZED,
            Self::NotAdmitted => StatusCode::FORBIDDEN,
            Self::PortClosed => StatusCode::BAD_GATEWAY,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// What stands behind the streams of a server.
pub trait Behind: Send + Sync + 'static {
    /// One end of it, for one stream.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// What a stream holds for as long as it is open.
    type Place: Send + 'static;

    /// Whether the client of this connection may, and its stream if so.
    fn open(
        &self,
        from: &ConnectionState,
    ) -> impl Future<Output = Result<(Self::Io, Self::Place), StreamRefusal>> + Send;

    /// Ends it so that whoever is behind notices that bytes are missing.
    fn break_off(io: Self::Io, place: Self::Place);
}

/// The service of a server that hands streams on.
pub struct Streams<B>(Arc<B>);

impl<B> Streams<B> {
    /// Hands them on to `behind`.
    pub fn new(behind: B) -> Self {
        Self(Arc::new(behind))
    }
}

impl<B> Clone for Streams<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> NamedService for Streams<B> {
    const NAME: &'static str = "coffer.ingress.v1.Ingress";
}

impl<B: Behind> Service<Request<Body>> for Streams<B> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let behind = Arc::clone(&self.0);
        Box::pin(async move { Ok(serve(&*behind, request).await) })
    }
}

async fn serve<B: Behind>(behind: &B, request: Request<Body>) -> Response<Body> {
    let plain = |status| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != OPEN {
        return plain(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Some(state) = request.extensions().get::<Arc<ConnectionState>>().cloned() else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    };
    // A client that asked for nothing believes nothing: what it sends may be on its way to anybody.
    let opened = if state.has_answered() { behind.open(&state).await } else { Err(StreamRefusal::AttestationRequired) };
    match opened {
        Ok((io, place)) => {
            let leader = Leader::new();
            leader.put(io);
            let (body, mut said) = said(leader.local());
            tokio::spawn(async move {
                let mut incoming = request.into_body();
                // A guest that does not show itself again in time has no stream any more, whoever else may keep the connection.
                let no_longer = state.outdated();
                if let Err(Some(io)) = lead(&leader, &mut incoming, &mut said, no_longer).await {
                    B::break_off(io, place);
                }
            });
            Response::new(body)
        }
        Err(refusal) => {
            let mut response = plain(refusal.status());
            response.headers_mut().insert(REFUSAL, HeaderValue::from_static(refusal.word()));
            response
        }
    }
}

/// Why a client has no stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The other end said no.
    #[error("the other end refused: {}", .0.word())]
    Refused(StreamRefusal),
    /// The other end said something else.
    #[error("the other end answered {0}")]
    Answer(StatusCode),
    /// The other end said nothing.
    #[error("the other end did not answer within {} s", PATIENCE.as_secs())]
    Late,
    /// The connection broke, or the stream before it was open.
    #[error("the connection, or the stream, broke before it was open")]
    Broke(#[from] tonic::transport::Error),
}

/// A stream that was opened, for a local end that comes.
pub struct OpenStream<IO> {
    incoming: Body,
    leader: Leader<IO>,
    said: oneshot::Receiver<()>,
}

/// Opens a stream on a connection whose server was admitted ([`crate::AttestedConnection::channel`]).
///
/// # Errors
/// [`StreamError`].
pub async fn open_stream<IO>(mut channel: Channel) -> Result<OpenStream<IO>, StreamError>
where
    IO: AsyncRead + Send + Unpin + 'static,
{
    let leader = Leader::new();
    let (body, said) = said(leader.local());
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(OPEN);
    let asked = async {
        core::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
        channel.call(request).await
    };
    let response = timeout(PATIENCE, asked).await.map_err(|_| StreamError::Late)??;
    if response.status() == StatusCode::OK {
        return Ok(OpenStream { incoming: response.into_body(), leader, said });
    }
    let word = response.headers().get(REFUSAL).map(HeaderValue::as_bytes);
    match StreamRefusal::ALL.into_iter().find(|refusal| word == Some(refusal.word().as_bytes())) {
        Some(refusal) => Err(StreamError::Refused(refusal)),
        None => Err(StreamError::Answer(response.status())),
    }
}

impl<IO: AsyncRead + Unpin> OpenStream<IO> {
    /// Copies both ways until both have ended, and gives the local end back.
    ///
    /// # Errors
    /// The local end, of a stream that broke off: bytes are missing on either side, and whoever holds it should make that known.
    pub async fn join(&mut self, io: IO) -> Result<IO, Option<IO>>
    where
        IO: AsyncWrite,
    {
        self.leader.put(io);
        lead(&self.leader, &mut self.incoming, &mut self.said, core::future::pending()).await
    }

    /// Takes the local end back, of a stream that nobody joins any more.
    pub fn take_back(self) -> Option<IO> {
        self.leader.take()
    }

    /// Copies both ways until the other end has said all it says, whether or not there is more to send.
    ///
    /// # Errors
    /// A stream that broke off, or the local ends'.
    pub async fn until_answered(mut self, from: IO, to: impl AsyncWrite + Unpin) -> io::Result<()> {
        self.leader.put(from);
        let (mut sent, mut said) = (pin!(whole(&mut self.said)), pin!(into(to, &mut self.incoming)));
        tokio::select! {
            said = &mut said => return said,
            sent = &mut sent => sent?,
        }
        said.await
    }
}

/// Writes what comes into the local end until it ends, and waits until that has said all it says. Gives it back, or takes it away.
async fn lead<IO: AsyncRead + AsyncWrite + Unpin>(
    leader: &Leader<IO>,
    incoming: &mut Body,
    said: &mut oneshot::Receiver<()>,
    no_longer: impl Future<Output = ()>,
) -> Result<IO, Option<IO>> {
    let both = async { tokio::try_join!(into(leader.local(), incoming), whole(said)).is_ok() };
    let whole = tokio::select! {
        whole = both => whole,
        () = no_longer => false,
    };
    match leader.take() {
        Some(io) if whole => Ok(io),
        io => Err(io),
    }
}

/// Until a local end has said all it says, and all of it was taken.
async fn whole(said: &mut oneshot::Receiver<()>) -> io::Result<()> {
    said.await.map_err(|_| broken())
}

/// From a body into a local end, until the body ends.
async fn into(mut to: impl AsyncWrite + Unpin, from: &mut Body) -> io::Result<()> {
    while let Some(frame) = from.frame().await {
        let Ok(piece) = frame.map_err(io::Error::other)?.into_data() else { continue };
        to.write_all(&piece).await?;
        to.flush().await?;
    }
    // No more comes: because the other end said so (END_STREAM), or because the stream was reset, or the connection given up, for the
    // reason NO_ERROR or CANCEL, which hyper takes for an end (RFC 9113 §8.1). Whoever holds the line can bring the latter about.
    if !from.is_end_stream() {
        return Err(broken());
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests;
