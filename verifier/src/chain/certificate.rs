//! One certificate of an AMD chain, root to leaf.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use x509_parser::{
    certificate::X509Certificate,
    extensions::ParsedExtension,
    oid_registry::{
        OID_X509_EXT_BASIC_CONSTRAINTS as BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE as KEY_USAGE, Oid, asn1_rs::oid,
    },
    prelude::FromDer as _,
    x509::X509Version,
};

use super::{is_amd_pss, rsa_key};
use crate::{
    UnixTime,
    abi::{ProductLine, SigningKey, SpkiDigest, TcbVersion},
    der,
};

/// Place of a certificate in the chain, by its common name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRole {
    /// `ARK-<Product>`.
    Root(ProductLine),
    /// `SEV-<Product>` (signs VCEKs) or `SEV-VLEK-<Product>` (signs VLEKs).
    Intermediate(ProductLine, SigningKey),
    /// `SEV-VCEK` or `SEV-VLEK`.
    Leaf(SigningKey),
}

impl core::fmt::Display for CertificateRole {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Root(product) => write!(f, "ARK-{product}"),
            Self::Intermediate(product, SigningKey::Vlek) => write!(f, "SEV-VLEK-{product}"),
            Self::Intermediate(product, _) => write!(f, "SEV-{product}"),
            Self::Leaf(key) => write!(f, "SEV-{key}"),
        }
    }
}

/// What AMD certifies about a chip in the leaf's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafFacts {
    /// VCEK or VLEK.
    pub key: SigningKey,
    /// Product line.
    pub product: ProductLine,
    /// TCB the key is derived from.
    pub tcb: TcbVersion,
    /// hwID, VCEK only: as many bytes as CHIP_ID has on this product.
    pub hwid: Option<Vec<u8>>,
    /// Cloud provider, VLEK only.
    pub csp_id: Option<String>,
}

/// A certificate in one of the forms AMD issues. Parsed; no signature is checked yet.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: Vec<u8>,
    role: CertificateRole,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    spki: Vec<u8>,
    spki_digest: SpkiDigest,
    serial: Vec<u8>,
    not_before: UnixTime,
    not_after: UnixTime,
    leaf: Option<LeafFacts>,
    /// Of a root or intermediate. Read once: what a library reckons before the first use of an RSA key is kept with it.
    authority_key: Option<ParsedPublicKey>,
}

/// Why a certificate is none of AMD's forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Longer than any certificate of the chain.
    #[error("certificate of {found} bytes is longer than {limit}")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Not one DER certificate of version 3.
    #[error("not one DER certificate of version 3: {0}")]
    Malformed(&'static str),
    /// Common name outside the chain's forms.
    #[error("common name is not one of AMD's certificate names")]
    Name,
    /// Signature algorithm other than RSASSA-PSS with SHA-384 and salt 48, or inner and outer identifiers differ.
    #[error("signature algorithm is not RSASSA-PSS with SHA-384 and salt 48, stated twice alike")]
    Algorithm,
    /// The key is not of its role's kind.
    #[error("public key is not {expected}")]
    Key {
        /// What the role has.
        expected: &'static str,
    },
    /// An extension occurs twice.
    #[error("extension {oid} occurs twice")]
    DuplicateExtension {
        /// Which.
        oid: String,
    },
    /// A critical extension we do not know.
    #[error("critical extension {oid} is unknown")]
    CriticalExtension {
        /// Which.
        oid: String,
    },
    /// An extension the role needs is absent.
    #[error("extension {name} is missing")]
    MissingExtension {
        /// Its name in AMD's document or RFC 5280.
        name: &'static str,
    },
    /// An extension's value is not allowed.
    #[error("extension {name} has a value outside its range")]
    ExtensionValue {
        /// Its name.
        name: &'static str,
    },
}

/// Genuine certificates have below 1,700 bytes.
const MAX_CERTIFICATE: usize = 8 * 1024;
/// SubjectPublicKeyInfo of an uncompressed P-384 point up to the point itself; its lengths leave room for that alone.
const P384_SPKI: &[u8] =
    b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";

impl Certificate {
    /// Parses one DER certificate; trailing bytes are refused.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        use CertificateError as E;
        if bytes.len() > MAX_CERTIFICATE {
            return Err(E::TooLong { found: bytes.len(), limit: MAX_CERTIFICATE });
        }
        let signed = der::signed(bytes).ok_or(E::Malformed("structure"))?;
        let mut tbs = signed.tbs.content;
        let inner = der::expect(&mut tbs, der::CONTEXT_0)
            .and_then(|_| der::expect(&mut tbs, der::INTEGER))
            .and_then(|_| der::expect(&mut tbs, der::SEQUENCE))
            .ok_or(E::Malformed("version, serial number or algorithm"))?;
        if inner.raw != signed.algorithm || !is_amd_pss(inner.raw) {
            return Err(E::Algorithm);
        }
        // Nothing trails: `der::signed` took all bytes as one element.
        let (_, x509) = X509Certificate::from_der(bytes).map_err(|_| E::Malformed("fields"))?;
        if x509.version() != X509Version::V3 {
            return Err(E::Malformed("version"));
        }
        let role = role_of(&x509).ok_or(E::Name)?;
        check_extensions(&x509)?;
        let spki = x509.public_key().raw;
        let (leaf, authority_key) = match role {
            CertificateRole::Leaf(key) => {
                if !spki.starts_with(P384_SPKI) {
                    return Err(E::Key { expected: "P-384" });
                }
                (Some(leaf_facts(&x509, key)?), None)
            }
            CertificateRole::Root(_) | CertificateRole::Intermediate(..) => {
                let key = Some(rsa_key(spki).ok_or(E::Key { expected: "RSA-4096 with exponent 65537" })?);
                check_authority(&x509, role)?;
                (None, key)
            }
        };
        Ok(Self {
            role,
            subject: x509.subject().as_raw().to_vec(),
            issuer: x509.issuer().as_raw().to_vec(),
            spki: spki.to_vec(),
            spki_digest: SpkiDigest::of(spki),
            serial: x509.raw_serial().to_vec(),
            not_before: UnixTime(x509.validity().not_before.timestamp()),
            not_after: UnixTime(x509.validity().not_after.timestamp()),
            leaf,
            authority_key,
            der: bytes.to_vec(),
        })
    }

    /// Its bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The same as a PEM block.
    pub fn to_pem(&self) -> String {
        let text = STANDARD.encode(&self.der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    /// Place in the chain, by common name.
    pub const fn role(&self) -> CertificateRole {
        self.role
    }

    /// SHA-256 of its SubjectPublicKeyInfo.
    pub const fn spki_digest(&self) -> SpkiDigest {
        self.spki_digest
    }

    /// First and last second of its validity.
    pub const fn validity(&self) -> (UnixTime, UnixTime) {
        (self.not_before, self.not_after)
    }

    /// AMD's extensions, for a leaf.
    pub const fn leaf(&self) -> Option<&LeafFacts> {
        self.leaf.as_ref()
    }

    pub(crate) fn subject(&self) -> &[u8] {
        &self.subject
    }

    pub(crate) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Content of the serial number INTEGER.
    pub(crate) fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The RSA key of a root or intermediate.
    pub(crate) const fn authority_key(&self) -> Option<&ParsedPublicKey> {
        self.authority_key.as_ref()
    }

    /// The P-384 key of a leaf.
    pub(crate) fn leaf_key(&self) -> Option<ParsedPublicKey> {
        let point = self.spki.strip_prefix(P384_SPKI)?;
        ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).ok()
    }

    /// True if `issuer_key` signed this certificate.
    pub(crate) fn is_signed_by(&self, issuer_key: &ParsedPublicKey) -> bool {
        der::signed(&self.der).is_some_and(|signed| issuer_key.verify_sig(signed.tbs.raw, signed.signature).is_ok())
    }
}

fn role_of(x509: &X509Certificate<'_>) -> Option<CertificateRole> {
    let mut names = x509.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    if names.next().is_some() {
        return None;
    }
    let exact = |text: &str| ProductLine::ALL.into_iter().find(|line| line.name() == text);
    match name {
        "SEV-VCEK" => Some(CertificateRole::Leaf(SigningKey::Vcek)),
        "SEV-VLEK" => Some(CertificateRole::Leaf(SigningKey::Vlek)),
        _ => {
            if let Some(product) = name.strip_prefix("ARK-") {
                exact(product).map(CertificateRole::Root)
            } else if let Some(product) = name.strip_prefix("SEV-VLEK-") {
                exact(product).map(|product| CertificateRole::Intermediate(product, SigningKey::Vlek))
            } else {
                let product = exact(name.strip_prefix("SEV-")?)?;
                Some(CertificateRole::Intermediate(product, SigningKey::Vcek))
            }
        }
    }
}

fn check_extensions(x509: &X509Certificate<'_>) -> Result<(), CertificateError> {
    let extensions = x509.extensions();
    for (index, extension) in extensions.iter().enumerate() {
        if extensions[..index].iter().any(|earlier| earlier.oid == extension.oid) {
            return Err(CertificateError::DuplicateExtension { oid: extension.oid.to_id_string() });
        }
        if extension.critical && extension.oid != BASIC_CONSTRAINTS && extension.oid != KEY_USAGE {
            return Err(CertificateError::CriticalExtension { oid: extension.oid.to_id_string() });
        }
    }
    Ok(())
}

/// CA bits of a root or intermediate: may sign certificates (the root also CRLs), path length 0 below the root.
fn check_authority(x509: &X509Certificate<'_>, role: CertificateRole) -> Result<(), CertificateError> {
    use CertificateError as E;
    let parsed = |oid: &Oid<'_>, name| {
        let extension = x509.extensions().iter().find(|e| e.oid == *oid).ok_or(E::MissingExtension { name })?;
        if extension.critical { Ok(extension.parsed_extension()) } else { Err(E::ExtensionValue { name }) }
    };
    let is_root = matches!(role, CertificateRole::Root(_));
    let basic = parsed(&BASIC_CONSTRAINTS, "basicConstraints")?;
    match basic {
        ParsedExtension::BasicConstraints(basic) if basic.ca && (is_root || basic.path_len_constraint == Some(0)) => {}
        _ => return Err(E::ExtensionValue { name: "basicConstraints" }),
    }
    match parsed(&KEY_USAGE, "keyUsage")? {
        ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() && (!is_root || usage.crl_sign()) => Ok(()),
        _ => Err(E::ExtensionValue { name: "keyUsage" }),
    }
}

/// Reads AMD's extensions. Source: AMD 57230, "VCEK certificate extensions"; encodings as in genuine certificates.
fn leaf_facts(x509: &X509Certificate<'_>, key: SigningKey) -> Result<LeafFacts, CertificateError> {
    use CertificateError as E;
    let find = |oid: &Oid<'_>| x509.extensions().iter().find(|e| e.oid == *oid).map(|e| e.value);
    let number = |oid: Oid<'_>, name| {
        find(&oid).map(|value| der::small_integer(value).ok_or(E::ExtensionValue { name })).transpose()
    };
    let required = |oid, name| number(oid, name)?.ok_or(E::MissingExtension { name });
    let is_ca = |e: &ParsedExtension<'_>| matches!(e, ParsedExtension::BasicConstraints(basic) if basic.ca);
    if x509.extensions().iter().any(|e| is_ca(e.parsed_extension())) {
        return Err(E::ExtensionValue { name: "basicConstraints" });
    }

    let name = find(&oid!(1.3.6.1.4.1.3704.1.2)).ok_or(E::MissingExtension { name: "productName" })?;
    // "Milan-B0" stands on B1 parts too, so the stepping after the dash says nothing.
    let product = der::only(name, der::IA5_STRING)
        .and_then(|text| core::str::from_utf8(text).ok())
        .and_then(|text| text.split('-').next())
        .and_then(|text| ProductLine::ALL.into_iter().find(|line| line.name() == text))
        .ok_or(E::ExtensionValue { name: "productName" })?;

    let version = required(oid!(1.3.6.1.4.1.3704.1.1), "structVersion")?;
    if version != u8::from(product == ProductLine::Turin) {
        return Err(E::ExtensionValue { name: "structVersion" });
    }
    let fmc = number(oid!(1.3.6.1.4.1.3704.1.3.9), "fmcSPL")?;
    match (product == ProductLine::Turin, fmc) {
        (true, None) => return Err(E::MissingExtension { name: "fmcSPL" }),
        (false, Some(_)) => return Err(E::ExtensionValue { name: "fmcSPL" }),
        _ => {}
    }
    for (oid, name) in [
        (oid!(1.3.6.1.4.1.3704.1.3.4), "spl4"),
        (oid!(1.3.6.1.4.1.3704.1.3.5), "spl5"),
        (oid!(1.3.6.1.4.1.3704.1.3.6), "spl6"),
        (oid!(1.3.6.1.4.1.3704.1.3.7), "spl7"),
    ] {
        if number(oid, name)?.unwrap_or(0) != 0 {
            return Err(E::ExtensionValue { name });
        }
    }
    let tcb = TcbVersion {
        fmc,
        bootloader: required(oid!(1.3.6.1.4.1.3704.1.3.1), "blSPL")?,
        tee: required(oid!(1.3.6.1.4.1.3704.1.3.2), "teeSPL")?,
        snp: required(oid!(1.3.6.1.4.1.3704.1.3.3), "snpSPL")?,
        microcode: required(oid!(1.3.6.1.4.1.3704.1.3.8), "ucodeSPL")?,
    };

    let hwid = match (key, find(&oid!(1.3.6.1.4.1.3704.1.4))) {
        (SigningKey::Vcek, None) => return Err(E::MissingExtension { name: "hwID" }),
        (SigningKey::Vcek, Some(value)) => {
            let length = product.hwid_len();
            // Raw in genuine certificates; an OCTET STRING wrapper occurs as well.
            let raw = if value.len() == length {
                Some(value)
            } else {
                der::only(value, der::OCTET_STRING).filter(|inner| inner.len() == length)
            };
            Some(raw.ok_or(E::ExtensionValue { name: "hwID" })?.to_vec())
        }
        (_, None) => None,
        (_, Some(_)) => return Err(E::ExtensionValue { name: "hwID" }),
    };
    let csp_id = match find(&oid!(1.3.6.1.4.1.3704.1.5)) {
        None if key == SigningKey::Vlek => return Err(E::MissingExtension { name: "cspID" }),
        None => None,
        Some(_) if key != SigningKey::Vlek => return Err(E::ExtensionValue { name: "cspID" }),
        Some(value) => {
            let text = der::only(value, der::IA5_STRING).and_then(|text| core::str::from_utf8(text).ok());
            let text = text.filter(|text| text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
            Some(text.ok_or(E::ExtensionValue { name: "cspID" })?.to_owned())
        }
    };
    Ok(LeafFacts { key, product, tcb, hwid, csp_id })
}
