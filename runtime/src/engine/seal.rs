//! Seals bytes to the guest of a box, opens what was sealed, and seals it anew: in the guest, after it proved itself.

use coffer_guest_proto::owner_client::OwnerClient;
use coffer_guest_proto::{
    ResealRequest as AskReseal, SealRequest as AskSeal, Sealed as Encrypted, UnsealRequest as AskUnseal,
};
use coffer_ratls::HpkeError;
use coffer_rim::Reason;
use coffer_seal::SealPolicy;
use coffer_spec::Act;
use coffer_verifier::binding::length_prefixed;
use zeroize::Zeroizing;

use super::guest::Guest;
use super::prove::{OwnerMayNot, ProveError};
use super::{Engine, Fault, Hint, OpenError, Trust};
use crate::{Class, Failure, agent};

/// How to seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealAs<'a> {
    /// Who opens it.
    pub policy: SealPolicy,
    /// A label that is part of the key, the same to seal and to unseal; may be empty where the key broker has no part in it.
    pub context: &'a str,
    /// Whether an older file in its place is noticed.
    pub counter: SealCounter<'a>,
}

/// Whether an older file is noticed in the place of the one that is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealCounter<'a> {
    /// No.
    None,
    /// Yes: this is the first of its line.
    Begin,
    /// Yes: it takes the place of a file that began with these bytes, which opens no more then.
    Replace(&'a [u8]),
}

/// What was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// They open where their policy says.
    pub bytes: Vec<u8>,
    /// The guest would notice an older version in their place.
    pub rollback_protected: bool,
}

/// What was opened.
pub struct Unsealed {
    /// The bytes that were sealed.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The guest would have noticed an older version in their place.
    pub rollback_protected: bool,
}

/// Why nothing was sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing to seal.
    #[error("there is nothing to seal: the input is empty")]
    Empty,
    /// Nothing that was sealed.
    #[error("not a sealed file: it is empty")]
    NotSealed,
    /// The local owner may not.
    #[error(transparent)]
    MayNot(#[from] OwnerMayNot),
    /// The guest did not prove itself.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// The bytes cannot be encrypted to the guest.
    #[error(transparent)]
    Encrypt(#[from] HpkeError),
    /// The box's spec, or its guest's agent.
    #[error(transparent)]
    Other(#[from] Failure),
}

impl Fault for SealError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Empty => Class::Usage,
            Self::NotSealed => Class::NotAuthentic,
            Self::MayNot(error) => error.class(),
            Self::Prove(error) => error.class(),
            Self::Encrypt(_) => Class::Internal,
            Self::Other(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Empty | Self::NotSealed => {
                Some("check what was to write it: a pipe whose first command failed is empty".into())
            }
            Self::MayNot(error) => error.hint(),
            Self::Prove(error) => error.hint(),
            Self::Encrypt(_) => None,
            Self::Other(failure) => Fault::hint(failure),
        }
    }

    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Other(failure) => Fault::reason(failure),
            // As a guest calls it.
            Self::NotSealed => Some(Reason { code: "not-sealed".to_owned(), denial_id: None }),
            _ => None,
        }
    }
}

impl Engine {
    /// Says whether sealing could succeed at all, before anything is read; gives whose guest it is.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn may_seal(&self, word: &str) -> Result<Guest, SealError> {
        let guest = self.guest(word)?;
        self.may_ask::<SealError>(&guest, Act::Unseal)?;
        Ok(guest)
    }

    /// Seals.
    ///
    /// # Errors
    /// [`SealError`].
    pub async fn seal(
        &self,
        word: &str,
        how: &SealAs<'_>,
        plaintext: &[u8],
        trust: &Trust,
    ) -> Result<Sealed, SealError> {
        if plaintext.is_empty() {
            return Err(SealError::Empty);
        }
        let SealAs { policy, context, counter } = how;
        let guest = self.may_seal(word)?;
        let connection = self.connect(&guest, trust).await?;
        let document = self.document_of(&guest, &connection)?;
        let tenant = &document.spec().tenant;
        let aad = length_prefixed(&[tenant.as_str().as_bytes(), context.as_bytes(), b"seal"]);
        let encrypted = connection.seal("coffer.agent.v1.Owner/Seal", &aad, plaintext)?;
        let ask = AskSeal {
            policy: policy.to_string(),
            context: context.as_bytes().to_vec(),
            plaintext: Some(Encrypted { enc: encrypted.enc, ciphertext: encrypted.ciphertext }),
            counted: *counter == SealCounter::Begin,
            replaces: if let SealCounter::Replace(head) = counter { head.to_vec() } else { Vec::new() },
        };
        let answer = OwnerClient::new(connection.channel()).seal(ask).await;
        let answer = answer.map_err(|status| agent::of_status(&status))?.into_inner();
        Ok(Sealed { bytes: answer.sealed, rollback_protected: answer.rollback_protected })
    }

    /// Seals anew what was sealed: under another policy, or at the firmware version of today. What it holds stays in the guest.
    ///
    /// # Errors
    /// [`SealError`].
    pub async fn reseal(
        &self,
        word: &str,
        policy: Option<SealPolicy>,
        context: &str,
        sealed: Vec<u8>,
        trust: &Trust,
    ) -> Result<Sealed, SealError> {
        if sealed.is_empty() {
            return Err(SealError::NotSealed);
        }
        let connection = self.connect(&self.may_seal(word)?, trust).await?;
        let policy = policy.map(|policy| policy.to_string()).unwrap_or_default();
        let ask = AskReseal { sealed, context: context.as_bytes().to_vec(), policy };
        let answer = OwnerClient::new(connection.channel()).reseal(ask).await;
        let answer = answer.map_err(|status| agent::of_status(&status))?.into_inner();
        Ok(Sealed { bytes: answer.sealed, rollback_protected: answer.rollback_protected })
    }

    /// Opens what was sealed.
    ///
    /// # Errors
    /// [`SealError`].
    pub async fn unseal(
        &self,
        word: &str,
        context: &str,
        sealed: Vec<u8>,
        trust: &Trust,
    ) -> Result<Unsealed, SealError> {
        if sealed.is_empty() {
            return Err(SealError::NotSealed);
        }
        let connection = self.connect(&self.may_seal(word)?, trust).await?;
        let ask = AskUnseal { sealed, context: context.as_bytes().to_vec() };
        let answer = OwnerClient::new(connection.channel()).unseal(ask).await;
        let answer = answer.map_err(|status| agent::of_status(&status))?.into_inner();
        let plaintext = Zeroizing::new(answer.plaintext);
        Ok(Unsealed { plaintext, rollback_protected: answer.rollback_protected })
    }
}
