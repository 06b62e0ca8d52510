//! Certificates and revocation lists that may endorse a report: from the evidence itself, from files, from the KDS.
//!
//! A bag, not a chain: [`crate::verify()`] picks what fits the report. Host supplied as often as not, so untrusted.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    Reason,
    abi::{CertKind, CertTable, CertTableError, ProductLine, Report, SigningKey},
    chain::{Certificate, CertificateError, Crl, CrlError},
    evidence::Evidence,
};

/// Everything at hand that may endorse a report.
#[derive(Clone, Debug, Default)]
pub struct Endorsements {
    certificates: Vec<Certificate>,
    crls: Vec<Crl>,
}

/// Why bytes are not endorsements.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndorsementError {
    /// Certificate table.
    #[error(transparent)]
    Table(#[from] CertTableError),
    /// A certificate.
    #[error("certificate {index} cannot be used")]
    Certificate {
        /// Which, in the order given.
        index: usize,
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// A revocation list.
    #[error("certificate revocation list cannot be used")]
    Crl(#[from] CrlError),
    /// PEM armour is damaged.
    #[error("PEM text is damaged")]
    Pem,
    /// More certificates or lists than any chain needs.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Certificates or lists.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl EndorsementError {
    /// True if the bytes are no certificate, list or table at all, rather than one that must not be used.
    pub const fn is_malformed(&self) -> bool {
        match self {
            Self::Table(_) | Self::Pem | Self::TooMany { .. } => true,
            Self::Certificate { source, .. } => {
                matches!(source, CertificateError::Malformed(_) | CertificateError::TooLong { .. })
            }
            Self::Crl(source) => matches!(source, CrlError::Malformed(_) | CrlError::TooLong { .. }),
        }
    }

    /// Code, found, expected and hint.
    pub fn reason(&self) -> Reason {
        let hint = "give the certificates and the list as AMD's KDS serves them";
        match self {
            Self::Table(error) => Reason::new("certificate-table", error, "a certificate table", hint),
            Self::Certificate { source, .. } => {
                Reason::new("certificate-form", source, "a certificate in AMD's form", hint)
            }
            Self::Crl(error) => Reason::new("crl-form", error, "a complete revocation list in AMD's form", hint),
            Self::Pem => Reason::new("pem", "damaged PEM text", "PEM blocks of one kind", hint),
            Self::TooMany { what, limit } => {
                Reason::new("too-many-endorsements", format!("more than {limit} {what}"), "one chain", hint)
            }
        }
    }
}

/// A chain has three; hosts send a few chains at most. Each may cost a public-key operation.
const MAX_CERTIFICATES: usize = 16;
const MAX_CRLS: usize = 8;

impl Endorsements {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What came with the evidence: the certificate table (DER or PEM entries) and the CRLs.
    ///
    /// # Errors
    /// [`EndorsementError`], the first defect met.
    pub fn from_evidence(evidence: &Evidence) -> Result<Self, EndorsementError> {
        let mut all = Self::from_cert_table(&evidence.cert_table)?;
        for crl in &evidence.crls {
            all.add_crl(crl)?;
        }
        Ok(all)
    }

    /// From a certificate table of the extended report. Entries of unknown kind are passed over.
    ///
    /// # Errors
    /// [`EndorsementError`].
    pub fn from_cert_table(bytes: &[u8]) -> Result<Self, EndorsementError> {
        let mut all = Self::new();
        for (kind, content) in CertTable::parse(bytes)?.entries() {
            match kind {
                CertKind::Vcek | CertKind::Vlek | CertKind::Ask | CertKind::Ark if !content.is_empty() => {
                    all.add_certificates(content)?;
                }
                CertKind::Crl if !content.is_empty() => all.add_crl(content)?,
                _ => {}
            }
        }
        Ok(all)
    }

    /// Adds one DER certificate, or all certificates of a PEM text.
    ///
    /// # Errors
    /// [`EndorsementError`]; nothing was added.
    pub fn add_certificates(&mut self, bytes: &[u8]) -> Result<(), EndorsementError> {
        let ders = pem_or_der(bytes, "CERTIFICATE")?;
        if self.certificates.len() + ders.len() > MAX_CERTIFICATES {
            return Err(EndorsementError::TooMany { what: "certificates", limit: MAX_CERTIFICATES });
        }
        let parsed: Result<Vec<_>, _> = ders
            .iter()
            .enumerate()
            .map(|(index, der)| {
                Certificate::parse(der).map_err(|source| EndorsementError::Certificate { index, source })
            })
            .collect();
        for certificate in parsed? {
            if self.certificates.iter().all(|known| known.der() != certificate.der()) {
                self.certificates.push(certificate);
            }
        }
        Ok(())
    }

    /// Adds one revocation list, DER or PEM.
    ///
    /// # Errors
    /// [`EndorsementError`]; nothing was added.
    pub fn add_crl(&mut self, bytes: &[u8]) -> Result<(), EndorsementError> {
        for der in pem_or_der(bytes, "X509 CRL")? {
            if self.crls.len() == MAX_CRLS {
                return Err(EndorsementError::TooMany { what: "revocation lists", limit: MAX_CRLS });
            }
            let crl = Crl::parse(&der)?;
            if self.crls.iter().all(|known| known.der() != crl.der()) {
                self.crls.push(crl);
            }
        }
        Ok(())
    }

    /// Adds another bag's content after this one's, so that what was here is tried first.
    ///
    /// # Errors
    /// [`EndorsementError::TooMany`].
    pub fn merge(&mut self, other: &Self) -> Result<(), EndorsementError> {
        for certificate in &other.certificates {
            self.add_certificates(certificate.der())?;
        }
        for crl in &other.crls {
            self.add_crl(crl.der())?;
        }
        Ok(())
    }

    /// The certificates.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The revocation lists.
    pub fn crls(&self) -> &[Crl] {
        &self.crls
    }
}

/// What is missing to decide about a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndorsementKind {
    /// The leaf.
    Leaf(SigningKey),
    /// ASK (for VCEKs) or ASVK (for VLEKs).
    Intermediate(SigningKey),
    /// ARK.
    Root(SigningKey),
    /// Revocation list.
    Crl(SigningKey),
}

/// Names exactly what to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndorsementRequest {
    /// What is missing.
    pub kind: EndorsementKind,
    /// Product line, where the report or a certificate tells.
    pub product: Option<ProductLine>,
    /// Where AMD's KDS has it; several if the product line is not known, none for a VLEK, which only the provider has.
    pub urls: Vec<String>,
}

const KDS: &str = "https://kdsintf.amd.com";

impl EndorsementRequest {
    /// What `report` needs of one kind. `product`: its line, where known from elsewhere than the report.
    pub fn for_report(report: &Report, kind: EndorsementKind, product: Option<ProductLine>) -> Self {
        let product = product.or_else(|| report.product());
        let candidates: &[ProductLine] = match &product {
            Some(one) => core::slice::from_ref(one),
            // Version 2 reports do not name their product; a CHIP_ID of eight bytes is Turin's.
            None if report.chip_id().as_bytes()[8..].iter().all(|byte| *byte == 0) && !report.chip_id().is_zero() => {
                &[ProductLine::Turin]
            }
            None => &[ProductLine::Milan, ProductLine::Genoa],
        };
        let urls = candidates
            .iter()
            .filter_map(|line| match kind {
                EndorsementKind::Leaf(SigningKey::Vcek) => vcek_url(report, *line),
                EndorsementKind::Leaf(_) => None,
                EndorsementKind::Intermediate(key) | EndorsementKind::Root(key) => {
                    Some(format!("{KDS}/{}/v1/{line}/cert_chain", path(key)))
                }
                EndorsementKind::Crl(key) => Some(format!("{KDS}/{}/v1/{line}/crl", path(key))),
            })
            .collect();
        Self { kind, product, urls }
    }
}

impl core::fmt::Display for EndorsementRequest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = match self.kind {
            EndorsementKind::Leaf(SigningKey::Vlek) => "VLEK certificate",
            EndorsementKind::Leaf(_) => "VCEK certificate",
            EndorsementKind::Intermediate(SigningKey::Vlek) => "ASVK certificate",
            EndorsementKind::Intermediate(_) => "ASK certificate",
            EndorsementKind::Root(_) => "ARK certificate",
            EndorsementKind::Crl(_) => "certificate revocation list",
        };
        f.write_str(name)?;
        if let Some(product) = self.product {
            write!(f, " for {product}")?;
        }
        Ok(())
    }
}

fn path(key: SigningKey) -> &'static str {
    match key {
        SigningKey::Vlek => "vlek",
        SigningKey::Vcek | SigningKey::None => "vcek",
    }
}

/// Source: AMD 57230, "VCEK certificate request". A masked CHIP_ID has no URL.
fn vcek_url(report: &Report, product: ProductLine) -> Option<String> {
    let chip = report.chip_id();
    let tcb = report.tcbs(product).ok()?.reported;
    if chip.is_zero() {
        return None;
    }
    let hwid = hex::encode(&chip.as_bytes()[..product.hwid_len()]);
    let fmc = tcb.fmc.map(|fmc| format!("fmcSPL={fmc:02}&")).unwrap_or_default();
    Some(format!(
        "{KDS}/vcek/v1/{product}/{hwid}?{fmc}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
        tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode
    ))
}

/// DER as it is, or every block of one label of a PEM text; other labels are refused.
fn pem_or_der(bytes: &[u8], label: &str) -> Result<Vec<Vec<u8>>, EndorsementError> {
    let text = match core::str::from_utf8(bytes) {
        Ok(text) if text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with("-----BEGIN ") => text,
        _ => return Ok(vec![bytes.to_vec()]),
    };
    // Hosts hand PEM over with the terminating NUL of their buffer.
    let mut rest = text.trim_end_matches('\0').trim();
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let body = rest.strip_prefix(begin.as_str()).ok_or(EndorsementError::Pem)?;
        let (base64, tail) = body.split_once(end.as_str()).ok_or(EndorsementError::Pem)?;
        let compact: String = base64.split_ascii_whitespace().collect();
        blocks.push(STANDARD.decode(compact).map_err(|_| EndorsementError::Pem)?);
        rest = tail.trim_start();
    }
    Ok(blocks)
}
