//! Messages of a connection, one at a time: read and answered, and where that is said taken, before the next one is looked at.
//!
//! A message is kept whole while it is read and while its answer waits for its reader. One of each is what a connection may cost;
//! HTTP/2 alone would let a stranger have as many as there are streams.
//! Trusts: nothing of a request. Never: reads a second message of a connection while the first is not done.

use core::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::{Bytes, Frame, SizeHint};
use tokio::sync::OwnedMutexGuard;
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use crate::state::ConnectionState;

/// A service whose calls on one connection wait for each other.
#[derive(Clone)]
pub struct OneByOne<S> {
    service: S,
    until: Until,
}

/// When the next call of a connection has its turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Answered,
    Taken,
}

impl<S> OneByOne<S> {
    /// Each call waits until the one before has its answer: for services whose answers may be streams.
    pub const fn until_answered(service: S) -> Self {
        Self { service, until: Until::Answered }
    }

    /// Each call waits until the answer to the one before was taken.
    pub const fn until_taken(service: S) -> Self {
        Self { service, until: Until::Taken }
    }
}

impl<S: NamedService> NamedService for OneByOne<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for OneByOne<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was asked whether it is ready is the one that is called.
        let next = self.service.clone();
        let mut service = core::mem::replace(&mut self.service, next);
        let until = self.until;
        Box::pin(async move {
            let Some(state) = request.extensions().get::<Arc<ConnectionState>>().cloned() else {
                return Ok(Status::internal("no connection").into_http());
            };
            let turn = state.turn.clone().lock_owned().await;
            let response = service.call(request).await?;
            Ok(match until {
                Until::Answered => response,
                Until::Taken => response.map(|body| Body::new(InTurn { body, _turn: turn })),
            })
        })
    }
}

/// An answer that holds its connection's turn until it was taken, or nobody wants it any more.
struct InTurn {
    body: Body,
    _turn: OwnedMutexGuard<()>,
}

impl hyper::body::Body for InTurn {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
