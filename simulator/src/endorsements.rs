//! Endorsements of one guest's reports, as the host hands them on.

use coffer_verifier::abi::{CertKind, CertTable};

/// Certificates and CRL, DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedEndorsements {
    /// Root.
    pub ark: Vec<u8>,
    /// ASK, or ASVK with a VLEK.
    pub intermediate: Vec<u8>,
    /// VCEK or VLEK.
    pub leaf: Vec<u8>,
    /// True if the leaf is a VLEK.
    pub is_vlek: bool,
    /// CRL of the root.
    pub crl: Vec<u8>,
}

impl SimulatedEndorsements {
    /// Certificate table of an extended report: ARK, ASK, leaf, CRL.
    pub fn cert_table(&self) -> Vec<u8> {
        let leaf = if self.is_vlek { CertKind::Vlek } else { CertKind::Vcek };
        CertTable::write(&[
            (CertKind::Ark, &self.ark),
            (CertKind::Ask, &self.intermediate),
            (leaf, &self.leaf),
            (CertKind::Crl, &self.crl),
        ])
    }
}
