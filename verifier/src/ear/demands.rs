//! What a relying party demands of a token that an issuer of its own signed.
//!
//! Nothing is skipped for being absent: what is not demanded is waived by name.

use super::{
    issuer::Issuer,
    jwk::{GuestKey, Jwks},
    vector::{StatedStatus, Status},
    words::{Lifetime, Nonce, Word},
};
use crate::UnixTime;

/// All of it.
#[derive(Clone, Debug)]
pub struct Demands<'a> {
    /// Keys of the issuer that is believed.
    pub keys: &'a Jwks,
    /// Who must have issued it.
    pub issuer: IssuerRule,
    /// For whom it must be.
    pub audience: Word,
    /// What must be inside the evidence: a challenge of one's own.
    pub nonce: NonceRule,
    /// What must be repeated from the request.
    pub request_nonce: NonceRule,
    /// The key the guest must hold: the one on the other end of a connection.
    pub key: KeyRule,
    /// By which policy it must have been judged.
    pub policy: PolicyRule,
    /// Whether simulated evidence will do.
    pub simulated: SimulatedRule,
    /// Whether waived checks will do.
    pub warnings: WarningRule,
    /// How far the issuer's clock may be from ours.
    pub skew: Skew,
}

/// Who must have issued it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerRule {
    /// Exactly this issuer.
    Exactly(Issuer),
    /// Whoever holds a key of the set, whatever the token calls him.
    HolderOfAKey,
}

/// Which nonce there must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NonceRule {
    /// Exactly this one.
    Exactly(Nonce),
    /// Waived.
    NotAsked,
}

/// Which key the guest must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// Exactly this one.
    Exactly(GuestKey),
    /// Waived: whose connection it is does not show.
    NotAsked,
}

/// By which policy it must have been judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyRule {
    /// The policy of this name, in this revision if one is given.
    Exactly {
        /// Its name.
        policy: Word,
        /// Its text.
        revision: Option<Word>,
    },
    /// Whatever the issuer asks.
    IssuersOwn,
}

/// Whether simulated evidence will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulatedRule {
    /// Only AMD's.
    Refused,
    /// That of simulators, too.
    Allowed,
}

/// Whether a token will do that warns of waived checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningRule {
    /// Only an affirming one.
    Refused,
    /// A warning, too.
    Accepted,
}

/// How far clocks may be apart: at most five minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew(i64);

impl Skew {
    /// A minute.
    pub const DEFAULT: Self = Self(60);
    /// The widest.
    pub const MAX: Self = Self(300);

    /// From seconds, 0 to 300.
    pub const fn from_secs(seconds: i64) -> Option<Self> {
        if 0 <= seconds && seconds <= Self::MAX.0 { Some(Self(seconds)) } else { None }
    }

    /// Seconds.
    pub const fn as_secs(self) -> i64 {
        self.0
    }
}

/// One reason against a token that the issuer signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenReason {
    /// By another issuer.
    #[error("issuer: found {found:?}, expected {expected}")]
    Issuer {
        /// As stated.
        found: String,
        /// As demanded.
        expected: Issuer,
    },
    /// For somebody else.
    #[error("audience: found {found:?}, expected {expected}")]
    Audience {
        /// As stated.
        found: String,
        /// As demanded.
        expected: Word,
    },
    /// Its time is over.
    #[error("expired: found {at}, and it is {now}")]
    Expired {
        /// The end.
        at: UnixTime,
        /// The caller's time.
        now: UnixTime,
    },
    /// Made later than it is.
    #[error("issued: found {at}, and it is {now}")]
    FromTheFuture {
        /// When it says it was made.
        at: UnixTime,
        /// The caller's time.
        now: UnixTime,
    },
    /// Good only later.
    #[error("not-before: found {at}, and it is {now}")]
    NotYet {
        /// When it begins.
        at: UnixTime,
        /// The caller's time.
        now: UnixTime,
    },
    /// No span, or longer than any of ours.
    #[error("lifetime: found {found} s, expected 1 to {}", Lifetime::MAX.as_secs())]
    Lifetime {
        /// From issue to end.
        found: i64,
    },
    /// The evidence holds another nonce, or none.
    #[error("nonce: found {}, expected {expected}", or_none(.found.as_ref()))]
    Nonce {
        /// As stated.
        found: Option<Nonce>,
        /// As demanded.
        expected: Nonce,
    },
    /// The token repeats another nonce, or none.
    #[error("request-nonce: found {}, expected {expected}", or_none(.found.as_ref()))]
    RequestNonce {
        /// As stated.
        found: Option<Nonce>,
        /// As demanded.
        expected: Nonce,
    },
    /// The evidence holds another key, or none: it may be somebody else's.
    #[error("key: found {}, expected {expected}", or_none(.found.as_ref()))]
    Key {
        /// As stated.
        found: Option<GuestKey>,
        /// As demanded.
        expected: GuestKey,
    },
    /// Judged by another policy.
    #[error("policy: found {found:?}, expected {expected}")]
    Policy {
        /// As stated.
        found: String,
        /// As demanded.
        expected: Word,
    },
    /// Judged by another text of that policy.
    #[error("policy-revision: found {found:?}, expected {expected}")]
    Revision {
        /// As stated.
        found: String,
        /// As demanded.
        expected: Word,
    },
    /// The evidence is a simulator's.
    #[error("simulated: found simulated evidence, expected AMD's")]
    Simulated,
    /// The verifier did not accept it.
    #[error("verdict: found {found:?}, expected \"accepted\"")]
    Verdict {
        /// As stated.
        found: String,
    },
    /// Not good enough.
    #[error("status: found {found}, expected {expected}")]
    Status {
        /// The token's.
        found: StatedStatus,
        /// As demanded.
        expected: Status,
    },
}

fn or_none<T: core::fmt::Display>(value: Option<&T>) -> String {
    value.map_or_else(|| "none".to_owned(), ToString::to_string)
}

/// Every reason against it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Refusal {
    pub(super) reasons: Vec<TokenReason>,
}

impl Refusal {
    /// All reasons, never only the first.
    pub fn reasons(&self) -> &[TokenReason] {
        &self.reasons
    }
}
