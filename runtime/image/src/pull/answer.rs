//! Answers of a registry: read up to a bound, refusals sorted.
//!
//! Trusts: nothing. A claimed length is compared with the bound before the first byte is read, an unclaimed one while it
//! streams; header lines are bounded by the HTTP client (100 of them, some 400 KiB).

use crate::error::ImageError;
use coffer_rim::chain;
use oci_client::errors::{OciEnvelope, OciErrorCode};
use reqwest::{Response, StatusCode};

/// A request that failed: for good, or perhaps not the next time.
pub(super) enum Failure {
    Final(ImageError),
    Passing(String),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Final(error)
    }
}

/// What a refusal means.
pub(super) enum Refusal {
    Passing(String),
    NotFound(String),
    Unauthorized,
    Other(String),
}

/// Bytes of a refusal's text that are read; more is cut.
const MAX_REFUSAL: usize = 64 << 10;
/// Characters of it that are kept.
const MAX_WORDS: usize = 500;

/// A whole body. `what`: as [`ImageError::TooLarge`] names its bytes.
pub(super) async fn body(mut response: Response, what: &'static str, limit: u64) -> Result<Vec<u8>, Failure> {
    let too_large = || Failure::Final(ImageError::TooLarge { what, limit });
    if response.content_length().is_some_and(|claimed| claimed > limit) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::Passing(chain(&error)))? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Sorts an answer that is no success, by its status and the words of the distribution protocol in it.
pub(super) async fn refusal(mut response: Response) -> Refusal {
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        return Refusal::Passing(format!("it answered with status {}", status.as_u16()));
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Refusal::Unauthorized;
    }
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = MAX_REFUSAL - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if bytes.len() == MAX_REFUSAL {
            break;
        }
    }
    match serde_json::from_slice::<OciEnvelope>(&bytes) {
        Ok(envelope) if !envelope.errors.is_empty() => sort(&envelope),
        _ if status == StatusCode::NOT_FOUND => Refusal::NotFound("status 404".to_owned()),
        _ => Refusal::Other(format!("status {}", status.as_u16())),
    }
}

/// Sorts the words of the distribution protocol (OCI Distribution Specification 1.1, "Error Codes").
fn sort(envelope: &OciEnvelope) -> Refusal {
    use OciErrorCode::{BlobUnknown, Denied, ManifestUnknown, NameUnknown, NotFound, Toomanyrequests, Unauthorized};
    let words = envelope.errors.iter().map(|error| error.message.as_str());
    let text: String = words.collect::<Vec<_>>().join("; ").chars().take(MAX_WORDS).collect();
    let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
    if has(&[Toomanyrequests]) {
        Refusal::Passing(format!("it asks for fewer requests: {text}"))
    } else if has(&[Unauthorized, Denied]) {
        Refusal::Unauthorized
    } else if has(&[ManifestUnknown, NameUnknown, BlobUnknown, NotFound]) {
        Refusal::NotFound(text)
    } else {
        Refusal::Other(text)
    }
}
