//! ATTESTATION_REPORT, versions 2 to 5: 1184 bytes, of which 0x000..0x2A0 are signed.
//!
//! The bytes are kept as received; fields are read from them. Reserved bytes must be zero, the unsigned tail included.
//! Source: SNP ABI 1.58, Table 23; offsets and traps in genuine reports.

use super::{
    ChipId, FamilyId, GuestPolicy, HostData, ImageId, KeyDigest, KeyInfo, KeyInfoError, Measurement, PlatformInfo,
    PolicyError, ProductLine, ReportData, ReportId, SigningKey, TcbError, TcbVersion,
};

/// Bytes of a report.
pub const REPORT_LEN: usize = 0x4a0;
/// Bytes of a report that its signature covers.
pub const SIGNED_LEN: usize = 0x2a0;
/// VMPL of a report the host asked for (SNP_HV_REPORT_REQ).
pub const VMPL_HOST: u32 = u32::MAX;

/// A well-formed report. Parsed; nobody believes it yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    bytes: Box<[u8; REPORT_LEN]>,
    policy: GuestPolicy,
    key_info: KeyInfo,
}

/// Combined CPUID family and model, and stepping, of the chip that reports (version 3 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Cpuid {
    /// Combined family, such as 0x19.
    pub family: u8,
    /// Combined model.
    pub model: u8,
    /// Stepping within the model.
    pub stepping: u8,
}

/// Version of the SNP firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirmwareVersion {
    /// First number.
    pub major: u8,
    /// Second number.
    pub minor: u8,
    /// Third number.
    pub build: u8,
}

impl core::fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// Why bytes are not a report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Wrong length.
    #[error("report is 1184 bytes, found {found}")]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// VERSION outside 2 to 5.
    #[error("report version {found} is not supported, expected 2 to 5")]
    Version {
        /// As the report states it.
        found: u32,
    },
    /// Bytes that must be zero are not.
    #[error("reserved bytes {at:#x}..{end:#x} of the report are not zero")]
    Reserved {
        /// First byte of the reserved range.
        at: usize,
        /// End of the range.
        end: usize,
    },
    /// What the guest's owner allowed at launch.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Which key signed, and whether an author vouches for the ID key.
    #[error(transparent)]
    KeyInfo(#[from] KeyInfoError),
    /// TCB_VERSION of a known product.
    #[error(transparent)]
    Tcb(#[from] TcbError),
    /// VMPL is neither 0 to 3 nor the host's.
    #[error("VMPL {found:#x} does not exist, expected 0 to 3")]
    Vmpl {
        /// As the report states it.
        found: u32,
    },
    /// SIGNATURE_ALGO other than ECDSA P-384 with SHA-384.
    #[error("signature algorithm {found:#x} is not supported, expected 1 (ECDSA P-384 with SHA-384)")]
    SignatureAlgo {
        /// As the report states it.
        found: u32,
    },
}

impl ReportError {
    /// What was found, and what a report has there.
    pub fn found_and_expected(&self) -> (String, &'static str) {
        match self {
            Self::Length { found } => (format!("{found} bytes"), "1184 bytes"),
            Self::Version { found } => (format!("version {found}"), "version 2 to 5"),
            Self::Vmpl { found } => (format!("VMPL {found:#x}"), "VMPL 0 to 3"),
            Self::SignatureAlgo { found } => {
                (format!("signature algorithm {found:#x}"), "algorithm 1 (ECDSA P-384 with SHA-384)")
            }
            Self::Reserved { .. } | Self::Policy(_) | Self::KeyInfo(_) | Self::Tcb(_) => {
                (self.to_string(), "a report in AMD's form")
            }
        }
    }
}

/// What reserved bytes are compared with.
const ZEROS: [u8; REPORT_LEN] = [0; REPORT_LEN];

impl Report {
    /// Parses 1184 bytes.
    ///
    /// # Errors
    /// [`ReportError`], the first defect met.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let fixed: &[u8; REPORT_LEN] = bytes.try_into().map_err(|_| ReportError::Length { found: bytes.len() })?;
        let version = u32_at(fixed, offset::VERSION);
        if !(2..=5).contains(&version) {
            return Err(ReportError::Version { found: version });
        }
        let algo = u32_at(fixed, offset::SIGNATURE_ALGO);
        if algo != 1 {
            return Err(ReportError::SignatureAlgo { found: algo });
        }
        let cpuid_end = if version == 2 { 0x188 } else { 0x18b };
        let vectors_end = if version < 5 { 0x1f8 } else { 0x208 };
        for (at, end) in [
            (0x4c, 0x50),
            (cpuid_end, 0x1a0),
            (0x1eb, 0x1ec),
            (0x1ef, 0x1f0),
            (vectors_end, SIGNED_LEN),
            (offset::R + 48, offset::S),
            (offset::S + 48, REPORT_LEN),
        ] {
            if fixed[at..end] != ZEROS[..end - at] {
                return Err(ReportError::Reserved { at, end });
            }
        }
        let vmpl = u32_at(fixed, offset::VMPL);
        if vmpl > 3 && vmpl != VMPL_HOST {
            return Err(ReportError::Vmpl { found: vmpl });
        }
        let policy = GuestPolicy::from_raw(u64_at(fixed, offset::POLICY))?;
        let key_info = KeyInfo::from_raw(u32_at(fixed, offset::KEY_INFO))?;
        let report = Self { bytes: Box::new(*fixed), policy, key_info };
        if let Some(product) = report.product() {
            report.tcbs(product)?;
        }
        Ok(report)
    }

    /// The bytes, as received.
    pub const fn as_bytes(&self) -> &[u8; REPORT_LEN] {
        &self.bytes
    }

    /// The bytes its signature covers.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.bytes[..SIGNED_LEN]
    }

    /// R and S as they stand: little-endian, 48 bytes each.
    pub fn signature(&self) -> ([u8; 48], [u8; 48]) {
        (self.array(offset::R), self.array(offset::S))
    }

    /// VERSION, 2 to 5.
    pub fn version(&self) -> u32 {
        u32_at(&self.bytes, offset::VERSION)
    }

    /// The guest's own version, from its ID block.
    pub fn guest_svn(&self) -> u32 {
        u32_at(&self.bytes, offset::GUEST_SVN)
    }

    /// What the guest's owner allowed at launch.
    pub const fn policy(&self) -> GuestPolicy {
        self.policy
    }

    /// Family of guests, from the ID block; zero without one.
    pub fn family_id(&self) -> FamilyId {
        FamilyId::new(self.array(offset::FAMILY_ID))
    }

    /// Image of that family, from the ID block; zero without one.
    pub fn image_id(&self) -> ImageId {
        ImageId::new(self.array(offset::IMAGE_ID))
    }

    /// VMPL: 0 to 3, or [`VMPL_HOST`].
    pub fn vmpl(&self) -> u32 {
        u32_at(&self.bytes, offset::VMPL)
    }

    /// The state of the platform.
    pub fn platform_info(&self) -> PlatformInfo {
        PlatformInfo(u64_at(&self.bytes, offset::PLATFORM_INFO))
    }

    /// Which key signed, and whether an author vouches for the ID key.
    pub const fn key_info(&self) -> KeyInfo {
        self.key_info
    }

    /// Signing key stated by KEY_INFO.
    pub const fn signing_key(&self) -> SigningKey {
        self.key_info.signing_key
    }

    /// What the guest asked to be signed.
    pub fn report_data(&self) -> ReportData {
        ReportData::new(self.array(offset::REPORT_DATA))
    }

    /// Launch digest of guest memory.
    pub fn measurement(&self) -> Measurement {
        Measurement::new(self.array(offset::MEASUREMENT))
    }

    /// What the host set at launch.
    pub fn host_data(&self) -> HostData {
        HostData::new(self.array(offset::HOST_DATA))
    }

    /// ID_KEY_DIGEST; zero without an ID block.
    pub fn id_key_digest(&self) -> KeyDigest {
        KeyDigest::new(self.array(offset::ID_KEY_DIGEST))
    }

    /// AUTHOR_KEY_DIGEST; means something only with [`KeyInfo::author_key_en`].
    pub fn author_key_digest(&self) -> KeyDigest {
        KeyDigest::new(self.array(offset::AUTHOR_KEY_DIGEST))
    }

    /// This guest instance.
    pub fn report_id(&self) -> ReportId {
        ReportId::new(self.array(offset::REPORT_ID))
    }

    /// REPORT_ID_MA; all FF without a migration agent.
    pub fn report_id_ma(&self) -> ReportId {
        ReportId::new(self.array(offset::REPORT_ID_MA))
    }

    /// CHIP_ID; zero if masked.
    pub fn chip_id(&self) -> ChipId {
        ChipId::new(self.array(offset::CHIP_ID))
    }

    /// CPUID words; version 2 has none.
    pub fn cpuid(&self) -> Option<Cpuid> {
        let [family, model, stepping] = self.array(offset::CPUID);
        (self.version() >= 3).then_some(Cpuid { family, model, stepping })
    }

    /// Product line by CPUID; none for version 2 and for processors we have no root for.
    pub fn product(&self) -> Option<ProductLine> {
        self.cpuid().and_then(|cpu| ProductLine::from_cpuid(cpu.family, cpu.model))
    }

    /// The four TCB_VERSION fields, read with the layout of `product`.
    ///
    /// # Errors
    /// [`TcbError`] if reserved bytes are not zero.
    pub fn tcbs(&self, product: ProductLine) -> Result<ReportTcbs, TcbError> {
        let layout = product.tcb_layout();
        let at = |offset| TcbVersion::from_raw(u64_at(&self.bytes, offset), layout);
        Ok(ReportTcbs {
            current: at(offset::CURRENT_TCB)?,
            reported: at(offset::REPORTED_TCB)?,
            committed: at(offset::COMMITTED_TCB)?,
            launch: at(offset::LAUNCH_TCB)?,
        })
    }

    /// REPORTED_TCB, the raw field: the TCB the signing key is certified for.
    pub fn reported_tcb_raw(&self) -> u64 {
        u64_at(&self.bytes, offset::REPORTED_TCB)
    }

    /// COMMITTED_TCB, the raw field.
    pub fn committed_tcb_raw(&self) -> u64 {
        u64_at(&self.bytes, offset::COMMITTED_TCB)
    }

    /// Firmware running now.
    pub fn current_firmware(&self) -> FirmwareVersion {
        let [build, minor, major] = self.array(offset::CURRENT_VERSION);
        FirmwareVersion { major, minor, build }
    }

    /// Firmware the platform cannot go below.
    pub fn committed_firmware(&self) -> FirmwareVersion {
        let [build, minor, major] = self.array(offset::COMMITTED_VERSION);
        FirmwareVersion { major, minor, build }
    }

    /// LAUNCH_MIT_VECTOR; absent, not zero, below version 5.
    pub fn launch_mit_vector(&self) -> Option<u64> {
        (self.version() >= 5).then(|| u64_at(&self.bytes, offset::LAUNCH_MIT_VECTOR))
    }

    /// CURRENT_MIT_VECTOR; absent, not zero, below version 5.
    pub fn current_mit_vector(&self) -> Option<u64> {
        (self.version() >= 5).then(|| u64_at(&self.bytes, offset::CURRENT_MIT_VECTOR))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        array_at(&self.bytes, at)
    }
}

impl core::fmt::Debug for Report {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Report")
            .field("version", &self.version())
            .field("measurement", &self.measurement())
            .finish_non_exhaustive()
    }
}

/// The four TCB_VERSION fields of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReportTcbs {
    /// Running now; the firmware's own word.
    pub current: TcbVersion,
    /// What the signing key is derived from and certified for.
    pub reported: TcbVersion,
    /// Floor of the platform.
    pub committed: TcbVersion,
    /// Current at launch or import.
    pub launch: TcbVersion,
}

/// Byte offsets of the fields.
pub mod offset {
    #![allow(missing_docs)]
    pub const VERSION: usize = 0x000;
    pub const GUEST_SVN: usize = 0x004;
    pub const POLICY: usize = 0x008;
    pub const FAMILY_ID: usize = 0x010;
    pub const IMAGE_ID: usize = 0x020;
    pub const VMPL: usize = 0x030;
    pub const SIGNATURE_ALGO: usize = 0x034;
    pub const CURRENT_TCB: usize = 0x038;
    pub const PLATFORM_INFO: usize = 0x040;
    pub const KEY_INFO: usize = 0x048;
    pub const REPORT_DATA: usize = 0x050;
    pub const MEASUREMENT: usize = 0x090;
    pub const HOST_DATA: usize = 0x0c0;
    pub const ID_KEY_DIGEST: usize = 0x0e0;
    pub const AUTHOR_KEY_DIGEST: usize = 0x110;
    pub const REPORT_ID: usize = 0x140;
    pub const REPORT_ID_MA: usize = 0x160;
    pub const REPORTED_TCB: usize = 0x180;
    pub const CPUID: usize = 0x188;
    pub const CHIP_ID: usize = 0x1a0;
    pub const COMMITTED_TCB: usize = 0x1e0;
    pub const CURRENT_VERSION: usize = 0x1e8;
    pub const COMMITTED_VERSION: usize = 0x1ec;
    pub const LAUNCH_TCB: usize = 0x1f0;
    pub const LAUNCH_MIT_VECTOR: usize = 0x1f8;
    pub const CURRENT_MIT_VECTOR: usize = 0x200;
    pub const R: usize = 0x2a0;
    pub const S: usize = 0x2e8;
}

/// `N` bytes at an offset of the table above.
fn array_at<const N: usize>(bytes: &[u8; REPORT_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u32_at(bytes: &[u8; REPORT_LEN], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8; REPORT_LEN], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
