//! Other guests that the workload talks to, and which guests they may be.

use coffer_verifier::{
    ExpectedGuest, Pair, SignerRule, TrustAnchors,
    abi::{FamilyId, HostData, ImageId, KeyDigest, Measurement, SpkiDigest},
};
use serde::{Deserialize, Serialize};

use crate::{Name, digest::lower_hex};

/// A port of another guest's workload, which this one reaches at a loopback port of its own. A guest that no entry names is not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// What messages call it.
    pub name: Name,
    /// Port at this guest's loopback address, where the agent listens for the workload.
    pub listen: u16,
    /// `host:port` that the host connects to: the other guest's published port.
    pub address: String,
    /// Port of the other guest's workload.
    pub port: u16,
    /// Who may answer.
    pub guests: Guests,
}

impl Peer {
    /// What the agent needs at most for all peers of a guest together, in bytes.
    pub const MEMORY: u64 = 64 << 20;
    /// Most of one guest.
    pub const MOST: usize = 8;
}

/// Guests that another one believes: any of these, and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guests {
    /// By what was launched. Two specs cannot hold each other's measurement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Measured>,
    /// By who signed the launch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed: Vec<SignedLaunch>,
    /// Simulators that are believed, by the SHA-256 of their root's SubjectPublicKeyInfo: of a simulated guest alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub simulators: Vec<SpkiDigest>,
    /// Guests on Milan are believed too: whoever has had such a processor in hand may have its keys (AMD-SB-3045), whatever its TCB.
    #[serde(default, skip_serializing_if = "is_false")]
    pub milan_chip_keys_can_be_extracted: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A platform with a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// MEASUREMENT.
    #[serde(deserialize_with = "lower_hex")]
    pub measurement: Measurement,
    /// HOST_DATA, the digest of the workload spec.
    #[serde(deserialize_with = "lower_hex")]
    pub workload: HostData,
}

/// Launches that one author signed with an ID block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedLaunch {
    /// AUTHOR_KEY_DIGEST.
    #[serde(deserialize_with = "lower_hex")]
    pub author_key: KeyDigest,
    /// FAMILY_ID.
    #[serde(deserialize_with = "lower_hex")]
    pub family_id: FamilyId,
    /// IMAGE_ID.
    #[serde(deserialize_with = "lower_hex")]
    pub image_id: ImageId,
    /// Least GUEST_SVN.
    pub min_svn: u32,
}

impl Guests {
    /// Most entries of each list.
    pub const MOST: usize = 64;

    /// What a verifier is to expect.
    pub fn expected(&self) -> ExpectedGuest {
        let pair = |one: &Measured| Pair { measurement: one.measurement, host_data: one.workload };
        let signer = |one: &SignedLaunch| SignerRule {
            author_key: one.author_key,
            family_id: one.family_id,
            image_id: one.image_id,
            minimum_guest_svn: one.min_svn,
        };
        ExpectedGuest::Admitted {
            pairs: self.measured.iter().map(pair).collect(),
            signers: self.signed.iter().map(signer).collect(),
        }
    }

    /// Roots that are believed.
    pub fn anchors(&self) -> TrustAnchors {
        self.simulators.iter().fold(TrustAnchors::amd(), |anchors, root| anchors.with_simulated(*root))
    }
}
