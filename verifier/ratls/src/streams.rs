//! A stream of bytes as one request on an attested HTTP/2 connection: what goes through the ingress of a guest.
//!
//! `POST /coffer.ingress.v1.Ingress/Open`; the request's body goes in, the answer's body comes out, and both are bytes as they are.
//! The end of a body is the end of that direction and no more. A stream that breaks off is reset, so that whoever reads knows
//! that bytes are missing.
//! Trusts: that HTTP/2 of the connection is its peer's. Never: opens one where this end has not shown evidence, keeps more than a few
//! pieces of a direction whose reader is slow, says that something ended which broke off.
//! Source: docs/design/protocol.md §4.10.

use core::{
    convert::Infallible,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};
use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};
use tonic::{body::Body, server::NamedService, transport::Channel};
use tower::Service;

use crate::state::ConnectionState;

/// Where a stream is asked for.
const OPEN: &str = "/coffer.ingress.v1.Ingress/Open";
/// Names the word of a refusal.
const REFUSAL: &str = "coffer-refusal";
/// What is read from a stream at a time.
const PIECE: usize = 32 << 10;
/// Pieces of one direction that wait for their reader.
const WAITING: usize = 4;
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
            let (outgoing, body) = body();
            tokio::spawn(async move {
                // A guest that does not show itself again in time has no stream any more, whoever else may keep the connection.
                let no_longer = state.outdated();
                if let Err(io) = pump(io, request.into_body(), outgoing, no_longer).await {
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

/// A stream that was opened.
pub struct OpenStream {
    incoming: Body,
    outgoing: mpsc::Sender<Piece>,
}

/// Opens a stream on a connection whose server was admitted ([`crate::AttestedConnection::channel`]).
///
/// # Errors
/// [`StreamError`].
pub async fn open_stream(mut channel: Channel) -> Result<OpenStream, StreamError> {
    let (outgoing, body) = body();
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(OPEN);
    let asked = async {
        core::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
        channel.call(request).await
    };
    let response = timeout(PATIENCE, asked).await.map_err(|_| StreamError::Late)??;
    if response.status() == StatusCode::OK {
        return Ok(OpenStream { incoming: response.into_body(), outgoing });
    }
    let word = response.headers().get(REFUSAL).map(HeaderValue::as_bytes);
    match StreamRefusal::ALL.into_iter().find(|refusal| word == Some(refusal.word().as_bytes())) {
        Some(refusal) => Err(StreamError::Refused(refusal)),
        None => Err(StreamError::Answer(response.status())),
    }
}

impl OpenStream {
    /// Copies both ways until both have ended, and gives the local end back.
    ///
    /// # Errors
    /// The local end, of a stream that broke off: bytes are missing on either side, and whoever holds it should make that known.
    pub async fn join<IO: AsyncRead + AsyncWrite + Send + Unpin>(self, io: IO) -> Result<IO, IO> {
        pump(io, self.incoming, self.outgoing, core::future::pending()).await
    }

    /// Copies both ways until the other end has said all it says, whether or not there is more to send.
    ///
    /// # Errors
    /// A stream that broke off, or the local ends'.
    pub async fn until_answered(self, from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let (mut sent, mut said) = (pin!(out_of(from, self.outgoing)), pin!(into(to, self.incoming)));
        tokio::select! {
            said = &mut said => return said,
            sent = &mut sent => sent?,
        }
        said.await
    }
}

/// A piece of a direction, or that it ended as it should.
type Piece = Option<Bytes>;

/// A body whose pieces come from a sender. Only a sender that says so ends it; one that goes away breaks it off.
struct Pieces {
    from: mpsc::Receiver<Piece>,
    ended: bool,
}

fn body() -> (mpsc::Sender<Piece>, Body) {
    let (sender, from) = mpsc::channel(WAITING);
    (sender, Body::new(Pieces { from, ended: false }))
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.from.poll_recv(cx));
        self.ended = !matches!(next, Some(Some(_)));
        Poll::Ready(match next {
            Some(Some(piece)) => Some(Ok(Frame::data(piece))),
            Some(None) => None,
            None => Some(Err(broken())),
        })
    }
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

async fn pump<IO: AsyncRead + AsyncWrite + Send + Unpin>(
    mut io: IO,
    incoming: Body,
    outgoing: mpsc::Sender<Piece>,
    no_longer: impl Future<Output = ()>,
) -> Result<IO, IO> {
    let (reader, writer) = tokio::io::split(&mut io);
    let copied = async { tokio::try_join!(out_of(reader, outgoing), into(writer, incoming)).is_ok() };
    let whole = tokio::select! {
        whole = copied => whole,
        () = no_longer => false,
    };
    if whole { Ok(io) } else { Err(io) }
}

/// From a local end into a body, until that end says no more.
async fn out_of(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Piece>) -> io::Result<()> {
    let mut piece = BytesMut::new();
    loop {
        piece.reserve(PIECE);
        let read = tokio::select! {
            read = from.read_buf(&mut piece) => read?,
            () = to.closed() => return Err(broken()),
        };
        let next = (read > 0).then(|| piece.split().freeze());
        let ended = next.is_none();
        to.send(next).await.map_err(|_| broken())?;
        if ended {
            return Ok(());
        }
    }
}

/// From a body into a local end, until the body ends.
async fn into(mut to: impl AsyncWrite + Unpin, mut from: Body) -> io::Result<()> {
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
