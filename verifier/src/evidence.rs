//! Evidence as it travels: the signed bytes verbatim, and what came beside them. Nobody believes it yet.

/// One attester's evidence. The raw bytes travel and are checked; nothing is encoded again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// ATTESTATION_REPORT, 1184 bytes when well-formed.
    pub report: Vec<u8>,
    /// Certificate table of the extended report; host supplied, maybe empty.
    pub cert_table: Vec<u8>,
    /// Certificate revocation lists, DER.
    pub crls: Vec<Vec<u8>>,
    /// The workload spec document; its SHA-256 must be HOST_DATA.
    pub workload_spec: Vec<u8>,
}
