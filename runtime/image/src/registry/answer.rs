//! Answers of a registry: read up to a bound and at a pace, refusals sorted.
//!
//! Trusts: nothing. A claimed length is compared with the bound before the first byte is read, an unclaimed one while it
//! streams; what comes too slowly is given up; header lines are bounded by the HTTP client (100 of them, some 400 KiB). Dates are compared with the answer's own.
//! Source: RFC 9110 §10.2.3, "Retry-After"; RFC 6585 §4, "429 Too Many Requests".

use crate::error::ImageError;
use crate::pull::options::Pace;
use coffer_rim::chain;
use oci_client::errors::{OciEnvelope, OciErrorCode};
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A request that failed: for good, or perhaps not the next time.
#[derive(Debug)]
pub(crate) enum Failure {
    Final(ImageError),
    Passing(Passing),
}

/// Why a request may go well the next time.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    pub(crate) reason: String,
    /// It was told to ask less.
    pub(crate) too_many: bool,
    /// When it was told to come back.
    pub(crate) after: Option<Duration>,
}

impl Failure {
    /// One that says no more than why.
    pub(crate) fn passing(reason: String) -> Self {
        Self::Passing(Passing { reason, ..Passing::default() })
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Final(error)
    }
}

/// What a refusal means.
pub(super) enum Refusal {
    Passing(Passing),
    NotFound(String),
    Unauthorized,
    Other(String),
}

/// Bytes of a refusal's text that are read; more is cut.
const MAX_REFUSAL: usize = 64 << 10;
/// Characters of it that are kept.
const MAX_WORDS: usize = 500;

/// A failure without the address that was asked: what stands in one may be a key to what it leads to.
pub(crate) fn without_address(error: reqwest::Error) -> String {
    chain(&error.without_url())
}

/// The bytes of an answer, as fast as they must come. What the reader does between two pieces takes nothing of the time.
pub(crate) struct Reading {
    response: Response,
    pace: Pace,
    waited: Duration,
    came: u64,
}

impl Reading {
    /// Bytes that go on coming at this pace.
    pub(crate) fn of(response: Response, pace: Pace) -> Self {
        Self { response, pace, waited: Duration::ZERO, came: 0 }
    }

    /// Bytes that are all there in time.
    pub(crate) fn whole(response: Response, pace: Pace) -> Self {
        Self::of(response, Pace { bytes: u64::MAX, ..pace })
    }

    /// The next piece; none at the end.
    pub(crate) async fn piece(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        let Pace { within, bytes } = self.pace;
        loop {
            if self.waited >= within {
                if self.came < bytes {
                    let (came, within) = (self.came, within.as_secs_f32());
                    return Err(Failure::passing(format!("it is too slow: {came} bytes within {within} s")));
                }
                (self.waited, self.came) = (Duration::ZERO, 0);
            }
            let began = Instant::now();
            let next = timeout(within.saturating_sub(self.waited), self.response.chunk()).await;
            self.waited += began.elapsed();
            if let Ok(next) = next {
                let piece = next.map_err(|error| Failure::passing(without_address(error)))?;
                self.came += piece.as_ref().map_or(0, |piece| piece.len() as u64);
                return Ok(piece);
            }
        }
    }
}

/// A whole body. `what`: as [`ImageError::TooLarge`] names its bytes.
pub(crate) async fn body(response: Response, pace: Pace, what: &'static str, limit: u64) -> Result<Vec<u8>, Failure> {
    let too_large = || Failure::Final(ImageError::TooLarge { what, limit });
    if response.content_length().is_some_and(|claimed| claimed > limit) {
        return Err(too_large());
    }
    let (mut bytes, mut reading) = (Vec::new(), Reading::whole(response, pace));
    while let Some(piece) = reading.piece().await? {
        if (bytes.len() + piece.as_ref().len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(piece.as_ref());
    }
    Ok(bytes)
}

/// Sorts an answer that is no success, by its status and the words of the distribution protocol in it.
pub(super) async fn refusal(response: Response, pace: Pace) -> Refusal {
    let status = response.status();
    let after = retry_after(response.headers());
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Refusal::Passing(Passing { reason: "429, too many requests".to_owned(), too_many: true, after });
    }
    if status.is_server_error() {
        let reason = format!("it answered with status {}", status.as_u16());
        return Refusal::Passing(Passing { reason, too_many: false, after });
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Refusal::Unauthorized;
    }
    let (mut bytes, mut reading) = (Vec::new(), Reading::whole(response, pace));
    while let Ok(Some(piece)) = reading.piece().await {
        let (piece, room) = (piece.as_ref(), MAX_REFUSAL - bytes.len());
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if bytes.len() == MAX_REFUSAL {
            break;
        }
    }
    match serde_json::from_slice::<OciEnvelope>(&bytes) {
        Ok(envelope) if !envelope.errors.is_empty() => sort(&envelope, after),
        _ if status == StatusCode::NOT_FOUND => Refusal::NotFound("status 404".to_owned()),
        _ => Refusal::Other(format!("status {}", status.as_u16())),
    }
}

/// Sorts the words of the distribution protocol (OCI Distribution Specification 1.1, "Error Codes").
fn sort(envelope: &OciEnvelope, after: Option<Duration>) -> Refusal {
    use OciErrorCode::{BlobUnknown, Denied, ManifestUnknown, NameUnknown, NotFound, Toomanyrequests, Unauthorized};
    let words = envelope.errors.iter().map(|error| error.message.as_str());
    let text: String = words.collect::<Vec<_>>().join("; ").chars().take(MAX_WORDS).collect();
    let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
    if has(&[Toomanyrequests]) {
        let reason = format!("it asks for fewer requests: {text}");
        Refusal::Passing(Passing { reason, too_many: true, after })
    } else if has(&[Unauthorized, Denied]) {
        Refusal::Unauthorized
    } else if has(&[ManifestUnknown, NameUnknown, BlobUnknown, NotFound]) {
        Refusal::NotFound(text)
    } else {
        Refusal::Other(text)
    }
}

/// How long an answer asks to be left alone: seconds, or a date, which is measured against the answer's own.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    date(asked)?.duration_since(date(text(DATE)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_seconds_and_dates_and_nothing_else() {
        let after = |asked: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, asked.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(after("7", None), Some(7));
        assert_eq!(after(" 120 ", None), Some(120));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(60));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:00 GMT", now), None, "it is over");
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT", None), None, "no clock of ours is asked");
        for odd in ["", "-1", "soon", "1e9", "99999999999999999999999"] {
            assert_eq!(after(odd, now), None, "{odd}");
        }
    }
}
