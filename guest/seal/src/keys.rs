//! From the secrets of a policy to the key of one file.
//!
//! Source: docs/design/sealing.md §7; RFC 5869.

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use coffer_verifier::{abi::DerivedKey, binding::length_prefixed};
use hkdf::Hkdf;
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    SealError,
    header::{Header, Source},
};

/// A sealing key of the key broker. Wiped on drop, never printed.
pub struct BrokerKey(SecretBox<[u8; 32]>);

impl BrokerKey {
    /// Takes it over.
    pub const fn new(key: SecretBox<[u8; 32]>) -> Self {
        Self(key)
    }
}

/// Who inside the guest seals and opens: neither opens what the other sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The agent, for owners.
    Agent,
    /// The workload.
    Workload,
    /// The agent, for a sealed volume.
    Volume,
}

impl Scope {
    /// Its name, which is hashed into the key.
    const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Workload => "workload",
            Self::Volume => "volume",
        }
    }
}

/// As many secrets as the policy wants, and no fewer.
pub enum Secrets {
    /// The secure processor's.
    Processor(DerivedKey),
    /// Its key without MEASUREMENT in the mix, and the broker's.
    Both(DerivedKey, BrokerKey),
    /// The broker's.
    Broker(BrokerKey),
}

/// What the keys of files are derived from.
pub struct Keys {
    secrets: Secrets,
    scope: Scope,
}

impl Secrets {
    /// For files of this scope alone.
    pub const fn of(self, scope: Scope) -> Keys {
        Keys { secrets: self, scope }
    }

    /// Whose they are.
    pub const fn source(&self) -> Source {
        match self {
            Self::Processor(_) => Source::Processor,
            Self::Both(..) => Source::Both,
            Self::Broker(_) => Source::Broker,
        }
    }
}

impl Keys {
    /// The file's own key: the salt makes it fresh for every file, so the counting nonce never repeats under it.
    pub(crate) fn of_file(&self, header: &Header, encoded: &[u8], context: &[u8]) -> Result<LessSafeKey, SealError> {
        let (policy, source) = (header.policy, header.policy.source());
        if self.secrets.source() != source {
            return Err(SealError::Keys { policy, needs: source.name() });
        }
        let mut secret = Zeroizing::new(Vec::with_capacity(64));
        match &self.secrets {
            Secrets::Processor(key) => secret.extend_from_slice(key.expose()),
            Secrets::Both(processor, broker) => {
                secret.extend_from_slice(processor.expose());
                secret.extend_from_slice(broker.0.expose_secret());
            }
            Secrets::Broker(key) => secret.extend_from_slice(key.0.expose_secret()),
        }
        let [policy, source, scope] = [policy.name(), source.name(), self.scope.name()].map(str::as_bytes);
        let info = length_prefixed(&[b"coffer/seal/v1", policy, source, scope, context, encoded]);
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(&header.salt), &secret)
            .expand(&info, key.as_mut_slice())
            .expect("32 bytes are within HKDF's limit");
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("AES-256 has keys of 32 bytes");
        Ok(LessSafeKey::new(key))
    }
}
