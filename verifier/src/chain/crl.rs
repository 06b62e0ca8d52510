//! Certificate revocation lists of the KDS: complete lists by the root, never deltas or partitions.

use aws_lc_rs::signature::ParsedPublicKey;
use x509_parser::{
    extensions::ParsedExtension,
    oid_registry::{OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER as AKI, OID_X509_EXT_CRL_NUMBER as CRL_NUMBER, asn1_rs::oid},
    prelude::FromDer as _,
    revocation_list::CertificateRevocationList,
    x509::X509Version,
};

use super::is_amd_pss;
use crate::{UnixTime, abi::ProductLine, der};

/// A revocation list in the form the KDS serves. Parsed; its signature is not checked yet.
#[derive(Clone, Debug)]
pub struct Crl {
    der: Vec<u8>,
    issuer: Vec<u8>,
    product: Option<ProductLine>,
    number: u64,
    this_update: UnixTime,
    next_update: UnixTime,
    revoked: Vec<Vec<u8>>,
}

/// Why bytes are no list we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrlError {
    /// Longer than any list we accept.
    #[error("CRL of {found} bytes is longer than {limit}")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Not one DER list of version 2.
    #[error("not one DER certificate revocation list of version 2: {0}")]
    Malformed(&'static str),
    /// Signature algorithm.
    #[error("CRL signature algorithm is not RSASSA-PSS with SHA-384 and salt 48, stated twice alike")]
    Algorithm,
    /// CRL number absent or beyond 64 bits.
    #[error("CRL has no number of at most 64 bits")]
    Number,
    /// nextUpdate absent.
    #[error("CRL does not say when the next one comes")]
    NextUpdate,
    /// A delta or partitioned list would hide revocations.
    #[error("CRL is a delta or covers only part of the certificates")]
    Partial,
    /// An extension occurs twice.
    #[error("CRL extension {oid} occurs twice")]
    DuplicateExtension {
        /// Which.
        oid: String,
    },
    /// A critical extension we do not know.
    #[error("critical CRL extension {oid} is unknown")]
    CriticalExtension {
        /// Which.
        oid: String,
    },
}

/// Genuine lists have below 900 bytes; this leaves room for a few thousand revocations.
const MAX_CRL: usize = 64 * 1024 - 1;

impl Crl {
    /// Parses one DER list; trailing bytes are refused.
    ///
    /// # Errors
    /// [`CrlError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CrlError> {
        use CrlError as E;
        if bytes.len() > MAX_CRL {
            return Err(E::TooLong { found: bytes.len(), limit: MAX_CRL });
        }
        let signed = der::signed(bytes).ok_or(E::Malformed("structure"))?;
        let mut tbs = signed.tbs.content;
        let inner = der::expect(&mut tbs, der::INTEGER)
            .and_then(|_| der::expect(&mut tbs, der::SEQUENCE))
            .ok_or(E::Malformed("version or algorithm"))?;
        if inner.raw != signed.algorithm || !is_amd_pss(inner.raw) {
            return Err(E::Algorithm);
        }
        // Nothing trails: `der::signed` took all bytes as one element.
        let (_, crl) = CertificateRevocationList::from_der(bytes).map_err(|_| E::Malformed("fields"))?;
        if crl.version() != Some(X509Version(1)) {
            return Err(E::Malformed("version"));
        }
        let extensions = crl.extensions();
        let mut number = None;
        for (index, extension) in extensions.iter().enumerate() {
            if extensions[..index].iter().any(|earlier| earlier.oid == extension.oid) {
                return Err(E::DuplicateExtension { oid: extension.oid.to_id_string() });
            }
            // deltaCRLIndicator, issuingDistributionPoint
            if extension.oid == oid!(2.5.29.27) || extension.oid == oid!(2.5.29.28) {
                return Err(E::Partial);
            }
            if extension.critical && extension.oid != AKI && extension.oid != CRL_NUMBER {
                return Err(E::CriticalExtension { oid: extension.oid.to_id_string() });
            }
            if let ParsedExtension::CRLNumber(value) = extension.parsed_extension() {
                number = u64::try_from(value).ok();
            }
        }
        let mut names = crl.issuer().iter_common_name().map(|name| name.as_str().ok());
        let root = names.next().flatten().and_then(|name| name.strip_prefix("ARK-"));
        let product = root.and_then(|text| ProductLine::ALL.into_iter().find(|line| line.name() == text));
        let mut revoked = Vec::new();
        for entry in crl.iter_revoked_certificates() {
            if let Some(critical) = entry.extensions().iter().find(|extension| extension.critical) {
                return Err(E::CriticalExtension { oid: critical.oid.to_id_string() });
            }
            revoked.push(entry.raw_serial().to_vec());
        }
        Ok(Self {
            issuer: crl.issuer().as_raw().to_vec(),
            product,
            number: number.ok_or(E::Number)?,
            this_update: UnixTime(crl.last_update().timestamp()),
            next_update: UnixTime(crl.next_update().ok_or(E::NextUpdate)?.timestamp()),
            revoked,
            der: bytes.to_vec(),
        })
    }

    /// Its bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// CRL number; grows with every list of one issuer.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// thisUpdate and nextUpdate.
    pub const fn validity(&self) -> (UnixTime, UnixTime) {
        (self.this_update, self.next_update)
    }

    /// Product line of the root it names as its issuer, if it names one.
    pub const fn product(&self) -> Option<ProductLine> {
        self.product
    }

    pub(crate) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// True if whatever `other` revokes is revoked here too.
    pub fn covers(&self, other: &Self) -> bool {
        other.revoked.iter().all(|serial| self.revokes(serial))
    }

    /// True if the list names this serial number (content of the INTEGER).
    pub(crate) fn revokes(&self, serial: &[u8]) -> bool {
        self.revoked.iter().any(|listed| trim(listed) == trim(serial))
    }

    pub(crate) fn is_signed_by(&self, issuer_key: &ParsedPublicKey) -> bool {
        der::signed(&self.der).is_some_and(|signed| issuer_key.verify_sig(signed.tbs.raw, signed.signature).is_ok())
    }
}

/// Serial numbers compare as numbers: leading zeros say nothing.
fn trim(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}
