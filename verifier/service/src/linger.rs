//! What is sent with a request that is refused unread is read on and thrown away, for a while: a client that sends before it listens
//! would find its connection broken off in place of the refusal.
//!
//! Never: keeps what it reads; reads for longer, or more, than it says here; asks a client to send that waits to be asked.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::limits::Limits;

/// Longest that it is read on.
const LINGER: Duration = Duration::from_secs(2);

/// Whether a body was let go of before its end.
#[derive(Clone, Debug, Default)]
pub struct Unread(Arc<AtomicBool>);

impl Unread {
    /// It was.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request whose body is read on after whoever had it has let go of it: twice as many bytes as one may have.
pub fn on(request: Request<Incoming>, limits: Limits) -> (Request<Body>, Unread) {
    let unread = Unread::default();
    let asked = request.headers().contains_key(header::EXPECT);
    let of = unread.clone();
    let most = 2 * limits.request_bytes;
    let body = |body| Body::new(Lingering { body: Some(body), most, waits: asked, unread: of });
    (request.map(body), unread)
}

struct Lingering {
    body: Option<Incoming>,
    most: usize,
    /// The client waits until it is asked to send, and was not.
    waits: bool,
    unread: Unread,
}

impl hyper::body::Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.is_end_stream() {
            return;
        }
        self.unread.0.store(true, Ordering::Relaxed);
        // Outside of an event loop nothing is served any more.
        if let (false, Some(body), Ok(runtime)) = (self.waits, self.body.take(), Handle::try_current()) {
            let most = self.most;
            runtime.spawn(timeout(LINGER, read_on(body, most)));
        }
    }
}

async fn read_on(mut body: Incoming, most: usize) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > most {
            break;
        }
    }
}
