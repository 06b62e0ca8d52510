//! A certificate revocation list before it is signed.

use super::certificate::{Extension, PssEncoding, Validity, seal};
use super::der::{explicit, integer, sequence, time};
use super::extensions::{authority_key_id, extension_list};
use super::name::Name;
use super::{AuthorityKey, CryptoError, DerError};

/// An entry of the list.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// Serial number, big endian.
    pub serial: Vec<u8>,
    /// Since when, in Unix seconds.
    pub at: u64,
}

/// The to-be-signed part of a CRL, version 2.
#[derive(Clone, Debug)]
pub struct CrlTemplate {
    /// Issuer, the ARK.
    pub issuer: Name,
    /// thisUpdate and nextUpdate.
    pub validity: Validity,
    /// CRL number.
    pub number: u64,
    /// What is revoked.
    pub revoked: Vec<Revoked>,
    /// DER SubjectPublicKeyInfo of the issuer.
    pub issuer_spki: Vec<u8>,
}

impl CrlTemplate {
    /// Writes and signs it.
    pub fn sign(&self, key: &AuthorityKey) -> Result<Vec<u8>, CryptoError> {
        let tbs = self.to_be_signed().map_err(|_| CryptoError { what: "encode a CRL" })?;
        seal(&tbs, PssEncoding::WithoutTrailer, key)
    }

    fn to_be_signed(&self) -> Result<Vec<u8>, DerError> {
        let entries = self.revoked.iter().map(|one| sequence(&[&integer(&one.serial)?, &time(one.at)?]));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let revoked = if entries.is_empty() {
            Vec::new()
        } else {
            sequence(&entries.iter().map(Vec::as_slice).collect::<Vec<_>>())?
        };
        let number = self.number.to_be_bytes();
        let extensions = extension_list(&[
            Extension { oid: "2.5.29.35", critical: false, value: authority_key_id(&self.issuer_spki)? },
            Extension { oid: "2.5.29.20", critical: false, value: integer(&number)? },
        ])?;
        sequence(&[
            &integer(&[1])?,
            &PssEncoding::WithoutTrailer.to_der()?,
            &self.issuer.to_der()?,
            &time(self.validity.from)?,
            &time(self.validity.to)?,
            &revoked,
            &explicit(0, &extensions)?,
        ])
    }
}
