//! Certificates and revocation lists as AMD encodes them.
//!
//! Source: AMD 57230; the genuine certificates, compared in the tests OID by OID.

mod certificate;
mod crl;
mod der;
mod extensions;
mod name;
mod profile;

pub use certificate::{Extension, PssEncoding, Template, Validity};
pub use crl::{CrlTemplate, Revoked};
pub use der::{DerError, pem};
pub use name::{KeyKind, Name};
pub use profile::{
    ark_template, ask_template, asvk_template, ec_public_key, revoked, serial, vcek_template, vlek_template,
};

use aws_lc_rs::{rand::SystemRandom, rsa, signature};
use zeroize::Zeroizing;

/// RSA-4096 key of an authority.
pub struct AuthorityKey {
    pair: rsa::KeyPair,
    spki: Vec<u8>,
}

/// The library refused a key, a signature or a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cryptographic library refused to {what}")]
pub struct CryptoError {
    /// What it was asked.
    pub what: &'static str,
}

impl AuthorityKey {
    /// Makes a key; takes one to two seconds.
    pub fn generate() -> Result<Self, CryptoError> {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa4096)
            .map_err(|_| CryptoError { what: "generate an RSA-4096 key" })?;
        Self::of(pair)
    }

    /// Reads a key written by [`AuthorityKey::to_pkcs8`].
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, CryptoError> {
        Self::of(rsa::KeyPair::from_pkcs8(bytes).map_err(|_| CryptoError { what: "read an RSA key" })?)
    }

    fn of(pair: rsa::KeyPair) -> Result<Self, CryptoError> {
        use aws_lc_rs::{encoding::AsDer, signature::KeyPair};
        let spki = pair.public_key().as_der().map_err(|_| CryptoError { what: "write an RSA public key" })?;
        let spki = spki.as_ref().to_vec();
        Ok(Self { pair, spki })
    }

    /// PKCS#8, unencrypted.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        use aws_lc_rs::encoding::AsDer;
        let der = self.pair.as_der().map_err(|_| CryptoError { what: "write an RSA key" })?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// RSASSA-PSS, SHA-384, salt of 48 bytes.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut bytes = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&signature::RSA_PSS_SHA384, &SystemRandom::new(), message, &mut bytes)
            .map_err(|_| CryptoError { what: "sign" })?;
        Ok(bytes)
    }
}
