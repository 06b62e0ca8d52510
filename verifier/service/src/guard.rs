//! In front of every way in that is for callers: who asks, a place, and a time that ends.
//!
//! In this order: a stranger takes no place, and nobody's body is read before there is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use opentelemetry::context::FutureExt as _;
use tokio::time::timeout;
use tonic::Status;

use crate::refusal::Refusal;
use crate::service::Service;
use crate::traces;

/// SHA-256 of the client certificate that TLS has checked, hexadecimal.
#[derive(Clone, Debug)]
pub struct Certificate(pub Arc<str>);

/// What is known of a connection: nothing, until a request has come on it; and whether a caller was let in on it.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<AtomicU8>);

impl Known {
    const ASKED: u8 = 1;
    const CALLER: u8 = 3;

    /// A request has come.
    pub fn asked(&self) {
        self.0.fetch_or(Self::ASKED, Ordering::Relaxed);
    }

    /// A request has come.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// A caller was let in.
    pub fn is_a_callers(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::CALLER
    }

    fn let_in(&self) {
        self.0.fetch_or(Self::CALLER, Ordering::Relaxed);
    }
}

/// Lets callers through, while there is a place.
pub async fn callers(State(service): State<Arc<Service>>, mut request: Request, next: Next) -> Response {
    let media_type = request.headers().get(header::CONTENT_TYPE).map(axum::http::HeaderValue::as_bytes);
    let is_grpc = media_type.is_some_and(|media_type| media_type.starts_with(b"application/grpc"));
    let refused = |refusal: Refusal| {
        service.metrics.refused(&refusal);
        tracing::debug!(code = refusal.code(), "not let in");
        if is_grpc { Status::from(&refusal).into_http() } else { refusal.into_response() }
    };
    let authorization = request.headers().get(header::AUTHORIZATION).map(axum::http::HeaderValue::as_bytes);
    let certificate = request.extensions().get::<Certificate>().map(|one| &*one.0);
    let Some(caller) = service.live().access.caller(authorization, certificate) else {
        return refused(Refusal::Unauthenticated);
    };
    if let Some(known) = request.extensions().get::<Known>() {
        known.let_in();
    }
    if service.is_stopping() {
        return refused(Refusal::Stopping);
    }
    let Some(_share) = service.callers.enter(&caller, service.limits.requests_of_one) else {
        return refused(Refusal::CallerBusy);
    };
    let Ok(_place) = Arc::clone(&service.places).try_acquire_owned() else {
        return refused(Refusal::Busy);
    };
    let span = service.traces.as_ref().map(|traces| traces.request(&request, &caller));
    request.extensions_mut().insert(caller);
    let run = next.run(request).with_context(span.clone().unwrap_or_default());
    let response = match timeout(service.limits.request_time, run).await {
        Ok(response) => response,
        Err(_) => refused(Refusal::Slow),
    };
    if let Some(span) = &span {
        traces::answered(span, response.status());
    }
    response
}
