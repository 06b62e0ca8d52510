//! What a guest asks of its secure processor, whoever answers: `/dev/sev-guest`, or the simulator behind a vsock line.
//!
//! Source: SNP ABI, MSG_REPORT_REQ and MSG_KEY_REQ.

use secrecy::{ExposeSecret, SecretBox};

use super::ReportData;

/// Which endorsement key signs (`KEY_SEL`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeySelect {
    /// VLEK if one is installed, else VCEK.
    #[default]
    VlekOrVcek,
    /// Always the VCEK.
    Vcek,
    /// Always the VLEK.
    Vlek,
}

/// MSG_REPORT_REQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRequest {
    /// REPORT_DATA, 64 bytes.
    pub report_data: ReportData,
    /// VMPL to state, 0 to 3, not below the caller's.
    pub vmpl: u32,
    /// Signing key.
    pub key: KeySelect,
}

impl ReportRequest {
    /// A report at VMPL 0 under the default key.
    pub const fn new(report_data: ReportData) -> Self {
        Self { report_data, vmpl: 0, key: KeySelect::VlekOrVcek }
    }
}

/// Root of a derived key (`ROOT_KEY_SELECT`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootKey {
    /// VCEK or VLEK, as `KEY_SEL` says.
    #[default]
    Vcek,
    /// The migration agent's root.
    Vmrk,
}

/// GUEST_FIELD_SELECT: what is mixed into a derived key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestFieldSelect(pub u64);

impl GuestFieldSelect {
    /// Guest policy.
    pub const POLICY: u64 = 1;
    /// Image id.
    pub const IMAGE_ID: u64 = 1 << 1;
    /// Family id.
    pub const FAMILY_ID: u64 = 1 << 2;
    /// Launch digest.
    pub const MEASUREMENT: u64 = 1 << 3;
    /// Guest SVN.
    pub const GUEST_SVN: u64 = 1 << 4;
    /// TCB version.
    pub const TCB_VERSION: u64 = 1 << 5;
    /// Launch mitigation vector.
    pub const LAUNCH_MIT_VECTOR: u64 = 1 << 6;
    /// All defined bits.
    pub const DEFINED: u64 = 0x7f;
}

/// MSG_KEY_REQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    /// Root key.
    pub root: RootKey,
    /// Signing key family of the root.
    pub key: KeySelect,
    /// What is mixed in.
    pub fields: GuestFieldSelect,
    /// VMPL to mix in, not below the caller's.
    pub vmpl: u32,
    /// Guest SVN to mix in, not above the guest's.
    pub guest_svn: u32,
    /// TCB_VERSION to mix in, each part not above the committed one; raw little-endian field.
    pub tcb_version: u64,
    /// LAUNCH_MIT_VECTOR to mix in (message version 2).
    pub launch_mit_vector: u64,
}

/// A report with what the host sent beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedReport {
    /// ATTESTATION_REPORT, 1184 bytes, verbatim.
    pub report: Vec<u8>,
    /// Certificate table of the extended request, host supplied, maybe empty.
    pub cert_table: Vec<u8>,
}

/// Key derived for this guest (MSG_KEY_RSP): 32 bytes, wiped on drop, never printed.
pub struct DerivedKey(SecretBox<[u8; 32]>);

impl DerivedKey {
    /// Takes the bytes over.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// The bytes, for the narrowest block that needs them.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

/// Why the secure processor did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessorError {
    /// Firmware status other than success.
    #[error("secure processor answered status {status:#x} to {request}")]
    Status {
        /// Message name.
        request: &'static str,
        /// STATUS field.
        status: u32,
    },
    /// The VMM refused the request (EXITINFO2 high half).
    #[error("host refused the guest request with code {code:#x}")]
    Host {
        /// VMM error code.
        code: u32,
    },
    /// The answer is not what was asked for: wrong length, sequence, type or tag.
    #[error("secure processor answer is malformed: {what}")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// The line to the secure processor broke.
    #[error("no line to the secure processor: {0}")]
    Line(String),
}

/// The secure processor as its guest sees it.
pub trait SecureProcessor: Send {
    /// MSG_REPORT_REQ, as an extended request.
    ///
    /// # Errors
    /// [`ProcessorError`]; nothing was signed.
    fn report(&mut self, request: &ReportRequest) -> Result<ExtendedReport, ProcessorError>;

    /// MSG_KEY_REQ.
    ///
    /// # Errors
    /// [`ProcessorError`]; no key was derived.
    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, ProcessorError>;
}
