//! Connections: a place for each, TLS within a time, then HTTP/1.1 or HTTP/2 until they end or the service does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderValue, Request, Version, header};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::guard::Certificate;
use crate::known::Known;
use crate::linger;
use crate::places::Place;
use crate::service::Service;
use crate::tls::Tls;

/// Streams of one HTTP/2 connection.
const STREAMS: u32 = 128;
/// Longest that a connection stays: a client comes again, and finds the certificate of then.
const LONGEST: Duration = Duration::from_hours(1);
/// Heads' times that a connection stays on which no caller was let in: whoever is nobody makes room for others.
const STRANGERS: u32 = 3;
/// How often it is looked whether answers are taken.
const LOOK: Duration = Duration::from_secs(5);
/// HTTP/2 clients that are silent are asked whether they are there.
const PING: Duration = Duration::from_secs(30);

/// Serves until `stop` says so; then no connection is begun, and those there end with what was asked on them.
/// `local`: a socket that this user and root alone reach, without TLS.
pub async fn serve(
    listener: TcpListener,
    local: Option<UnixListener>,
    service: Arc<Service>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let mut lines = JoinSet::new();
    let seldom = Arc::new(Seldom::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted.map(|(stream, peer)| Line::Network(stream, peer)),
            accepted = accept(local.as_ref()) => accepted.map(Line::Local),
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while lines.try_join_next().is_some() {}
        let Ok(accepted) = accepted else {
            // Out of files, most likely: there are some again once a connection ends.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let held = match &accepted {
            Line::Network(..) => service.lines.take().await.map(Held::Place),
            Line::Local(_) => service.lines.take_local().map(Held::Local),
        };
        let Some(mut held) = held else {
            service.metrics.closed();
            continue;
        };
        let (service, router, stop, seldom) = (Arc::clone(&service), router.clone(), stop.clone(), Arc::clone(&seldom));
        lines.spawn(async move {
            let known = held.known();
            let spoken = async {
                match accepted {
                    Line::Network(stream, peer) => line(stream, peer, known, &service, router, stop, &seldom).await,
                    Line::Local(stream) => speak(stream, known, None, &service, router, stop).await,
                }
            };
            tokio::select! {
                () = spoken => {}
                () = held.is_wanted() => service.metrics.closed(),
            }
        });
    }
    drop((listener, local));
    while lines.join_next().await.is_some() {}
}

/// A connection that was taken.
enum Line {
    Network(TcpStream, SocketAddr),
    Local(UnixStream),
}

/// Its place.
enum Held {
    Place(Place),
    Local(#[allow(dead_code, reason = "held")] OwnedSemaphorePermit),
}

impl Held {
    fn known(&self) -> Known {
        match self {
            Self::Place(place) => place.known.clone(),
            Self::Local(_) => Known::default(),
        }
    }

    async fn is_wanted(&mut self) {
        match self {
            Self::Place(place) => place.is_wanted().await,
            Self::Local(_) => std::future::pending().await,
        }
    }
}

/// Never, where there is no socket.
async fn accept(local: Option<&UnixListener>) -> std::io::Result<UnixStream> {
    match local {
        Some(local) => local.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn line(
    stream: TcpStream,
    peer: SocketAddr,
    known: Known,
    service: &Service,
    router: Router,
    mut stop: watch::Receiver<bool>,
    seldom: &Seldom,
) {
    // An answer is one write.
    let _ = stream.set_nodelay(true);
    let Some(Tls { config, client_roots, .. }) = service.live().tls.clone() else {
        return speak(stream, known, None, service, router, stop).await;
    };
    let up = tokio::select! {
        up = timeout(service.limits.head_time, TlsAcceptor::from(config).accept(stream)) => up,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    match up {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            let own = chain.and_then(|chain| chain.first()).zip(client_roots);
            let certificate =
                own.map(|(own, roots)| Certificate { digest: hex::encode(Sha256::digest(own)).into(), roots });
            speak(stream, known, certificate, service, router, stop).await;
        }
        Ok(Err(error)) => {
            service.metrics.no_tls();
            if is_certificate(&error) && seldom.may_speak() {
                tracing::info!(%peer, %error, "a client certificate is not believed; others of this minute are counted alone");
            } else {
                tracing::debug!(%peer, %error, "no TLS");
            }
        }
        Err(_) => service.metrics.no_tls(),
    }
}

/// The handshake ended with what is wrong with a client's certificate.
fn is_certificate(error: &std::io::Error) -> bool {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(of_tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Speaks once a minute: strangers may connect as often as they like.
#[derive(Default)]
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    fn may_speak(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= MINUTE);
        if may {
            *last = Some(Instant::now());
        }
        may
    }
}

const MINUTE: Duration = Duration::from_mins(1);

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    known: Known,
    certificate: Option<Certificate>,
    service: &Service,
    router: Router,
    stop: watch::Receiver<bool>,
) {
    let (seen, shown, limits) = (known.clone(), certificate.clone(), service.limits);
    let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
        seen.asked();
        let (mut request, unread) = linger::on(request, limits);
        let is_http1 = request.version() < Version::HTTP_2;
        request.extensions_mut().insert(seen.clone());
        // What a request claims to be stays outside: extensions are this program's own.
        if let Some(certificate) = &shown {
            request.extensions_mut().insert(certificate.clone());
        }
        let router = router.clone();
        async move {
            let mut response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            if is_http1 && unread.is_so() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(service.limits.head_time).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    // Asked when it has something to say, and not with each packet of the connection; and first, for a connection may take all that
    // one turn has.
    let mut watched = FuturesUnordered::from_iter([watched(service, &known, certificate.as_ref(), stop)]);
    let ended = tokio::select! {
        biased;
        Some(end) = watched.next() => {
            if end == End::AtOnce {
                return;
            }
            connection.as_mut().graceful_shutdown();
            // An end takes two in HTTP/2: whoever does not do their part is not waited for longer than for a request.
            match timeout(service.limits.request_time + service.limits.head_time, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// How a connection is ended that does not end by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    AtOnce,
    /// With what was asked on it.
    InOrder,
}

/// What ends a connection.
async fn watched(
    service: &Service,
    known: &Known,
    certificate: Option<&Certificate>,
    mut stop: watch::Receiver<bool>,
) -> End {
    tokio::select! {
        // One on which nothing is asked in time is hung up on: it may be at any state, and has none to wait for.
        () = until(service.limits.head_time, || known.is_asked()) => End::AtOnce,
        // So is one on which nothing of the answers is taken: whoever does not read may ask no more.
        () = stuck(known, service.limits.request_time) => End::AtOnce,
        _ = stop.wait_for(|stop| *stop) => End::InOrder,
        () = until(STRANGERS * service.limits.head_time, || known.is_a_callers()) => End::InOrder,
        () = sleep(LONGEST) => End::InOrder,
        // Whoever has a certificate under those of now comes again, and shows it.
        () = service.until(|live| certificate.is_some_and(|one| !one.counts(live))) => End::InOrder,
    }
}

/// Ends once nothing was taken of answers for so long.
async fn stuck(known: &Known, time: Duration) {
    while !known.waiting.is_stuck_for(time) {
        sleep(time.min(LOOK)).await;
    }
}

/// Ends after this time, unless it is so by then: then never.
async fn until(time: Duration, so: impl Fn() -> bool) {
    sleep(time).await;
    if so() {
        std::future::pending::<()>().await;
    }
}
