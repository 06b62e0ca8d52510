//! Accepts RA-TLS connections from any stream of byte streams, and serves gRPC on each.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use coffer_verifier::abi::SpkiDigest;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::{LazyConfigAcceptor, rustls::server::Acceptor, server::TlsStream};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{
    service::Routes,
    transport::{Server, server::Connected},
};
use tower::util::MapResponseLayer;
use tracing::{debug, warn};

use crate::{
    busy::{Counted, Known, forgotten},
    defects,
    facts::{FactsError, TlsFacts},
    key_places::{Closed, KeyPlace, KeyPlaces, KeyShares},
    last_word,
    lifetime::Lifetime,
    load::{Counts, Load},
    one_by_one::OneByOne,
    places::{PATIENCE, Places, Source},
    proto::attestation_server::AttestationServer,
    service::AttestationService,
    state::ConnectionState,
    tls::{ClientRule, PinMismatch, ServerTls},
    wire::MAX_MESSAGE,
};

/// What strangers may cost.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Time for a TLS handshake. A connection that says nothing at all has two seconds of it.
    pub handshake: Duration,
    /// Connections at once that have shown nothing yet, handshakes included; shared fairly between sources.
    pub unattested: usize,
    /// How long a connection may show nothing.
    pub unattested_lifetime: Duration,
    /// Connections at once, all told.
    pub connections: usize,
    /// Bytes that a stream, and all streams of a connection together, may have sent and nobody has taken yet.
    pub windows: (u32, u32),
    /// Requests of a connection at once.
    pub streams: u32,
    /// Bytes of a request's header list, each field counted with 32 more (RFC 9113 §6.5.2).
    pub headers: u32,
}

/// What a connection takes beside what its client sends: buffers of TLS in both directions, a frame each way, an attestation message
/// and its answer.
const BUFFERS: u64 = 192 << 10;

impl ServeLimits {
    /// The most memory that connections take of what their clients send, answers of services not counted.
    pub const fn most_memory(&self) -> u64 {
        let each = self.windows.1 as u64 + self.streams as u64 * self.headers as u64 + BUFFERS;
        self.connections as u64 * each
    }
}

/// A stream that knows where it comes from.
pub trait Sourced {
    /// The same for everything of one source.
    fn source(&self) -> Source;
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            unattested: 64,
            unattested_lifetime: Duration::from_mins(1),
            connections: 1024,
            windows: (1 << 20, 1 << 20),
            streams: 64,
            headers: 4 << 10,
        }
    }
}

/// Why a server ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// HTTP/2 broke.
    #[error("gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
    /// Without attestation only pinned keys are let in.
    #[error("a server without attestation needs ClientRule::Spki")]
    NotPinned,
}

/// Serves `services`, and the attestation service before them, on every connection of `incoming`.
///
/// Ends when `shutdown` does and the open connections have drained. Handlers see [`crate::attested`] and
/// [`crate::connection`].
///
/// # Errors
/// [`ServeError::Transport`].
pub async fn serve<I, IO>(
    incoming: I,
    tls: ServerTls,
    attestation: AttestationService,
    services: Routes,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    I: Stream<Item = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let incoming = incoming.map(|io| io.map(|io| (0, io)));
    let (services, load) = (services.add_service(one_by_one(attestation)), Load::default());
    run(incoming, tls, services, limits, OnHandshake::Wait, load, shutdown).await
}

/// As [`serve`], with places for strangers shared between the sources that streams come from. `load` tells how many there are.
///
/// # Errors
/// As [`serve`].
pub async fn serve_shared<I, IO>(
    incoming: I,
    tls: ServerTls,
    attestation: AttestationService,
    services: Routes,
    limits: ServeLimits,
    load: Load,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    I: Stream<Item = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Sourced + Unpin + Send + 'static,
{
    let incoming = incoming.map(|io| io.map(|io| (io.source(), io)));
    run(incoming, tls, services.add_service(one_by_one(attestation)), limits, OnHandshake::Wait, load, shutdown).await
}

/// As [`serve_shared`], where the handshake alone makes a client known: one whose key is `known` then. Whoever else comes stays a
/// stranger, whatever it is answered. Known are at most as many as strangers leave of all connections; where all are taken, a key gets one
/// of those that have more. One that is known no longer is hung up on once it asks for nothing, and a minute later anyway.
///
/// # Errors
/// As [`serve`].
pub async fn serve_known<I, IO>(
    incoming: I,
    tls: ServerTls,
    attestation: AttestationService,
    services: Routes,
    limits: ServeLimits,
    known: impl Fn(&SpkiDigest) -> bool + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    I: Stream<Item = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Sourced + Unpin + Send + 'static,
{
    let incoming = incoming.map(|io| io.map(|io| (io.source(), io)));
    let all = limits.connections.saturating_sub(limits.unattested);
    let shares = KeyShares { each: all, give_way: true, ..KeyShares::default() };
    let on_handshake = OnHandshake::Know { known: Arc::new(known), keys: KeyPlaces::new(all, shares) };
    let services = services.add_service(one_by_one(attestation));
    run(incoming, tls, services, limits, on_handshake, Load::default(), shutdown).await
}

/// As [`serve_pinned`], with places for strangers shared between the sources that streams come from, and places for keys as `shares`
/// says. `turned_away` hears of each key that is none of the listed ones, and where it came from; `load` tells how many there are.
///
/// # Errors
/// As [`serve_pinned`].
pub async fn serve_pinned_shared<I, IO>(
    incoming: I,
    tls: ServerTls,
    services: Routes,
    limits: ServeLimits,
    (shares, load): (KeyShares, Load),
    turned_away: impl Fn(Source, &SpkiDigest) + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    I: Stream<Item = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Sourced + Unpin + Send + 'static,
{
    if !matches!(tls.rule, ClientRule::Spki(_) | ClientRule::Listed(_)) {
        return Err(ServeError::NotPinned);
    }
    let incoming = incoming.map(|io| io.map(|io| (io.source(), io)));
    let on_handshake =
        OnHandshake::Settle { turned_away: Arc::new(turned_away), keys: KeyPlaces::new(limits.connections, shares) };
    run(incoming, tls, services, limits, on_handshake, load, shutdown).await
}

/// Serves `services` to clients whose keys `tls` pins ([`ClientRule::Spki`], [`ClientRule::Listed`]); no evidence is asked for or given.
///
/// # Errors
/// [`ServeError`].
pub async fn serve_pinned<I, IO>(
    incoming: I,
    tls: ServerTls,
    services: Routes,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    I: Stream<Item = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !matches!(tls.rule, ClientRule::Spki(_) | ClientRule::Listed(_)) {
        return Err(ServeError::NotPinned);
    }
    let incoming = incoming.map(|io| io.map(|io| (0, io)));
    let shares = KeyShares { each: limits.connections, ..KeyShares::default() };
    let on_handshake =
        OnHandshake::Settle { turned_away: Arc::new(|_, _| ()), keys: KeyPlaces::new(limits.connections, shares) };
    run(incoming, tls, services, limits, on_handshake, Load::default(), shutdown).await
}

fn one_by_one(attestation: AttestationService) -> OneByOne<AttestationServer<AttestationService>> {
    let longest = attestation.longest_message();
    let server = AttestationServer::new(attestation);
    OneByOne::until_taken(server.max_decoding_message_size(longest).max_encoding_message_size(MAX_MESSAGE))
}

/// Hears of keys that were not let in.
type TurnedAway = Arc<dyn Fn(Source, &SpkiDigest) + Send + Sync>;

/// Whether the handshake alone makes a connection one of the known.
#[derive(Clone)]
enum OnHandshake {
    Wait,
    Know { known: Known, keys: KeyPlaces },
    Settle { turned_away: TurnedAway, keys: KeyPlaces },
}

async fn run<I, IO>(
    incoming: I,
    tls: ServerTls,
    services: Routes,
    limits: ServeLimits,
    on_handshake: OnHandshake,
    load: Load,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    I: Stream<Item = io::Result<(Source, IO)>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (ready, connections) = mpsc::channel(16);
    // Aborted with this future.
    let mut acceptor = JoinSet::new();
    acceptor.spawn(accept(incoming, tls, limits, on_handshake, load, ready));
    Server::builder()
        .layer(Counted)
        .layer(MapResponseLayer::new(defects::named::<tonic::body::Body>))
        .max_concurrent_streams(limits.streams)
        .concurrency_limit_per_connection(limits.streams as usize)
        .http2_max_header_list_size(limits.headers)
        .initial_stream_window_size(limits.windows.0)
        .initial_connection_window_size(limits.windows.1)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .add_routes(services)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections).map(Ok::<_, io::Error>), shutdown)
        .await?;
    Ok(())
}

async fn accept<I, IO>(
    incoming: I,
    tls: ServerTls,
    limits: ServeLimits,
    on_handshake: OnHandshake,
    load: Load,
    ready: mpsc::Sender<Connection<IO>>,
) where
    I: Stream<Item = io::Result<(Source, IO)>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Places::new(limits.unattested);
    let total = Arc::new(Semaphore::new(limits.connections));
    let leaving = Arc::new(Semaphore::new(LEAVING));
    let closed = Closed::new(load.clone());
    let mut incoming = std::pin::pin!(incoming);
    let mut handshakes = JoinSet::new();
    loop {
        let next = tokio::select! {
            next = incoming.next() => next,
            () = ready.closed() => return,
        };
        while handshakes.try_join_next().is_some() {}
        let (source, io) = match next {
            Some(Ok(io)) => io,
            Some(Err(error)) => {
                // Out of file descriptors, or the like: give it time, and go on.
                warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => break,
        };
        let (tls, ready, total, places) = (tls.clone(), ready.clone(), total.clone(), places.clone());
        let (on_handshake, closed, load) = (on_handshake.clone(), closed.clone(), load.clone());
        let leaving = leaving.clone();
        handshakes.spawn(async move {
            // A share of the strangers' places before one of all: strangers can only be so many.
            let waited = limits.handshake + limits.unattested_lifetime;
            let Ok(Some(place)) = tokio::time::timeout(waited, places.wait(source)).await else { return };
            let (counts, place) = (load.begun(), place.counted(&load));
            let total = match &on_handshake {
                OnHandshake::Wait => match total.try_acquire_owned() {
                    Ok(total) => Some(total),
                    Err(_) => return closed.one_more(),
                },
                // Its key says what it may have.
                OnHandshake::Settle { .. } | OnHandshake::Know { .. } => None,
            };
            let eviction = place.eviction();
            let came = Instant::now();
            // Made now: whoever waits for a place takes little room.
            let handshake = tokio::time::timeout(limits.handshake, Box::pin(handshake(io, &tls)));
            let done = tokio::select! {
                done = handshake => done,
                () = eviction.happens() => return,
            };
            match done {
                Ok(Ok((stream, facts))) => {
                    let state = ConnectionState::new(facts, (source, came), limits.unattested_lifetime, place);
                    let mut connection = Connection::new(stream, Arc::new(state));
                    (connection.total, connection.counts) = (total, Some(counts));
                    let is_known = match &on_handshake {
                        OnHandshake::Wait => false,
                        OnHandshake::Know { known, .. } => known(connection.state.peer_spki()),
                        OnHandshake::Settle { .. } => true,
                    };
                    if let OnHandshake::Know { known, .. } = &on_handshake {
                        connection.state.judge_by_key();
                        if is_known {
                            connection.lifetime.ends_with(forgotten(connection.state.clone(), known.clone(), LOOKS));
                        }
                    }
                    if let (true, OnHandshake::Settle { keys, .. } | OnHandshake::Know { keys, .. }) =
                        (is_known, &on_handshake)
                    {
                        let Some(place) = keys.take(*connection.state.peer_spki(), &connection.state) else {
                            closed.one_more();
                            // In order, which tells it from a key that is none of the listed ones. On no place of a stranger's, whom
                            // a key that has all of its own would keep out.
                            let stream = connection.into_stream();
                            if let Ok(_leaving) = leaving.try_acquire() {
                                last_word::arrives(stream).await;
                            }
                            return;
                        };
                        connection.of_key = Some(place);
                        connection.state.settle();
                    }
                    if let ClientRule::Listed(list) = &tls.rule {
                        connection.lifetime.ends_with(list.clone().gone(*connection.state.peer_spki()));
                    }
                    let _ = ready.send(connection).await;
                }
                Ok(Err(error)) => {
                    debug!(%error, "handshake failed");
                    let HandshakeError::Tls(error, io) = error else { return };
                    if let OnHandshake::Settle { turned_away, .. } = &on_handshake
                        && let Some(PinMismatch { found, .. }) = PinMismatch::of(&error)
                    {
                        turned_away(source, found);
                    }
                    // On the place of strangers that it has: they are only so many.
                    tokio::select! {
                        () = last_word::arrives(io) => {}
                        () = eviction.happens() => {}
                    }
                    drop(place);
                }
                Err(_) => debug!("handshake took too long"),
            }
        });
    }
    while handshakes.join_next().await.is_some() {}
}

/// Connections of keys that had all their places, which may hear that at one time. What others hear is an end.
const LEAVING: usize = 4;
/// How often it is looked whether a key is known still, and how long what it had begun may go on.
const LOOKS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));

#[derive(Debug, thiserror::Error)]
enum HandshakeError<IO> {
    #[error("it said nothing")]
    Silent,
    #[error("it said what is no beginning: {0}")]
    Hello(#[source] io::Error),
    /// The other end may have spoken on.
    #[error("{0}")]
    Tls(#[source] io::Error, IO),
    #[error(transparent)]
    Facts(#[from] FactsError),
}

async fn handshake<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
    tls: &ServerTls,
) -> Result<(TlsStream<IO>, TlsFacts), HandshakeError<IO>> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), io);
    let Ok(hello) = tokio::time::timeout(PATIENCE, hello).await else { return Err(HandshakeError::Silent) };
    let rest = hello.map_err(HandshakeError::Hello)?.into_stream(tls.config.clone()).into_fallible();
    let stream = rest.await.map_err(|(error, io)| HandshakeError::Tls(error, io))?;
    let facts = TlsFacts::of_server(stream.get_ref().1, tls.own_spki, &tls.alpn)?;
    Ok((stream, facts))
}

/// A TLS stream that carries its [`ConnectionState`] into every request, and ends when that state's time is up.
struct Connection<IO> {
    stream: TlsStream<IO>,
    state: Arc<ConnectionState>,
    lifetime: Lifetime,
    /// Held for as long as it is open: a place of all, or one of its key's.
    #[allow(dead_code, reason = "held")]
    total: Option<OwnedSemaphorePermit>,
    #[allow(dead_code, reason = "held")]
    of_key: Option<KeyPlace>,
    #[allow(dead_code, reason = "held")]
    counts: Option<Counts>,
}

impl<IO> Connection<IO> {
    fn new(stream: TlsStream<IO>, state: Arc<ConnectionState>) -> Self {
        let lifetime = Lifetime::of(&state);
        Self { stream, state, lifetime, total: None, of_key: None, counts: None }
    }

    /// Its stream, without a place or a right of its own.
    fn into_stream(self) -> TlsStream<IO> {
        self.stream
    }

    /// An error once its time is up. Whoever takes nothing of what is written may not be read from either, and so all that is done asks.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let over = self.lifetime.is_over(cx);
        if over { Err(io::Error::new(io::ErrorKind::TimedOut, "its time is up")) } else { Ok(()) }
    }
}

impl<IO> Connected for Connection<IO> {
    type ConnectInfo = Arc<ConnectionState>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.state.clone()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    /// Without it the head of each HTTP/2 frame would be a TLS record of its own.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
