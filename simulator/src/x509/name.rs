//! Kinds of key, and the names that AMD gives them, with our organisation name.

use coffer_verifier::abi::ProductLine;

use super::DerError;
use super::der::{oid, printable, sequence, set_of_one, utf8};

/// Kinds of key in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Root.
    Ark,
    /// Certifies VCEKs.
    Ask,
    /// Certifies VLEKs.
    Asvk,
    /// Chip key.
    Vcek,
    /// Key loaded for a cloud provider.
    Vlek,
}

/// A distinguished name in AMD's order: OU, C, L, ST, O, CN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Organisation.
    pub organization: String,
    /// Common name.
    pub common_name: String,
}

impl Name {
    /// The name of a key, common name exactly AMD's.
    pub fn of(kind: KeyKind, product: ProductLine) -> Self {
        let common_name = match kind {
            KeyKind::Ark => format!("ARK-{product}"),
            KeyKind::Ask => format!("SEV-{product}"),
            KeyKind::Asvk => format!("SEV-VLEK-{product}"),
            KeyKind::Vcek => "SEV-VCEK".to_owned(),
            KeyKind::Vlek => "SEV-VLEK".to_owned(),
        };
        Self { organization: "Coffer Simulated".to_owned(), common_name }
    }

    pub(super) fn to_der(&self) -> Result<Vec<u8>, DerError> {
        let attribute = |kind: &str, value: Vec<u8>| set_of_one(&sequence(&[&oid(kind)?, &value])?);
        sequence(&[
            &attribute("2.5.4.11", utf8("Engineering")?)?,
            &attribute("2.5.4.6", printable("US")?)?,
            &attribute("2.5.4.7", utf8("Santa Clara")?)?,
            &attribute("2.5.4.8", utf8("CA")?)?,
            &attribute("2.5.4.10", utf8(&self.organization)?)?,
            &attribute("2.5.4.3", utf8(&self.common_name)?)?,
        ])
    }
}
