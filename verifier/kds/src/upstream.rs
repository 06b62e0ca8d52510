//! One GET to the service: bounded in time and length, no redirect followed, its refusals sorted.
//!
//! Trusts: nothing but TLS for privacy and availability; what it answers is checked as a host's word is.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use coffer_rim::chain;
use coffer_rim::foreign::foreign_at_most;
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, StatusCode, redirect};
use time::PrimitiveDateTime;
use time::macros::format_description;

use crate::address::Base;
use crate::error::FetchError;

/// What came of asking.
pub(crate) enum Answer {
    /// A body, not looked at.
    Body(Vec<u8>),
    /// It has none, and says so.
    None(u16),
    /// Not now; and the status that says so.
    Later(Duration, u16),
    /// Anything else.
    Failed(FetchError),
}

#[derive(Debug)]
pub(crate) struct Upstream {
    http: Client,
    longest_pause: Duration,
    /// Of one request.
    timeout: Duration,
}

/// A pause where a refusal names none.
const PAUSE: Duration = Duration::from_secs(10);
/// The shortest: a service that says 0 does not mean it.
const SHORTEST: Duration = Duration::from_secs(1);

impl Upstream {
    pub(crate) fn new(base: &Base, timeout: Duration, longest_pause: Duration) -> Result<Self, String> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Two at once: the other one's is the same.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let mut http = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(timeout)
            .timeout(timeout)
            .user_agent(concat!("coffer/", env!("CARGO_PKG_VERSION")));
        http = if base.is_plain() { http.no_proxy() } else { http.https_only(true) };
        let http = http.build().map_err(|error| chain(&error))?;
        Ok(Self { http, longest_pause, timeout })
    }

    pub(crate) async fn get(&self, url: &str, limit: usize) -> Answer {
        let failed = |error: reqwest::Error| {
            let error = error.without_url();
            if error.is_timeout() {
                FetchError::Slow { within: self.timeout }
            } else {
                FetchError::Failed { reason: reason(&error) }
            }
        };
        let mut response = match self.http.get(url).send().await {
            Ok(response) => response,
            Err(error) => return Answer::Failed(failed(error)),
        };
        let status = response.status();
        if status != StatusCode::OK {
            return self.refusal(status, response.headers());
        }
        if response.content_length().is_some_and(|claimed| claimed > limit as u64) {
            return Answer::Failed(FetchError::TooLong { limit });
        }
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() > limit => {
                    return Answer::Failed(FetchError::TooLong { limit });
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Answer::Body(bytes),
                Err(error) => return Answer::Failed(failed(error)),
            }
        }
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> Answer {
        let named = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let pause = named.and_then(|text| retry_after(text, SystemTime::now()));
        let later = |pause: Duration| Answer::Later(pause.max(SHORTEST).min(self.longest_pause), status.as_u16());
        match (status, pause) {
            (StatusCode::TOO_MANY_REQUESTS, pause) => later(pause.unwrap_or(PAUSE)),
            (StatusCode::SERVICE_UNAVAILABLE, Some(pause)) => later(pause),
            (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::GONE, _) => Answer::None(status.as_u16()),
            _ if status.is_redirection() => {
                let to = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
                let to = foreign_at_most(to, LONGEST_ADDRESS);
                Answer::Failed(FetchError::Redirect { status: status.as_u16(), to })
            }
            _ => Answer::Failed(FetchError::Status { status: status.as_u16() }),
        }
    }
}

/// Letters of a foreign address that are shown.
const LONGEST_ADDRESS: usize = 200;

/// In words: what of a connection failed, and the innermost cause alone.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    let mut kind = None;
    while let Some(inner) = cause.source() {
        cause = inner;
        kind = cause.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
    }
    let what = match kind {
        Some(io::ErrorKind::ConnectionRefused) => return "the connection is refused".to_owned(),
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => {
            return "the connection broke off before the answer was whole".to_owned();
        }
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            return "there is no way to that host".to_owned();
        }
        _ if error.is_connect() => "no connection",
        _ if error.is_body() || error.is_decode() => "the answer broke off",
        _ => "it does not speak HTTP",
    };
    format!("{what}: {cause}")
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let form =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let at: SystemTime = PrimitiveDateTime::parse(text, form).ok()?.assume_utc().into();
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let after = |text| retry_after(text, now);
        assert_eq!(after("120"), Some(Duration::from_mins(2)));
        assert_eq!(after("99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_mins(1)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        for text in ["", "-1", "soon", "1.5", "06 Nov 1994"] {
            assert_eq!(after(text), None, "{text}");
        }
    }
}
