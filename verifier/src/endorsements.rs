//! Certificates and revocation lists that may endorse a report: from the evidence itself, from files, from the KDS.
//!
//! A bag, not a chain: [`crate::verify()`] picks what fits the report. Host supplied as often as not, so untrusted.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, LazyLock, OnceLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::{
    Code, Look, Reason,
    abi::{CertKind, CertTable, CertTableError, ChipId, SigningKey},
    chain::{Certificate, CertificateError, CertificateRole, Crl, CrlError, LeafFacts, authorities},
    evidence::Evidence,
};

/// Everything at hand that may endorse a report.
///
/// What strangers send is bounded ([`Endorsements::from_evidence`]); what its caller adds is not, and a leaf is found by its
/// chip among any number of them.
#[derive(Clone, Debug, Default)]
pub struct Endorsements {
    certificates: Vec<Arc<Certificate>>,
    crls: Vec<Arc<Crl>>,
    /// SHA-256 of each, so that everything is held once; of none where there are [few](FEW).
    held: HashSet<[u8; 32]>,
    /// VCEKs by the chip they are issued for; VLEKs, which name none, under zero.
    leaves: HashMap<ChipId, Vec<usize>>,
    /// Reckoned when it is asked for, from everything that is held.
    fingerprint: OnceLock<[u8; 32]>,
    /// Part of this crate, not given by anybody.
    embedded: bool,
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
    /// Bytes of another kind altogether.
    #[error("{found} where {due} is due")]
    Other {
        /// What they look like.
        found: Look,
        /// What was to be there.
        due: &'static str,
        /// The code of what was met first in reading them as that.
        code: Code,
    },
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
            Self::Table(_) | Self::Other { .. } | Self::Pem | Self::TooMany { .. } => true,
            Self::Certificate { source, .. } => {
                matches!(source, CertificateError::Malformed(_) | CertificateError::TooLong { .. })
            }
            Self::Crl(source) => matches!(source, CrlError::Malformed(_) | CrlError::TooLong { .. }),
        }
    }

    /// The same, or the kind of `bytes` where they are nothing like what is due.
    fn instead(self, bytes: &[u8], due: Look) -> Self {
        let found = Look::of(bytes);
        if !self.is_malformed() || found == due {
            return self;
        }
        Self::Other { found, due: due.words(), code: self.reason().code }
    }

    /// Code, found, expected and hint.
    pub fn reason(&self) -> Reason {
        let hint = "give the certificates and the list as their issuer's key distribution service serves them";
        match self {
            Self::Table(error) => Reason::new(Code::CertificateTable, error, "a certificate table", hint),
            Self::Certificate { source, .. } => {
                Reason::new(Code::CertificateForm, source, "a certificate in AMD's form", hint)
            }
            Self::Crl(error) => Reason::new(Code::CrlForm, error, "a complete revocation list in AMD's form", hint),
            Self::Other { found, due, code } => Reason::new(*code, found, due, hint),
            Self::Pem => Reason::new(Code::Pem, "damaged PEM text", "PEM blocks of one kind", hint),
            Self::TooMany { what, limit } => {
                Reason::new(Code::TooManyEndorsements, format!("more than {limit} {what}"), "one chain", hint)
            }
        }
    }
}

/// What evidence may bring: a chain has three, hosts send a few chains at most, and each may cost a public-key operation.
const MAX_CERTIFICATES: usize = 16;
const MAX_CRLS: usize = 8;
/// So many are compared byte by byte, which takes less than to hash them.
const FEW: usize = 8;
/// Up to here every leaf given is weighed against a report, so that one that does not fit is named; beyond, the chip decides.
const FEW_LEAVES: usize = 16;

/// ARK, ASK and ASVK of each product line. See `data/README.md`.
const AMD_CHAINS: [&[u8]; 9] = [
    include_bytes!("../data/milan_ask.der"),
    include_bytes!("../data/milan_asvk.der"),
    include_bytes!("../data/milan_ark.der"),
    include_bytes!("../data/genoa_ask.der"),
    include_bytes!("../data/genoa_asvk.der"),
    include_bytes!("../data/genoa_ark.der"),
    include_bytes!("../data/turin_ask.der"),
    include_bytes!("../data/turin_asvk.der"),
    include_bytes!("../data/turin_ark.der"),
];

impl Endorsements {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// AMD's ARK, ASK and ASVK of every product line, so that a caller needs the leaf and the revocation list alone.
    /// Endorsements like any other: pins and revocation list decide.
    pub fn amd() -> &'static Self {
        static AMD: LazyLock<Endorsements> = LazyLock::new(|| {
            let mut all = Endorsements { embedded: true, ..Endorsements::default() };
            for der in AMD_CHAINS {
                // A test adds each; what did not parse would only be missing.
                let _ = all.add_certificates(der);
            }
            all
        });
        &AMD
    }

    /// What came with the evidence: the certificate table (DER or PEM entries) and the CRLs, no more of either than a few
    /// chains have.
    ///
    /// # Errors
    /// [`EndorsementError`], the first defect met.
    pub fn from_evidence(evidence: &Evidence) -> Result<Self, EndorsementError> {
        let mut all = Self::from_cert_table(&evidence.cert_table)?;
        for crl in &evidence.crls {
            all.add_crl(crl)?;
            all.bounded()?;
        }
        Ok(all)
    }

    /// From a certificate table of the extended report. Entries of unknown kind are passed over; the bounds of
    /// [`Self::from_evidence`] hold.
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
            all.bounded()?;
        }
        Ok(all)
    }

    /// What a stranger may bring, counted without what came twice.
    fn bounded(&self) -> Result<(), EndorsementError> {
        let too_many = |what, limit| Err(EndorsementError::TooMany { what, limit });
        match (self.certificates.len(), self.crls.len()) {
            (certificates, _) if certificates > MAX_CERTIFICATES => too_many("certificates", MAX_CERTIFICATES),
            (_, crls) if crls > MAX_CRLS => too_many("revocation lists", MAX_CRLS),
            _ => Ok(()),
        }
    }

    /// Adds one DER certificate, or all certificates of a PEM text. What is here already is not added again.
    ///
    /// # Errors
    /// [`EndorsementError`]; nothing was added.
    pub fn add_certificates(&mut self, bytes: &[u8]) -> Result<(), EndorsementError> {
        let read = |(index, der): (usize, &Cow<'_, [u8]>)| {
            authorities::read(der).map_err(|source| EndorsementError::Certificate { index, source })
        };
        let blocks = pem_or_der(bytes, "CERTIFICATE");
        let parsed = blocks.and_then(|blocks| blocks.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>());
        for certificate in parsed.map_err(|error| error.instead(bytes, Look::Certificate))? {
            self.hold_certificate(certificate);
        }
        Ok(())
    }

    /// Adds the revocation lists of a PEM text, or one in DER.
    ///
    /// # Errors
    /// [`EndorsementError`]; nothing was added.
    pub fn add_crl(&mut self, bytes: &[u8]) -> Result<(), EndorsementError> {
        let read = |der: &Cow<'_, [u8]>| Crl::parse(der).map_err(EndorsementError::Crl);
        let blocks = pem_or_der(bytes, "X509 CRL");
        let parsed = blocks.and_then(|blocks| blocks.iter().map(read).collect::<Result<Vec<_>, _>>());
        for crl in parsed.map_err(|error| error.instead(bytes, Look::RevocationList))? {
            self.hold_crl(Arc::new(crl));
        }
        Ok(())
    }

    /// Adds another bag's content after this one's, so that what was here is tried first.
    pub fn merge(&mut self, other: &Self) {
        other.certificates.iter().for_each(|certificate| self.hold_certificate(Arc::clone(certificate)));
        other.crls.iter().for_each(|crl| self.hold_crl(Arc::clone(crl)));
    }

    fn hold_certificate(&mut self, certificate: Arc<Certificate>) {
        if !self.hold(certificate.der()) {
            return;
        }
        if let Some(facts) = certificate.leaf() {
            self.leaves.entry(chip_of(facts)).or_default().push(self.certificates.len());
        }
        self.certificates.push(certificate);
    }

    fn hold_crl(&mut self, crl: Arc<Crl>) {
        if self.hold(crl.der()) {
            self.crls.push(crl);
        }
    }

    /// False if these bytes are held already; else whoever asked holds them now.
    fn hold(&mut self, der: &[u8]) -> bool {
        let count = self.certificates.len() + self.crls.len();
        if count == FEW {
            self.held = self.all_der().map(digest).collect();
        }
        let is_new = if count < FEW { self.all_der().all(|held| held != der) } else { self.held.insert(digest(der)) };
        if is_new {
            self.fingerprint = OnceLock::new();
        }
        is_new
    }

    fn all_der(&self) -> impl Iterator<Item = &[u8]> {
        let certificates = self.certificates.iter().map(|certificate| certificate.der());
        certificates.chain(self.crls.iter().map(|crl| crl.der()))
    }

    /// The certificates.
    pub fn certificates(&self) -> impl ExactSizeIterator<Item = &Certificate> {
        self.certificates.iter().map(|certificate| &**certificate)
    }

    /// The revocation lists.
    pub fn crls(&self) -> impl ExactSizeIterator<Item = &Crl> {
        self.crls.iter().map(|crl| &**crl)
    }

    /// Leaves that may be meant by a report of this chip: all of a few; of many, those of the chip and those of none.
    pub(crate) fn leaves(&self, chip: &ChipId) -> Vec<&Certificate> {
        let mut found: Vec<usize> = if self.leaves.values().map(Vec::len).sum::<usize>() <= FEW_LEAVES {
            self.leaves.values().flatten().copied().collect()
        } else {
            [chip, &ChipId::new([0; ChipId::LEN])]
                .into_iter()
                .filter_map(|id| self.leaves.get(id))
                .flatten()
                .copied()
                .collect()
        };
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|index| &*self.certificates[index]).collect()
    }

    /// Names what is held by the digests of it: of certificates in their order, then of lists in theirs.
    pub(crate) fn fingerprint(&self) -> &[u8; 32] {
        self.fingerprint.get_or_init(|| {
            let mut all = Sha256::new().chain_update(self.certificates.len().to_le_bytes());
            self.all_der().for_each(|der| all.update(digest(der)));
            all.finalize().into()
        })
    }

    /// What was given, in a few words: `1 SEV-VCEK, 1 SEV-Genoa, 1 list`.
    pub(crate) fn describe(bags: &[&Self]) -> String {
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for bag in bags.iter().filter(|bag| !bag.embedded) {
            for certificate in bag.certificates() {
                *names.entry(certificate.role().to_string()).or_default() += 1;
            }
            if !bag.crls.is_empty() {
                *names.entry("revocation list".to_owned()).or_default() += bag.crls.len();
            }
        }
        if names.is_empty() {
            return "none".to_owned();
        }
        names.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    }
}

impl Evidence {
    /// Puts `others` beside the certificates and lists that came with it, as if its host had sent them. Entries of its table that
    /// nobody reads are left out.
    ///
    /// # Errors
    /// [`EndorsementError`] of what came with it, or if it would be more than evidence may bring; it stays as it was.
    pub fn bring(&mut self, others: &Endorsements) -> Result<(), EndorsementError> {
        let mut all = Endorsements::from_evidence(self)?;
        all.merge(others);
        all.bounded()?;
        let mut texts: BTreeMap<CertKind, String> = BTreeMap::new();
        for certificate in all.certificates() {
            let kind = match certificate.role() {
                CertificateRole::Leaf(SigningKey::Vlek) => CertKind::Vlek,
                CertificateRole::Leaf(_) => CertKind::Vcek,
                CertificateRole::Intermediate(..) => CertKind::Ask,
                CertificateRole::Root(_) => CertKind::Ark,
            };
            texts.entry(kind).or_default().push_str(&certificate.to_pem());
        }
        let entries: Vec<_> = texts.iter().map(|(kind, text)| (*kind, text.as_bytes())).collect();
        self.cert_table = CertTable::write(&entries);
        self.crls = all.crls().map(|list| list.der().to_vec()).collect();
        Ok(())
    }
}

/// CHIP_ID of the reports this leaf endorses: hwID, zeros behind it. Zero for a VLEK.
fn chip_of(facts: &LeafFacts) -> ChipId {
    facts.hwid.as_deref().and_then(ChipId::of_hwid).unwrap_or(ChipId::new([0; ChipId::LEN]))
}

fn digest(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// DER as it is, or every block of one label of a PEM text; other labels are refused.
fn pem_or_der<'a>(bytes: &'a [u8], label: &str) -> Result<Vec<Cow<'a, [u8]>>, EndorsementError> {
    let text = match core::str::from_utf8(bytes) {
        Ok(text) if text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with("-----BEGIN ") => text,
        _ => return Ok(vec![Cow::Borrowed(bytes)]),
    };
    // Hosts hand PEM over with the terminating NUL of their buffer.
    let mut rest = text.trim_end_matches('\0').trim();
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let body = rest.strip_prefix(begin.as_str()).ok_or(EndorsementError::Pem)?;
        let (base64, tail) = body.split_once(end.as_str()).ok_or(EndorsementError::Pem)?;
        let compact: String = base64.split_ascii_whitespace().collect();
        blocks.push(Cow::Owned(STANDARD.decode(compact).map_err(|_| EndorsementError::Pem)?));
        rest = tail.trim_start();
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_held_once_among_few_and_among_many() {
        const { assert!(AMD_CHAINS.len() > FEW) };
        for count in 0..=AMD_CHAINS.len() {
            let mut bag = Endorsements::new();
            for der in AMD_CHAINS[..count].iter().chain(AMD_CHAINS[..count].iter().rev()) {
                bag.add_certificates(der).unwrap();
            }
            bag.merge(&bag.clone());
            let held: Vec<_> = bag.certificates().map(Certificate::der).collect();
            assert_eq!(held, AMD_CHAINS[..count]);
        }
    }

    #[test]
    fn a_fingerprint_is_of_what_is_held_and_its_order() {
        let of = |all: &[&[u8]]| {
            let mut bag = Endorsements::new();
            let mut found = vec![*bag.fingerprint()];
            for der in all {
                bag.add_certificates(der).unwrap();
                found.push(*bag.fingerprint());
            }
            found
        };
        let forward = of(&AMD_CHAINS);
        assert_eq!(forward.iter().collect::<HashSet<_>>().len(), AMD_CHAINS.len() + 1, "each changes it");
        assert_eq!(forward, of(&AMD_CHAINS), "nothing else does");
        let mut twice = AMD_CHAINS.to_vec();
        twice.push(AMD_CHAINS[3]);
        assert_eq!(of(&twice).last(), forward.last());
        assert_ne!(of(&AMD_CHAINS[..2])[2], of(&[AMD_CHAINS[1], AMD_CHAINS[0]])[2]);
    }
}
