//! Ports of the workload that are reached from outside, behind RA-TLS that ends in the agent.

use coffer_verifier::abi::SpkiDigest;
use serde::{Deserialize, Serialize};

use crate::{Guests, Name};

/// A TCP port of the workload's behind RA-TLS. A port that no entry names is not reached at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    /// Port that the workload listens on, at the guest's loopback address.
    pub port: u16,
    /// Who may connect.
    pub clients: IngressClients,
}

/// Who may connect to a port. Each client but those of a certificate gets the guest's evidence first, whoever it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IngressClients {
    /// Whoever reaches it: the workload itself decides what they may.
    Anyone,
    /// Who holds one of these keys: SHA-256 of the SubjectPublicKeyInfo, in a client certificate.
    Keys(Vec<SpkiDigest>),
    /// These guests, which show evidence too before they get a stream.
    Guests(Guests),
    /// Whoever reaches it, by plain TLS: the guest shows a certificate that the key broker issues by this profile, and no evidence.
    Certificate(Name),
}

impl Ingress {
    /// What the agent needs at most for all ports of a guest together, in bytes.
    pub const MEMORY: u64 = 64 << 20;
    /// Most ports of one guest.
    pub const MOST: usize = 16;
    /// Most keys of one port.
    pub const MOST_KEYS: usize = 256;
}
