//! Why the broker gave no answer we can use; one variant per thing the reader would do about it.

use std::{error::Error, time::Duration};

use coffer_ratls::{ConnectError, Denial, HpkeError};
use coffer_rim::{chain, foreign::foreign_at_most};
use coffer_verifier::abi::SpkiDigest;
use tonic::{Code, Status};

/// Failure of a call to the broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers, or the line broke: network, address, or a broker that is down.
    #[error("key broker is unreachable: {cause}")]
    Unreachable {
        /// In words.
        cause: String,
    },
    /// The broker took the call, and its answer is not whole in time. What was asked may have been done all the same.
    #[error("key broker did not answer within {} s", within.as_secs_f32())]
    Slow {
        /// How long was waited.
        within: Duration,
    },
    /// The broker is there, and could not record what it decides: nothing was released. Its log has the reason under the id.
    #[error("key broker could not decide: {code} (id {id})")]
    Undecided {
        /// Stable word, such as `broker-failed`.
        code: String,
        /// Joins this with the broker's log.
        id: String,
    },
    /// Somebody answers, but not the broker that is pinned.
    #[error("key broker shows key {found}, which is none of the {} pinned", expected.len())]
    PinMismatch {
        /// The key it showed.
        found: SpkiDigest,
        /// The pinned keys.
        expected: Vec<SpkiDigest>,
    },
    /// The broker said no. Its log has the reason under the id.
    #[error("key broker refused: {code} (id {id})")]
    Refused {
        /// Stable word, such as `not-released`.
        code: String,
        /// Joins this refusal with the broker's log.
        id: String,
    },
    /// The broker wants fewer questions of this end in a second, and says nothing of what was asked. No line of its trail is about it.
    #[error("key broker is asked too often: {TOO_OFTEN}")]
    TooOften,
    /// None of the operator's roles allows it.
    #[error("key broker refused: role-missing (id {id}): it takes {}, and this key has {held}", one_of(enough))]
    RoleMissing {
        /// Joins this refusal with the broker's audit trail.
        id: String,
        /// Roles each of which would be enough, as `coffer kbs admin add --role` takes them.
        enough: Vec<String>,
        /// Roles that the key has.
        held: String,
    },
    /// The admin API did not take the request as it was.
    #[error("key broker did not take the request: {message}")]
    Rejected {
        /// gRPC code.
        code: Code,
        /// The broker's words, escaped.
        message: String,
    },
    /// The broker found something in its state that it did not write.
    #[error("key broker does not believe its own state: {message}")]
    NotAuthentic {
        /// The broker's words, escaped.
        message: String,
    },
    /// The broker could not do it: its disk is full, say.
    #[error("key broker failed: {message}")]
    Failed {
        /// The broker's words, escaped.
        message: String,
    },
    /// The value does not open: it was sealed for another connection, secret or version.
    #[error("released value does not open")]
    Sealed(#[source] HpkeError),
    /// Somebody answers who does not speak the protocol of this listener: mostly the broker's other one.
    #[error("no protocol {wanted} is spoken there: it is the key broker's other port, or no key broker")]
    OtherListener {
        /// ALPN that was asked for.
        wanted: &'static str,
    },
    /// The peer does not speak our protocol, or this end could not attest.
    #[error("no protocol with the key broker: {cause}")]
    Protocol {
        /// In words.
        cause: String,
    },
    /// This end could not make its evidence or configuration.
    #[error("this end cannot attest: {cause}")]
    Own {
        /// In words.
        cause: String,
    },
}

impl ClientError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some("check the broker's address and that `coffer-kbs serve` runs there"),
            Self::TooOften => Some("ask again in a few seconds"),
            Self::Slow { .. } => Some("it may have been done all the same: look before you ask again"),
            Self::Undecided { .. } => {
                Some("the broker's log has the reason under this id; ask again when it is mended")
            }
            Self::OtherListener { .. } => Some(
                "operators reach `admin_listen` (4481 where nothing else is said), guests `listen` (4480): see the broker's config.toml",
            ),
            Self::PinMismatch { .. } => Some("pin the broker's present key, or find out who answers at its address"),
            Self::Refused { code, .. } => Some(match code.as_str() {
                "value-too-large" | "message-too-large" => {
                    "a value has at most 1 MiB, and what is said beside it 64 KiB: encrypt what is larger, keep it elsewhere, and put its key here"
                }
                "policies-are-being-tried" => "ask again when the policy is tried that is tried now",
                "too-many-connections" => {
                    "end others of this key (it has 16 at once), or ask again: operators whom the configuration does not name share 64"
                }
                "message-undecodable" => "use the coffer of the broker's version; its log has more under the id",
                _ => "look the id up in the broker's log or audit",
            }),
            Self::RoleMissing { .. } => Some(
                "ask somebody who has it, or an owner for the role: `coffer kbs admin add NAME --role ROLE --key …`",
            ),
            _ => None,
        }
    }
}

impl From<Denial> for ClientError {
    fn from(denial: Denial) -> Self {
        Self::Refused { code: denial.code, id: denial.id }
    }
}

impl From<ConnectError> for ClientError {
    fn from(error: ConnectError) -> Self {
        let cause = words(&chain(&error));
        match error {
            ConnectError::PinMismatch { found, expected } => Self::PinMismatch { found, expected },
            ConnectError::Refused(denial) => denial.into(),
            ConnectError::Call(status) => call(&status),
            ConnectError::Handshake(io) if speaks_another(&io) => Self::OtherListener { wanted: GUESTS },
            ConnectError::KeyNotTaken(_) => not_admitted(),
            ConnectError::NoPlace => refused_in_tls("too-many-connections"),
            ConnectError::Handshake(io) if tls(&io).is_some() => Self::Protocol { cause },
            ConnectError::Handshake(_)
            | ConnectError::HungUp(_)
            | ConnectError::Timeout(_)
            | ConnectError::Transport(_) => Self::Unreachable { cause },
            ConnectError::Config(_) | ConnectError::Attester(_) | ConnectError::Internal(_) => Self::Own { cause },
            _ => Self::Protocol { cause },
        }
    }
}

/// The broker takes no key of this end.
fn not_admitted() -> ClientError {
    refused_in_tls("key-not-admitted")
}

/// What is said in TLS has no id.
fn refused_in_tls(code: &str) -> ClientError {
    ClientError::Refused { code: code.to_owned(), id: "none".to_owned() }
}

/// A failed broker call.
pub(crate) fn call(status: &Status) -> ClientError {
    if let Some(denial) = Denial::of(status) {
        let too_often = status.code() == Code::ResourceExhausted && denial.code == TOO_OFTEN;
        return if too_often { ClientError::TooOften } else { denial.into() };
    }
    // What the transport says of itself is for nobody who has not read it: the errors below say the same in words.
    let cause = || words(&status.source().map_or_else(|| status.message().to_owned(), chain));
    match (tls(status), status.code()) {
        (Some(error), _) => ClientError::Protocol { cause: error.to_string() },
        // It is there, and cannot record what it decides.
        (None, Code::Unavailable) => match Denial::of_failure(status) {
            Some(Denial { code, id }) => ClientError::Undecided { code, id },
            None => ClientError::Unreachable { cause: cause() },
        },
        (None, Code::Cancelled | Code::DeadlineExceeded) => ClientError::Unreachable { cause: cause() },
        (None, _) if status.source().is_some() => ClientError::Unreachable { cause: cause() },
        (None, Code::DataLoss) => ClientError::NotAuthentic { message: words(status.message()) },
        (None, Code::Internal | Code::ResourceExhausted) => ClientError::Failed { message: words(status.message()) },
        (None, code) => ClientError::Protocol { cause: format!("{code:?}: {}", words(status.message())) },
    }
}

/// Metadata of a refused admin call: grants each of which would be enough.
pub const ROLES_ENOUGH: &str = "coffer-roles-enough";
/// Metadata of a refused admin call: grants that the caller has.
pub const ROLES_HELD: &str = "coffer-roles-held";

/// A failed admin call: the peer is a pinned broker and the caller its operator, so its words are passed on.
pub(crate) fn admin_call(status: &Status) -> ClientError {
    let said = |key| status.metadata().get(key).and_then(|value| value.to_str().ok()).map(words);
    if let (Some(denial), Some(enough)) = (Denial::of(status), said(ROLES_ENOUGH))
        && denial.code == "role-missing"
    {
        let enough = enough.split_whitespace().map(str::to_owned).collect();
        let held = said(ROLES_HELD).filter(|held| !held.is_empty());
        let held = held.map_or_else(|| "none".to_owned(), |held| held.replace(' ', ", "));
        return ClientError::RoleMissing { id: denial.id, enough, held };
    }
    match status.code() {
        // In place of `role-missing`, to whoever hears that on and on: no time mends it.
        Code::ResourceExhausted => Denial::of(status).map_or_else(|| call(status), ClientError::from),
        Code::InvalidArgument if Denial::of(status).is_some() => call(status),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::Aborted
        | Code::FailedPrecondition
        | Code::OutOfRange => {
            ClientError::Rejected { code: status.code(), message: foreign_at_most(status.message(), LISTS) }
        }
        _ => call(status),
    }
}

/// Whether a handshake failed because the peer has none of the protocols that were asked for.
pub(crate) fn speaks_another(error: &(dyn Error + 'static)) -> bool {
    matches!(tls(error), Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)))
}

/// ALPN of the guests' listener, in words.
const GUESTS: &str = "coffer-kbs/1";

/// The TLS error below `error`, if that is what broke the connection.
fn tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = error
            .downcast_ref::<rustls::Error>()
            .or_else(|| error.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>());
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

/// The broker's word for it.
const TOO_OFTEN: &str = "too-many-requests";

/// Most of a broker's own words that are passed on.
const WORDS: usize = 400;
/// The same where they may list what could have been said.
const LISTS: usize = 1600;

fn one_of(words: &[String]) -> String {
    match words {
        [] => "another role".to_owned(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

fn words(text: &str) -> String {
    foreign_at_most(text, WORDS)
}
