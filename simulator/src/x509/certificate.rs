//! A certificate before it is signed. Attacks change a template; everything else uses it as the profiles give it.

use super::der::{self, bits, explicit, integer, octets, oid, sequence, time, yes};
use super::name::Name;
use super::{AuthorityKey, CryptoError, DerError};

/// When something is valid, in Unix seconds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub from: u64,
    /// Last second.
    pub to: u64,
}

/// An X.509 extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Dotted OID.
    pub oid: &'static str,
    /// Critical flag.
    pub critical: bool,
    /// Content of extnValue.
    pub value: Vec<u8>,
}

impl Extension {
    pub(super) fn to_der(&self) -> Result<Vec<u8>, DerError> {
        let critical = if self.critical { yes()? } else { Vec::new() };
        sequence(&[&oid(self.oid)?, &critical, &octets(&self.value)?])
    }
}

/// The to-be-signed part of a certificate.
#[derive(Clone, Debug)]
pub struct Template {
    /// Serial number, big endian.
    pub serial: Vec<u8>,
    /// Issuer.
    pub issuer: Name,
    /// Subject.
    pub subject: Name,
    /// Validity.
    pub validity: Validity,
    /// DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Extensions in order.
    pub extensions: Vec<Extension>,
    /// How the algorithm identifier inside is written.
    pub inner_algorithm: PssEncoding,
    /// How the one outside is written; equal in every honest certificate.
    pub outer_algorithm: PssEncoding,
}

/// The two encodings of RSASSA-PSS parameters AMD uses, and one it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PssEncoding {
    /// With the default trailer field written out: ARK, ASK, ASVK.
    WithTrailer,
    /// Without it: leaves since 2024 and all CRLs.
    WithoutTrailer,
    /// States a salt of 32 bytes, which is not how anything is signed.
    SaltOf32,
}

impl Template {
    /// Writes and signs it.
    pub fn sign(&self, key: &AuthorityKey) -> Result<Vec<u8>, CryptoError> {
        let tbs = self.to_be_signed().map_err(|_| CryptoError { what: "encode a certificate" })?;
        seal(&tbs, self.outer_algorithm, key)
    }

    fn to_be_signed(&self) -> Result<Vec<u8>, DerError> {
        let extensions = self.extensions.iter().map(Extension::to_der).collect::<Result<Vec<_>, _>>()?;
        let extensions = sequence(&extensions.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        sequence(&[
            &explicit(0, &integer(&[2])?)?,
            &integer(&self.serial)?,
            &self.inner_algorithm.to_der()?,
            &self.issuer.to_der()?,
            &sequence(&[&time(self.validity.from)?, &time(self.validity.to)?])?,
            &self.subject.to_der()?,
            &self.spki,
            &explicit(3, &extensions)?,
        ])
    }
}

/// `SEQUENCE { tbs, algorithm, BIT STRING signature }`.
pub(super) fn seal(tbs: &[u8], algorithm: PssEncoding, key: &AuthorityKey) -> Result<Vec<u8>, CryptoError> {
    let signature = key.sign(tbs)?;
    let signed = || sequence(&[tbs, &algorithm.to_der()?, &bits(0, &signature)?]);
    signed().map_err(|_| CryptoError { what: "encode a signed structure" })
}

impl PssEncoding {
    pub(super) fn to_der(self) -> Result<Vec<u8>, DerError> {
        let sha384 = sequence(&[&oid("2.16.840.1.101.3.4.2.2")?, &der::null()?])?;
        let mgf1 = sequence(&[&oid("1.2.840.113549.1.1.8")?, &sha384])?;
        let salt = integer(&[if self == Self::SaltOf32 { 32 } else { 48 }])?;
        let trailer = if self == Self::WithTrailer { explicit(3, &integer(&[1])?)? } else { Vec::new() };
        let parameters = sequence(&[&explicit(0, &sha384)?, &explicit(1, &mgf1)?, &explicit(2, &salt)?, &trailer])?;
        sequence(&[&oid("1.2.840.113549.1.1.10")?, &parameters])
    }
}
