//! Who may do what with a running guest, over RA-TLS.

use coffer_verifier::abi::SpkiDigest;
use serde::{Deserialize, Serialize};

use crate::{Act, OwnerMay, digest::lower_hex};

/// One owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// SHA-256 of the owner's SubjectPublicKeyInfo.
    #[serde(deserialize_with = "lower_hex")]
    pub key: SpkiDigest,
    /// What this owner may do.
    pub may: OwnerMay,
}

impl Owner {
    /// Whether this owner may `act`. Stopping and coarse statistics need no grant of their own: they come with being listed.
    pub fn allows(&self, act: Act) -> bool {
        matches!(act, Act::Stop | Act::Stats) || self.may.allows(act)
    }
}
