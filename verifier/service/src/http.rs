//! The interface over HTTP: one table of routes, which the OpenAPI document is made of too.
//!
//! Every error is a document of one shape, with a stable code; every answer of the judge is one of status 200, whatever it says.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use coffer_verifier::ear::Issuer;
use serde_json::{Value, json};

use crate::access::Caller;
use crate::appraiser::Answer;
use crate::challenge::LIFETIME;
use crate::openapi;
use crate::page::PAGE;
use crate::refusal::{RETRY_AFTER, Refusal};
use crate::request;
use crate::routes::{Open, ROUTES};
use crate::service::{Service, now};
use crate::traces::Traces;

/// Everybody's.
type Shared = State<Arc<Service>>;

/// The routes that are open to these.
pub fn routes(open: Open) -> Router<Arc<Service>> {
    let mine = ROUTES.iter().filter(|route| route.open == open);
    mine.fold(Router::new(), |router, route| match handler(route.path) {
        Some(handler) => router.route(route.path, handler),
        None => router,
    })
}

/// What answers at a path; a test has one for each of the table.
fn handler(path: &str) -> Option<MethodRouter<Arc<Service>>> {
    Some(match path {
        "/v1/appraise" => post(appraise),
        "/v1/appraise/batch" => post(appraise_batch),
        "/v1/challenge" => get(challenge),
        "/v1/policies" => get(policies),
        "/v1/decisions" => get(decisions),
        "/" => get(page),
        "/metrics" => get(metrics),
        "/.well-known/jwks.json" => get(jwks),
        "/.well-known/openid-configuration" => get(configuration),
        "/openapi.json" => get(document),
        "/healthz" => get(healthz),
        "/readyz" => get(readyz),
        _ => return None,
    })
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, document_of(&self.failure().json())).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A document that nobody keeps.
fn document_of(value: &Value) -> Response {
    text("application/json", "no-store", value.to_string())
}

fn text(media_type: &'static str, keep: &'static str, body: impl Into<Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, keep),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body.into()).into_response()
}

/// Nothing has this path.
pub async fn not_found() -> Refusal {
    Refusal::NotFound
}

/// Something has this path, and another method.
pub async fn other_method(uri: Uri) -> Refusal {
    let takes = ROUTES.iter().find(|route| route.path == uri.path()).map(|route| route.method);
    Refusal::Method { takes: if takes == Some("post") { "POST" } else { "GET" } }
}

/// The body, whole and bounded.
async fn body(service: &Service, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    let media_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !essence.eq_ignore_ascii_case(b"application/json") {
        return Err(Refusal::MediaType);
    }
    let limit = service.limits.request_bytes;
    let too_long = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if too_long.is_some_and(|length| length > limit) {
        return Err(Refusal::TooLong { limit });
    }
    match to_bytes(body, limit).await {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) if is_limit(&error) => Err(Refusal::TooLong { limit }),
        Err(_) => Err(Refusal::Malformed("it broke off".to_owned())),
    }
}

fn is_limit(error: &axum::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

async fn appraise(
    State(service): Shared,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    sent: Body,
) -> Result<Response, Refusal> {
    let asked = async { request::one(&body(&service, &headers, sent).await?) }.await;
    let answer = match asked {
        Ok(asked) => service.appraise(asked, &caller.to_string()).await,
        Err(refusal) => Err(refusal),
    };
    let answer = service.counted(answer.and_then(|answer| answer.to_json()))?;
    Ok(text("application/json", "no-store", answer))
}

async fn appraise_batch(
    State(service): Shared,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    sent: Body,
) -> Result<Response, Refusal> {
    let requests = async { request::batch(&body(&service, &headers, sent).await?) }.await;
    let asked = service.counted(requests)?;
    let written = |answer: Result<Answer, Refusal>| answer.and_then(|answer| answer.to_json());
    let results = service.appraise_each(asked, &caller.to_string(), written).await.into_iter();
    let results = results.map(|one| one.unwrap_or_else(|refusal| refusal.failure().json().to_string().into()));
    let results: Vec<Vec<u8>> = results.collect();
    let whole = [&br#"{"results":["#[..], &results.join(&b','), b"]}"].concat();
    Ok(text("application/json", "no-store", whole))
}

async fn challenge(State(service): Shared) -> Result<Response, Refusal> {
    let challenge = service.counted(service.challenge())?;
    let report_data = challenge.report_data().to_string();
    let value = json!({ "challenge": challenge.text(), "report_data": report_data, "expires_in": LIFETIME });
    Ok(document_of(&value))
}

async fn policies(State(service): Shared) -> Response {
    document_of(&service.live().appraiser.policies.to_json())
}

async fn decisions(State(service): Shared) -> Result<Response, Refusal> {
    // A megabyte or two: work for a thread of its own.
    let written = tokio::task::spawn_blocking(move || service.decisions.to_json()).await;
    Ok(text("application/json", "no-store", written.map_err(|_| Refusal::Internal)?))
}

async fn page() -> Response {
    let mut response = text("text/html; charset=utf-8", "no-cache", PAGE.html.clone());
    let headers = response.headers_mut();
    // A policy of ours has no byte that a header could not have; without one the page is not given.
    let Ok(policy) = HeaderValue::from_str(&PAGE.policy) else { return Refusal::Internal.into_response() };
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

async fn metrics(State(service): Shared) -> Response {
    let spans_lost = service.traces.as_ref().map_or(0, Traces::lost);
    let text_of = service.metrics.text(service.under_way(), service.connections(), spans_lost);
    text("text/plain; version=0.0.4", "no-store", text_of)
}

async fn jwks(State(service): Shared) -> Result<Response, Refusal> {
    let live = service.live();
    let issuer = live.appraiser.issuer.as_ref().ok_or(Refusal::NotFound)?;
    Ok(text("application/json", "max-age=300", issuer.keys.jwks(now()).to_json()))
}

async fn configuration(State(service): Shared) -> Result<Response, Refusal> {
    let live = service.live();
    let issuer = live.appraiser.issuer.as_ref().ok_or(Refusal::NotFound)?;
    Ok(text("application/json", "max-age=300", Issuer::configuration(&issuer.issuer)))
}

async fn document() -> Response {
    text("application/json", "max-age=300", openapi::SERVED.clone())
}

async fn healthz() -> Response {
    text("text/plain", "no-store", "ok\n".to_owned())
}

async fn readyz(State(service): Shared) -> Result<Response, Refusal> {
    if service.is_stopping() {
        return Err(Refusal::Stopping);
    }
    Ok(text("text/plain", "no-store", "ready\n".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_in_is_answered() {
        for route in ROUTES {
            assert!(handler(route.path).is_some(), "{}", route.path);
        }
        assert!(handler("/v1/nothing").is_none());
    }
}
