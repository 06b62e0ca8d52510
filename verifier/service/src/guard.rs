//! In front of every way in that is for callers: who asks, a place, and a time that ends.
//!
//! In this order: a stranger takes no place, and nobody's body is read before there is one.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use opentelemetry::context::FutureExt as _;
use tokio::time::timeout;
use tonic::Status;

use crate::grpc;
use crate::known::Known;
use crate::refusal::Refusal;
use crate::service::{Live, Service};
use crate::tls::ClientRoots;
use crate::traces;

/// A client certificate that TLS has checked when the connection began.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// SHA-256 of it, hexadecimal.
    pub digest: Arc<str>,
    /// The roots it was checked under.
    pub roots: ClientRoots,
}

impl Certificate {
    /// Those roots are still the ones that are believed.
    pub fn counts(&self, live: &Live) -> bool {
        live.tls.as_ref().and_then(|tls| tls.client_roots) == Some(self.roots)
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
    let live = service.live();
    if live.access.loopback_names_alone && !is_for_loopback(&request) {
        return refused(Refusal::OtherHost);
    }
    let certificate = request.extensions().get::<Certificate>().filter(|one| one.counts(&live));
    let Some(caller) = live.access.caller(authorization, certificate.map(|one| &*one.digest)) else {
        return refused(Refusal::Unauthenticated);
    };
    drop(live);
    let known = request.extensions().get::<Known>().cloned().unwrap_or_default();
    known.let_in();
    if service.is_stopping() {
        return refused(Refusal::Stopping);
    }
    let Some(share) = service.callers.enter(&caller, service.limits.requests_of_one) else {
        return refused(Refusal::CallerBusy);
    };
    let Ok(place) = Arc::clone(&service.places).try_acquire_owned() else {
        return refused(Refusal::Busy);
    };
    let span = service.traces.as_ref().map(|traces| traces.request(&request, &caller));
    request.extensions_mut().insert(caller);
    let run = next.run(request).with_context(span.clone().unwrap_or_default());
    let response = match timeout(service.limits.request_time, run).await {
        Ok(response) if is_grpc => grpc::counted(response, &service.metrics),
        Ok(response) => response,
        Err(_) => refused(Refusal::Slow),
    };
    if let Some(span) = &span {
        traces::answered(span, response.status());
    }
    // What is not taken takes room: the place is free again with the last of it.
    response.map(|body| known.waiting.answer(body, (share, place)))
}

/// Every host that the request names is this machine by a name that no other can have: a page of a browser's, led here by a name of
/// its own in the DNS, names that one.
fn is_for_loopback(request: &Request) -> bool {
    let headers = request.headers().get_all(header::HOST).iter();
    let headers = headers.map(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let mut named = request.uri().authority().cloned().map(Some).into_iter().chain(headers).peekable();
    named.peek().is_some() && named.all(|host| host.is_some_and(|host| is_loopback(host.host())))
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_loopback_alone_are_this_machine() {
        let ask = |uri: &str, hosts: &[&str]| {
            let request = Request::builder().uri(uri);
            let request = hosts.iter().fold(request, |request, host| request.header(header::HOST, *host));
            is_for_loopback(&request.body(axum::body::Body::empty()).unwrap())
        };
        for host in ["127.0.0.1", "127.0.0.1:4490", "[::1]:4490", "localhost", "LocalHost:4490", "127.3.2.1"] {
            assert!(ask("/", &[host]) && ask(&format!("http://{host}/"), &[]), "{host}");
        }
        for host in
            ["", "evil.example:4490", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.1", "a b"]
        {
            assert!(!ask("/", &[host]), "{host}");
        }
        assert!(!ask("/", &[]), "who says nothing is not let in");
        assert!(!ask("/", &["localhost", "evil.example"]));
        assert!(!ask("http://evil.example/", &["localhost"]) && !ask("http://localhost/", &["evil.example"]));
    }
}
