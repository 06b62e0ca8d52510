//! Owners beside, or in place of, those of a spec: a list that an authority of the spec's signed.
//!
//! Trusts: the authority's key, which stands in the measured spec. Never: takes a list of another name, or one whose time is over; lets a list
//! give what a spec could not.
//! Source: docs/design/guest.md §8.1.

use coffer_verifier::{
    P384PublicKey, SIGNATURE_SIZE, UnixTime,
    abi::SpkiDigest,
    envelope::{Envelope, EnvelopeError, EnvelopeKind, SignatureRefusal},
    manifest::MAX_SEQUENCE,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

use crate::{Name, Owner, SecretPath};

/// Whose lists of owners a guest takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerAuthority {
    /// Key that signs them: a P-384 point, uncompressed, 194 hex digits.
    pub key: AuthorityKey,
    /// What its lists are called. A list of another name is for other guests.
    pub name: Name,
    /// Least sequence of a list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// Where at the key broker the newest list is. It stands in place of the spec's owners, and its sequence never falls. Without it a list
    /// comes from an owner, adds owners to those of the spec, and goes with the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<SecretPath>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A public key, as a spec writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityKey(pub P384PublicKey);

impl Serialize for AuthorityKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0.to_sec1()))
    }
}

impl<'de> Deserialize<'de> for AuthorityKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode(&text).ok().filter(|bytes| hex::encode(bytes) == text);
        let key = bytes.and_then(|bytes| P384PublicKey::from_sec1(&bytes).ok());
        key.map(Self).ok_or_else(|| D::Error::custom("no P-384 point: expected 194 lower-case hex digits, 04 first"))
    }
}

/// Why there is no list, or not this one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerListError {
    /// No envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Not by the authority.
    #[error(transparent)]
    Signature(#[from] SignatureRefusal),
    /// Signed, and no list.
    #[error("list of owners: {0}")]
    Json(String),
    /// A value that means nothing.
    #[error("list of owners: {field}: expected {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What stands there in a good one.
        expected: &'static str,
    },
    /// It is for other guests.
    #[error("the list is called {found}, and this guest takes those called {expected}")]
    Name {
        /// Its name.
        found: Name,
        /// The spec's.
        expected: Name,
    },
    /// There was a later one.
    #[error("the list has sequence {found}, and this guest knows of {floor}")]
    Older {
        /// Its sequence.
        found: u64,
        /// What is the least.
        floor: u64,
    },
    /// Another one has the same sequence.
    #[error("another list has sequence {sequence} too, and this guest has taken that one")]
    Twice {
        /// Of both.
        sequence: u64,
    },
    /// Its time is over.
    #[error("the list expired at {at}, it is {now}")]
    Expired {
        /// The end of its time.
        at: UnixTime,
        /// The guest's time.
        now: UnixTime,
    },
}

impl OwnerListError {
    /// A word that stays the same.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Envelope(_) | Self::Json(_) | Self::Field { .. } => "owner-list-malformed",
            Self::Signature(_) => "owner-list-not-signed",
            Self::Name { .. } => "owner-list-of-others",
            Self::Older { .. } => "owner-list-older",
            Self::Twice { .. } => "owner-list-sequence-twice",
            Self::Expired { .. } => "owner-list-expired",
        }
    }

    /// Whether it is a list that nobody signed who counts, or that counts no more, rather than none, or one that is not for here.
    pub const fn is_unauthentic(&self) -> bool {
        matches!(self, Self::Signature(_) | Self::Expired { .. })
    }
}

/// What a list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerList {
    /// For guests whose spec has this name.
    pub name: Name,
    /// Rises with each list of a name; 1 at least.
    pub sequence: u64,
    /// From then on it counts no more.
    pub expires: UnixTime,
    /// All of them, and nobody else; at most [`OwnerList::MOST`].
    pub owners: Vec<Owner>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    name: Name,
    sequence: u64,
    expires: String,
    owners: Vec<Owner>,
}

impl OwnerList {
    /// Most owners of a list.
    pub const MOST: usize = 64;

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// [`OwnerListError::Field`].
    pub fn check(&self) -> Result<(), OwnerListError> {
        let field = |field, expected| Err(OwnerListError::Field { field, expected });
        if !(1..=MAX_SEQUENCE).contains(&self.sequence) {
            return field("sequence", "1 to 2^53 - 1");
        }
        if UnixTime::parse(&self.expires.to_string()) != Ok(self.expires) {
            return field("expires", TIME);
        }
        if self.owners.len() > Self::MOST {
            return field("owners", "at most 64");
        }
        let twice = |(at, one): (usize, &Owner)| self.owners[..at].iter().any(|other| other.key == one.key);
        if self.owners.iter().enumerate().any(twice) {
            return field("owners.key", "each key once");
        }
        if self.owners.iter().any(|owner| owner.key.is_zero()) {
            return field("owners.key", "a key's digest");
        }
        Ok(())
    }

    /// As bytes to sign.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { name, sequence, expires, owners } = self.clone();
        let wire = Wire { name, sequence, expires: expires.to_string(), owners };
        serde_json::to_vec_pretty(&wire).expect("strings and numbers are JSON")
    }

    fn parse(bytes: &[u8]) -> Result<Self, OwnerListError> {
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| OwnerListError::Json(error.to_string()))?;
        let Wire { name, sequence, expires, owners } = wire;
        let expires =
            UnixTime::parse(&expires).map_err(|_| OwnerListError::Field { field: "expires", expected: TIME })?;
        let list = Self { name, sequence, expires, owners };
        list.check()?;
        Ok(list)
    }

    /// Whether it still counts.
    ///
    /// # Errors
    /// [`OwnerListError::Expired`].
    pub fn current(&self, now: UnixTime) -> Result<(), OwnerListError> {
        if now < self.expires { Ok(()) } else { Err(OwnerListError::Expired { at: self.expires, now }) }
    }
}

/// A list in its envelope; nobody believes it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedOwnerList(Envelope);

impl SignedOwnerList {
    /// Longest file, in bytes.
    pub const LONGEST: usize = KIND.longest_envelope();

    /// An envelope around a list, without signatures.
    pub fn of(list: &OwnerList) -> Self {
        Self(Envelope::of(list.to_bytes()))
    }

    /// The bytes to sign.
    pub fn signing_input(&self) -> Vec<u8> {
        KIND.signing_input(self.0.payload())
    }

    /// Adds a signature over [`SignedOwnerList::signing_input`].
    #[must_use]
    pub fn with_signature(self, key: &P384PublicKey, signature: [u8; SIGNATURE_SIZE]) -> Self {
        Self(self.0.with_signature(key, signature))
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`OwnerListError::Envelope`].
    pub fn parse(bytes: &[u8]) -> Result<Self, OwnerListError> {
        Ok(Self(Envelope::parse(bytes, KIND)?))
    }

    /// Writes it.
    pub fn to_json(&self) -> String {
        self.0.to_json(KIND)
    }

    /// Keys that it names.
    pub fn keys(&self) -> impl Iterator<Item = &SpkiDigest> {
        self.0.keys()
    }

    /// SHA-256 of what is signed: the same list has the same one, whoever wraps it.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.payload()).into()
    }

    /// What it says, whoever wrote it: to show, never to rely on.
    ///
    /// # Errors
    /// [`OwnerListError`].
    pub fn unverified(&self) -> Result<OwnerList, OwnerListError> {
        OwnerList::parse(self.0.payload())
    }

    /// What this key signed.
    ///
    /// # Errors
    /// [`OwnerListError`].
    pub fn by(&self, key: &P384PublicKey) -> Result<OwnerList, OwnerListError> {
        self.0.signer(KIND, std::slice::from_ref(key))?;
        self.unverified()
    }

    /// What an authority signed for its guests, from the sequence `floor` on. Whether its time is over is asked with
    /// [`OwnerList::current`].
    ///
    /// # Errors
    /// [`OwnerListError`].
    pub fn verify(&self, authority: &OwnerAuthority, floor: u64) -> Result<OwnerList, OwnerListError> {
        let list = self.by(&authority.key.0)?;
        if list.name != authority.name {
            return Err(OwnerListError::Name { found: list.name, expected: authority.name.clone() });
        }
        let floor = floor.max(authority.sequence);
        if list.sequence < floor {
            return Err(OwnerListError::Older { found: list.sequence, floor });
        }
        Ok(list)
    }
}

/// Type of the payload; it is signed with it.
pub const OWNER_LIST_TYPE: &str = "application/vnd.coffer.owner-list.v1+json";
const TIME: &str = "a time like 2026-09-20T00:00:00Z";
/// 64 owners with every act take 14 KiB.
const KIND: EnvelopeKind = EnvelopeKind { payload_type: OWNER_LIST_TYPE, longest: 24 << 10 };

#[cfg(test)]
mod tests;
