//! The certificates of this host's chip, as guests hand them on in an extended report: one file in the form of the GHCB
//! specification's certificate table.
//!
//! Checked here: the form of each certificate, that the leaf is this chip's at the TCB that reports say, that the product
//! line and the root are the right ones. Never checked here: signatures and dates. Whoever verifies a report does, and a host
//! that lies about them denies service to its own guests.

use coffer_verifier::abi::{CertKind, CertTable, ChipId, ProductLine, SigningKey, TcbVersion};
use coffer_verifier::chain::CertificateRole;
use coffer_verifier::{EndorsementError, Endorsements, amd_root};

/// Certificates of one chip, each once.
#[derive(Clone, Debug)]
pub struct HostCertificates {
    entries: Vec<(CertKind, Vec<u8>)>,
    leaf: TcbVersion,
}

/// Why they are not this host's.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file or the table is in no form that is known.
    #[error("these are no certificates of AMD's form")]
    Form(#[from] EndorsementError),
    /// One is missing.
    #[error("there is no {0} among them")]
    Missing(&'static str),
    /// One is there twice, and differs.
    #[error("there are two different certificates for {0}")]
    Twice(&'static str),
    /// The leaf is another line's.
    #[error("the {what} is of {found}, and this chip is a {expected}")]
    Product {
        /// Which certificate.
        what: &'static str,
        /// Its line.
        found: ProductLine,
        /// The chip's.
        expected: ProductLine,
    },
    /// The leaf is another chip's.
    #[error("the VCEK is another chip's: its hwID is {found}")]
    Chip {
        /// In hexadecimal.
        found: String,
    },
    /// The leaf is of another TCB.
    #[error("the leaf is for TCB {found}, and reports of this host say {expected}")]
    Tcb {
        /// Of the leaf.
        found: TcbVersion,
        /// Of the platform.
        expected: TcbVersion,
    },
    /// The intermediate signs the other kind of leaf.
    #[error("an {found} certifies no {leaf}")]
    Intermediate {
        /// `ASK` or `ASVK`.
        found: &'static str,
        /// `VCEK` or `VLEK`.
        leaf: SigningKey,
    },
    /// The root is not AMD's.
    #[error("the root among them is not AMD's for {0}")]
    Root(ProductLine),
}

/// What the leaf must be of.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Line of the processor.
    pub product: ProductLine,
    /// What the firmware says.
    pub chip: ChipId,
    /// What reports say.
    pub reported: TcbVersion,
}

impl HostCertificates {
    /// Takes what is this host's, or nothing.
    ///
    /// # Errors
    /// [`CertificatesError`].
    pub fn check(found: &Endorsements, host: &Host) -> Result<Self, CertificatesError> {
        let mut entries: Vec<(CertKind, Vec<u8>)> = Vec::new();
        let (mut leaf, mut signs) = (None, None);
        for certificate in found.certificates() {
            let (kind, name) = kind(certificate.role());
            if entries.iter().any(|(held, _)| *held == kind) {
                return Err(CertificatesError::Twice(name));
            }
            match certificate.role() {
                CertificateRole::Root(_) if certificate.spki_digest() != amd_root(host.product) => {
                    return Err(CertificatesError::Root(host.product));
                }
                CertificateRole::Intermediate(product, _) if product != host.product => {
                    return Err(CertificatesError::Product { what: name, found: product, expected: host.product });
                }
                CertificateRole::Intermediate(_, key) => signs = Some(key),
                _ => {}
            }
            if let Some(facts) = certificate.leaf() {
                if facts.product != host.product {
                    let (found, expected) = (facts.product, host.product);
                    return Err(CertificatesError::Product { what: name, found, expected });
                }
                let chip = &host.chip.as_bytes()[..host.product.hwid_len()];
                match &facts.hwid {
                    Some(hwid) if hwid != chip => return Err(CertificatesError::Chip { found: hex::encode(hwid) }),
                    None if facts.key != SigningKey::Vlek => {
                        return Err(CertificatesError::Chip { found: "not there".into() });
                    }
                    _ => {}
                }
                if facts.tcb != host.reported {
                    return Err(CertificatesError::Tcb { found: facts.tcb, expected: host.reported });
                }
                leaf = Some((facts.key, facts.tcb));
            }
            entries.push((kind, certificate.der().to_vec()));
        }
        let has = |wanted: CertKind| entries.iter().any(|(kind, _)| *kind == wanted);
        let (key, leaf) = leaf.ok_or(CertificatesError::Missing("VCEK or VLEK"))?;
        for (kind, name) in [(CertKind::Ask, "ASK or ASVK"), (CertKind::Ark, "ARK")] {
            if !has(kind) {
                return Err(CertificatesError::Missing(name));
            }
        }
        if signs != Some(key) {
            let found = if key == SigningKey::Vlek { "ASK" } else { "ASVK" };
            return Err(CertificatesError::Intermediate { found, leaf: key });
        }
        Ok(Self { entries, leaf })
    }

    /// The table's bytes.
    pub fn table(&self) -> Vec<u8> {
        let entries: Vec<_> = self.entries.iter().map(|(kind, der)| (*kind, der.as_slice())).collect();
        CertTable::write(&entries)
    }

    /// Each with the name that `verify --certs` looks for, and its DER.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let vlek = self.entries.iter().any(|(kind, _)| *kind == CertKind::Vlek);
        self.entries.iter().map(move |(kind, der)| (file_name(*kind, vlek), der.as_slice()))
    }

    /// TCB the leaf is for.
    pub const fn tcb(&self) -> TcbVersion {
        self.leaf
    }
}

const fn kind(role: CertificateRole) -> (CertKind, &'static str) {
    match role {
        CertificateRole::Leaf(SigningKey::Vlek) => (CertKind::Vlek, "VLEK"),
        CertificateRole::Leaf(_) => (CertKind::Vcek, "VCEK"),
        CertificateRole::Intermediate(..) => (CertKind::Ask, "ASK or ASVK"),
        CertificateRole::Root(_) => (CertKind::Ark, "ARK"),
    }
}

/// A table has one kind for both intermediates.
const fn file_name(kind: CertKind, vlek: bool) -> &'static str {
    match kind {
        CertKind::Vlek => "vlek.der",
        CertKind::Ask if vlek => "asvk.der",
        CertKind::Ask => "ask.der",
        CertKind::Ark => "ark.der",
        _ => "vcek.der",
    }
}
