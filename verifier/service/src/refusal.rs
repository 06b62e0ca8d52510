//! Why a request gets no appraisal: a stable code for programs, a sentence for people, and the status it travels with.
//!
//! Says of a request what its sender wrote there anyway, escaped and cut; of this machine nothing.

use coffer_rim::failure::Reason;
use coffer_rim::{Class, Failure, foreign::foreign_at_most};
use coffer_verifier::ear::EarError;
use coffer_verifier::{EndorsementError, Look, PresentedError};

/// Why there is no appraisal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not the JSON expected.
    #[error("the request is not what this interface takes: {0}")]
    Malformed(String),
    /// One field means nothing.
    #[error("{field} is not {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// Of no form.
    #[error("evidence is in no form that is known")]
    Evidence(#[from] PresentedError),
    /// No certificate or list at all.
    #[error("{field}[{at}] is nothing that belongs there")]
    Endorsement {
        /// Where.
        field: &'static str,
        /// Which of them.
        at: usize,
        /// Why.
        #[source]
        source: EndorsementError,
    },
    /// More than one request may hold.
    #[error("{field} has more than {limit} entries")]
    TooMany {
        /// Where.
        field: &'static str,
        /// The limit.
        limit: usize,
    },
    /// No policy has this name.
    #[error("no policy is called {0}")]
    Policy(String),
    /// Not one of this service's challenges.
    #[error("the challenge is none that this service gave")]
    ChallengeForged,
    /// Too old.
    #[error("the challenge has expired")]
    ChallengeExpired,
    /// Another's, and older than this process, which cannot know whether it was used.
    #[error("the challenge was given before this service began")]
    ChallengeOfBefore,
    /// Used before.
    #[error("the challenge was used before")]
    ChallengeSpent,
    /// This service issues none.
    #[error("this service issues no tokens")]
    NoTokens,
    /// Evidence that runs out now.
    #[error("no token can be issued of it")]
    Token(#[from] EarError),
    /// Nobody who may ask.
    #[error("who asks is not known here")]
    Unauthenticated,
    /// Meant for a host of another name.
    #[error("the request is for another host than this one's loopback")]
    OtherHost,
    /// Longer than a request may be.
    #[error("the request is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// Another media type.
    #[error("the request is not of media type application/json")]
    MediaType,
    /// Another media type than calls have.
    #[error("the call is not of media type application/grpc")]
    CallType,
    /// Nothing is there.
    #[error("there is nothing of that name")]
    NotFound,
    /// Something is there, for another method.
    #[error("that is asked for with {takes}, and not in this way")]
    Method {
        /// The method that is there.
        takes: &'static str,
    },
    /// As many as can be served are.
    #[error("as many requests as can be served at once are under way")]
    Busy,
    /// As many of this caller's as one may have are.
    #[error("as many requests of one caller as are served at once are under way")]
    CallerBusy,
    /// It took too long.
    #[error("the request was not answered in time")]
    Slow,
    /// On the way to the end.
    #[error("this service is about to end")]
    Stopping,
    /// Ours.
    #[error("this service failed")]
    Internal,
}

/// Seconds after which it is worth asking again.
pub const RETRY_AFTER: u64 = 1;

impl Refusal {
    /// A batch of nothing.
    pub const NO_BATCH: Self = Self::Field { field: "requests", expected: "a list of 1 to 64 requests" };

    /// What a foreign parser said, cut.
    pub fn malformed(words: &str) -> Self {
        Self::Malformed(foreign_at_most(words, 160))
    }

    /// The word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Field { .. } => "malformed-request",
            Self::Evidence(_) => "malformed-evidence",
            Self::Endorsement { .. } => "malformed-endorsement",
            Self::TooMany { .. } => "too-many",
            Self::Policy(_) => "unknown-policy",
            Self::ChallengeForged => "challenge-unknown",
            Self::ChallengeExpired | Self::ChallengeOfBefore => "challenge-expired",
            Self::ChallengeSpent => "challenge-spent",
            Self::NoTokens => "no-tokens",
            Self::Token(_) => "no-token",
            Self::Unauthenticated => "unauthenticated",
            Self::OtherHost => "other-host",
            Self::TooLong { .. } => "too-long",
            Self::MediaType | Self::CallType => "media-type",
            Self::NotFound => "not-found",
            Self::Method { .. } => "method",
            Self::Busy => "busy",
            Self::CallerBusy => "caller-busy",
            Self::Slow => "slow",
            Self::Stopping => "stopping",
            Self::Internal => "internal",
        }
    }

    /// HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Unauthenticated => 401,
            Self::NotFound => 404,
            Self::Method { .. } => 405,
            Self::ChallengeForged | Self::ChallengeExpired | Self::ChallengeOfBefore | Self::ChallengeSpent => 409,
            Self::TooLong { .. } => 413,
            Self::MediaType | Self::CallType => 415,
            Self::OtherHost => 421,
            Self::Busy | Self::CallerBusy | Self::Slow | Self::Stopping => 503,
            Self::Internal => 500,
            _ => 400,
        }
    }

    /// What helps.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Field { .. } | Self::TooMany { .. } => {
                "/openapi.json says what a request may hold"
            }
            Self::MediaType => "send JSON, and say so: `Content-Type: application/json`",
            Self::Evidence(error) => error.hint(),
            Self::Endorsement { source: EndorsementError::Other { found: Look::RevocationList, .. }, .. } => {
                "a revocation list goes into crls"
            }
            Self::Endorsement { source: EndorsementError::Other { found: Look::Certificate, .. }, .. } => {
                "a certificate goes into certificates"
            }
            Self::Endorsement { source: EndorsementError::Other { found: Look::CertTable, .. }, .. } => {
                "a certificate table goes into cert_table, beside a bare report"
            }
            Self::Endorsement { .. } => "give certificates and lists in DER or PEM",
            Self::Policy(_) => "GET /v1/policies lists them",
            Self::ChallengeForged | Self::ChallengeExpired | Self::ChallengeOfBefore | Self::ChallengeSpent => {
                "GET /v1/challenge gives another; each is good for one request at each replica, within a minute"
            }
            Self::NoTokens => "its operator sets issuer and token_keys",
            Self::CallType => "send messages of proto/verifier.proto as gRPC has them, in binary",
            Self::Token(_) => "have the guest send fresher certificates and lists",
            Self::Unauthenticated => "send `Authorization: Bearer KEY`, or a client certificate that is believed here",
            Self::OtherHost => "ask for localhost or an address of the loopback: whoever connects may ask here",
            Self::TooLong { .. } => "send less at once",
            Self::NotFound | Self::Method { .. } => "/openapi.json lists what there is",
            Self::Busy | Self::CallerBusy | Self::Stopping => "ask again after a pause",
            Self::Slow => "ask again after a pause, and in smaller batches",
            Self::Internal => "see the log of the service",
        }
    }

    /// As every program of ours says it.
    pub fn failure(&self) -> Failure {
        let class = match self.status() {
            401 | 409 | 421 => Class::Refused,
            404 => Class::NotFound,
            500 => Class::Internal,
            503 => Class::Unreachable,
            _ => Class::Usage,
        };
        let reason = Reason { code: self.code().to_owned(), denial_id: None };
        Failure { reason: Some(reason), ..Failure::caused(class, self).hint(self.hint()) }
    }
}
