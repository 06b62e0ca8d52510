//! One private key.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use coffer_verifier::{P384PublicKey, SIGNATURE_SIZE, ear::TokenSigner};
use zeroize::Zeroizing;

/// The library could not do it: no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {0} with a P-384 key")]
pub struct KeyFailure(&'static str);

/// A P-384 key that signs tokens. Neither printed nor copied.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    public: P384PublicKey,
}

impl TokenKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`KeyFailure`].
    pub fn generate() -> Result<Self, KeyFailure> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).ok();
        pair.and_then(Self::of).ok_or(KeyFailure("begin"))
    }

    /// Reads PKCS #8; nothing if it is no P-384 key.
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        Self::of(EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_FIXED_SIGNING, der).ok()?)
    }

    /// Writes PKCS #8.
    ///
    /// # Errors
    /// [`KeyFailure`].
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyFailure> {
        let document = self.pair.to_pkcs8v1().map_err(|_| KeyFailure("go on"))?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    fn of(pair: EcdsaKeyPair) -> Option<Self> {
        let public = P384PublicKey::from_sec1(pair.public_key().as_ref()).ok()?;
        Some(Self { pair, public })
    }
}

impl TokenSigner for TokenKey {
    type Error = KeyFailure;

    fn public(&self) -> &P384PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_SIZE], KeyFailure> {
        let signature = self.pair.sign(&SystemRandom::new(), message).ok();
        signature.and_then(|signature| signature.as_ref().try_into().ok()).ok_or(KeyFailure("sign"))
    }
}
