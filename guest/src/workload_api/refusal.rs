//! Why a call gave nothing, as the workload hears it.

use std::time::Duration;

use coffer_kbs_client::ClientError;
use coffer_seal::SealError;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{broker::questions::REST, sealing::SealingError};

/// A status, a word for programs, a sentence for people.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    word: String,
    message: String,
    id: Option<String>,
    retry_after: Option<Duration>,
}

impl Refusal {
    pub fn new(status: StatusCode, word: &str, message: String) -> Self {
        Self { status, word: word.to_owned(), message, id: None, retry_after: None }
    }

    /// A part of the request that could not be read.
    pub fn field(word: &'static str, expected: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, word, format!("{word}: expected {expected}"))
    }

    pub fn too_many(wait: Duration) -> Self {
        Self::later(wait, "too many calls in a second".into())
    }

    /// Of what the key broker answers, the workload has had its share.
    pub fn share_is_spent(wait: Duration) -> Self {
        Self::later(wait, "too many questions to the key broker in a second".into())
    }

    fn later(wait: Duration, message: String) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", message);
        Self { retry_after: Some(wait), ..refusal }
    }

    pub fn no_broker() -> Self {
        Self::new(StatusCode::CONFLICT, "no-broker", "this guest's spec names no key broker".into())
    }

    pub fn late(seconds: u64) -> Self {
        let message = format!("the key broker did not answer within {seconds} s");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "kbs-unreachable", message)
    }

    pub fn processor(message: String) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "processor", message)
    }

    pub fn response(self) -> Response<Vec<u8>> {
        let Self { status, word, message, id, retry_after } = self;
        let mut text = serde_json::json!({ "error": word, "message": message });
        if let Some(id) = id {
            text["id"] = id.into();
        }
        let mut response = Response::new(format!("{text}\n").into_bytes());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<&ClientError> for Refusal {
    fn from(error: &ClientError) -> Self {
        let of = |status, word| Self::new(status, word, error.to_string());
        match error {
            ClientError::Refused { code, id } => Self { id: Some(id.clone()), ..of(StatusCode::FORBIDDEN, code) },
            ClientError::TooOften => Self::later(REST, error.to_string()),
            ClientError::Undecided { id, .. } => {
                Self { id: Some(id.clone()), ..of(StatusCode::SERVICE_UNAVAILABLE, "kbs-failed") }
            }
            ClientError::Unreachable { .. } | ClientError::Slow { .. } => {
                of(StatusCode::SERVICE_UNAVAILABLE, "kbs-unreachable")
            }
            ClientError::PinMismatch { .. } => of(StatusCode::BAD_GATEWAY, "kbs-pin-mismatch"),
            ClientError::Rejected { .. } => of(StatusCode::BAD_REQUEST, "rejected"),
            _ => of(StatusCode::BAD_GATEWAY, "kbs-failed"),
        }
    }
}

impl From<&SealingError> for Refusal {
    fn from(error: &SealingError) -> Self {
        let status = match error {
            SealingError::Broker { cause, .. } => return cause.into(),
            SealingError::Context { .. }
            | SealingError::CounterNeedsBroker { .. }
            | SealingError::Seal(SealError::Format { .. } | SealError::Version { .. }) => StatusCode::BAD_REQUEST,
            SealingError::Seal(SealError::Closed | SealError::Older { .. } | SealError::Processor { .. }) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            SealingError::Processor(_) | SealingError::Report | SealingError::Line | SealingError::Random(_) => {
                StatusCode::BAD_GATEWAY
            }
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, error.word(), error.to_string())
    }
}
