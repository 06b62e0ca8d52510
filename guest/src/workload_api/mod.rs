//! The workload's own door to the agent: HTTP/1.1 on `/run/coffer/agent.sock`, which its programs alone see.
//!
//! [`call`] reads what is asked, [`coco`] what is asked on loopback where the spec has that door too, [`own`] is what this guest answers, [`limits`] how much of it. What a workload asks for is its own:
//! secrets that the key broker releases to this guest, files of scope `workload`, evidence under a label that nothing else has.
//! Trusts: nothing of a request; the broker behind the pinned key. Never: puts a value into a file, repeats what was sent in
//! a refusal, takes more memory than [`limits`] says, opens what an owner sealed.
//! Source: docs/design/guest.md §8; `guest/clients/openapi.json`.

mod asked;
mod call;
mod coco;
mod limits;
mod own;
mod refusal;
#[cfg(test)]
mod tests;
mod whole;

use std::{
    convert::Infallible,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::OwnedSemaphorePermit,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use zeroize::Zeroizing;

#[doc(hidden)]
pub use asked::Asked;
pub use own::OwnGuest;

use self::{call::Call, limits::Limits, refusal::Refusal, whole::Whole};

/// Name of the socket in the workload's `/run/coffer`.
pub const SOCKET: &str = "agent.sock";

/// What a call gave.
struct Answer {
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// Who answers.
trait Guest: Send + Sync + 'static {
    /// What this call, with this body, comes to.
    fn answer(&self, call: Call, body: Zeroizing<Vec<u8>>) -> impl Future<Output = Result<Answer, Refusal>> + Send;
}

/// Opens the door in the workload's folder of sockets, and the one on loopback where the spec has it. The limits are of both together.
///
/// # Errors
/// The kernel's.
pub fn open(folder: &Path, guest: OwnGuest) -> io::Result<()> {
    let coco_routes = guest.agent.document.spec().coco_routes;
    let api = Arc::new(Api { guest, limits: Limits::new(Instant::now()) });
    if coco_routes {
        let listener = std::net::TcpListener::bind(coco::ADDRESS)?;
        listener.set_nonblocking(true)?;
        tokio::spawn(serve(TcpListener::from_std(listener)?, api.clone(), coco::read));
    }
    tokio::spawn(serve(listen(&folder.join(SOCKET))?, api, Call::read));
    Ok(())
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    // Whoever is in the workload's place may ask, whatever user the image gives it.
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

struct Api<G> {
    guest: G,
    limits: Limits,
}

/// Whose names of calls a door knows.
type Reader = fn(&Method, &Uri) -> Result<Call, Refusal>;

/// Where connections come from.
trait Door: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Door for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Door for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

async fn serve<G: Guest>(door: impl Door, api: Arc<Api<G>>, read: Reader) {
    loop {
        let place = api.limits.place().await;
        match door.next().await {
            Ok(stream) => drop(tokio::spawn(talk(api.clone(), read, stream, place))),
            // Out of descriptors, or the like: give it time, and go on.
            Err(_) => tokio::time::sleep(limits::PAUSE).await,
        }
    }
}

async fn talk<G: Guest>(
    api: Arc<Api<G>>,
    read: Reader,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    _place: OwnedSemaphorePermit,
) {
    let patience = api.limits.patience;
    // Of an answer that nobody takes.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    let answered = service_fn(move |request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.respond(read, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(limits::HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), answered);
    // Of a client that hangs up or speaks no HTTP there is nobody to tell.
    let _ = connection.await;
}

impl<G: Guest> Api<G> {
    async fn respond(&self, read: Reader, request: Request<Incoming>) -> Response<Whole> {
        match self.answer(read, request).await {
            Ok((Answer { content_type, headers, body }, turn)) => {
                let mut response = Response::new(Whole::new(body, Some(turn)));
                let all = response.headers_mut();
                all.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
                all.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                for (name, value) in headers {
                    if let Ok(value) = HeaderValue::from_str(&value) {
                        all.insert(name, value);
                    }
                }
                response
            }
            Err(refusal) => refusal.response().map(|body| Whole::new(body, None)),
        }
    }

    /// The turn is held until the answer was taken: what waits for its reader is in memory too.
    async fn answer(
        &self,
        read: Reader,
        request: Request<Incoming>,
    ) -> Result<(Answer, OwnedSemaphorePermit), Refusal> {
        let call = read(request.method(), request.uri())?;
        self.limits.ask(Instant::now()).map_err(Refusal::too_many)?;
        let turn = self.limits.turn().await;
        let body = body(request.into_body(), call.longest_body(), self.limits.patience).await?;
        Ok((self.guest.answer(call, body).await?, turn))
    }
}

async fn body(body: Incoming, longest: usize, patience: Duration) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    match timeout(patience, Limited::new(body, longest).collect()).await {
        Ok(Ok(whole)) => Ok(Zeroizing::new(whole.to_bytes().to_vec())),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-long",
            format!("the body has more than {longest} bytes"),
        )),
        Ok(Err(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "body", "the body broke off".into())),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "body", "the body did not come in time".into())),
    }
}
