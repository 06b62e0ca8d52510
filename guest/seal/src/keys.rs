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

/// What the keys of files are derived from: as many secrets as the policy wants, and no fewer.
pub enum Keys {
    /// The secure processor's.
    Processor(DerivedKey),
    /// Its key without MEASUREMENT in the mix, and the broker's.
    Both(DerivedKey, BrokerKey),
    /// The broker's.
    Broker(BrokerKey),
}

impl Keys {
    /// Whose they are.
    pub const fn source(&self) -> Source {
        match self {
            Self::Processor(_) => Source::Processor,
            Self::Both(..) => Source::Both,
            Self::Broker(_) => Source::Broker,
        }
    }

    /// The file's own key: the salt makes it fresh for every file, so the counting nonce never repeats under it.
    pub(crate) fn of_file(&self, header: &Header, encoded: &[u8], context: &[u8]) -> Result<LessSafeKey, SealError> {
        let (policy, source) = (header.policy, header.policy.source());
        if self.source() != source {
            return Err(SealError::Keys { policy, needs: source.name() });
        }
        let mut secret = Zeroizing::new(Vec::with_capacity(64));
        match self {
            Self::Processor(key) => secret.extend_from_slice(key.expose()),
            Self::Both(processor, broker) => {
                secret.extend_from_slice(processor.expose());
                secret.extend_from_slice(broker.0.expose_secret());
            }
            Self::Broker(key) => secret.extend_from_slice(key.0.expose_secret()),
        }
        let (policy, source) = (policy.name().as_bytes(), source.name().as_bytes());
        let info = length_prefixed(&[b"coffer/seal/v1", policy, source, b"agent", context, encoded]);
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(&header.salt), &secret)
            .expand(&info, key.as_mut_slice())
            .expect("32 bytes are within HKDF's limit");
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("AES-256 has keys of 32 bytes");
        Ok(LessSafeKey::new(key))
    }
}
