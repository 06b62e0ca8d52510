//! What a verified report says, as a serializable view: the input of policies, `--json` and people.
//!
//! Names are stable. Byte strings are lower-case hex. A value that a report does not have is null, never zero.

use serde::ser::{SerializeMap as _, Serializer};

use crate::{
    Anchor, CrlStatus, ReportBinding, UnixTime,
    abi::{
        ChipId, Cpuid, FamilyId, HostData, ImageId, KeyDigest, Measurement, PlatformBit, PolicyBit, ProductLine,
        Report, ReportData, ReportId, ReportTcbs, SigningKey, SpkiDigest,
    },
    verify::VerifiedReport,
};

/// The view.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Claims {
    /// The anchor is none of AMD's pinned roots.
    pub simulated: bool,
    /// The root.
    pub anchor: Anchor,
    /// Product line, as certified.
    pub product: ProductLine,
    /// What the report says.
    pub report: ReportClaims,
    /// The four TCBs.
    pub tcb: ReportTcbs,
    /// What the leaf certifies beside the TCB.
    pub leaf: LeafClaims,
    /// What was done about revocation.
    pub crl: CrlStatus,
    /// First and last second at which the whole chain and the revocation list are valid.
    pub valid: Validity,
    /// What REPORT_DATA was shown to be.
    pub report_data_binding: ReportBinding,
    /// REPORT_DATA is a value the verifier demanded; false for the hash of an attachment, which shows nothing about when.
    pub report_data_bound: bool,
    /// The verifier's `now`.
    pub verified_at: UnixTime,
}

/// Fields of the report that read the same on every product.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReportClaims {
    /// Version of the report's layout.
    pub version: u32,
    /// The guest's own version, from its ID block.
    pub guest_svn: u32,
    /// POLICY, bit by bit.
    pub policy: PolicyClaims,
    /// Family of guests, from the ID block.
    pub family_id: FamilyId,
    /// Image of that family, from the ID block.
    pub image_id: ImageId,
    /// Privilege level that asked; 0 is the highest.
    pub vmpl: u32,
    /// PLATFORM_INFO, bit by bit.
    pub platform_info: PlatformClaims,
    /// The kind of key that signed.
    pub signing_key: SigningKey,
    /// What the guest asked to be signed.
    pub report_data: ReportData,
    /// Launch digest of guest memory.
    pub measurement: Measurement,
    /// What the host set at launch.
    pub host_data: HostData,
    /// ID_KEY_DIGEST; null without an ID block.
    pub id_key_digest: Option<KeyDigest>,
    /// AUTHOR_KEY_DIGEST; null without AUTHOR_KEY_EN.
    pub author_key_digest: Option<KeyDigest>,
    /// This guest instance.
    pub report_id: ReportId,
    /// REPORT_ID_MA; null without a migration agent.
    pub report_id_ma: Option<ReportId>,
    /// CHIP_ID; null if masked.
    pub chip_id: Option<ChipId>,
    /// CPUID words; null in version 2.
    pub cpuid: Option<Cpuid>,
    /// Firmware version running now.
    pub current_firmware: String,
    /// Firmware version committed.
    pub committed_firmware: String,
    /// LAUNCH_MIT_VECTOR; null below version 5.
    pub launch_mit_vector: Option<u64>,
    /// CURRENT_MIT_VECTOR; null below version 5.
    pub current_mit_vector: Option<u64>,
}

/// What the owner allowed at launch, bit by bit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PolicyClaims {
    /// The field, hexadecimal.
    pub raw: String,
    /// Least ABI major.
    pub abi_major: u8,
    /// Least ABI minor.
    pub abi_minor: u8,
    /// Named bits.
    #[serde(flatten)]
    pub bits: Bits<{ PolicyBit::ALL.len() }>,
}

/// The state of the platform, bit by bit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PlatformClaims {
    /// The field, hexadecimal.
    pub raw: String,
    /// Bits without a name, hexadecimal.
    pub unknown: String,
    /// Named bits.
    #[serde(flatten)]
    pub bits: Bits<{ PlatformBit::ALL.len() }>,
}

/// Named bits, by name: a map from each to whether it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits<const N: usize>([(&'static str, bool); N]);

impl<const N: usize> Bits<N> {
    fn of(mut bits: [(&'static str, bool); N]) -> Self {
        bits.sort_unstable();
        Self(bits)
    }
}

impl<const N: usize> serde::Serialize for Bits<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(N))?;
        self.0.iter().try_for_each(|(name, set)| map.serialize_entry(name, set))?;
        map.end()
    }
}

/// What the leaf certifies beside the TCB.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LeafClaims {
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_sha256: SpkiDigest,
    /// hwID; null for a VLEK.
    pub hwid: Option<String>,
    /// cspID; null for a VCEK.
    pub csp_id: Option<String>,
    /// notBefore of the leaf.
    pub valid_from: UnixTime,
    /// notAfter of the leaf.
    pub valid_to: UnixTime,
}

/// A span of time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Validity {
    /// Not before.
    pub from: UnixTime,
    /// Not after.
    pub to: UnixTime,
}

impl ReportClaims {
    /// The view of a report that nobody has verified.
    pub fn of(report: &Report) -> Self {
        let (policy, info) = (report.policy(), report.platform_info());
        let (abi_major, abi_minor) = policy.abi();
        let present = |digest: KeyDigest| (!digest.is_zero()).then_some(digest);
        let ma = report.report_id_ma();
        Self {
            version: report.version(),
            guest_svn: report.guest_svn(),
            policy: PolicyClaims {
                raw: policy.to_string(),
                abi_major,
                abi_minor,
                bits: Bits::of(PolicyBit::ALL.map(|bit| (bit.name(), policy.has(bit)))),
            },
            family_id: report.family_id(),
            image_id: report.image_id(),
            vmpl: report.vmpl(),
            platform_info: PlatformClaims {
                raw: info.to_string(),
                unknown: format!("{:#x}", info.unknown_bits()),
                bits: Bits::of(PlatformBit::ALL.map(|bit| (bit.name(), info.has(bit)))),
            },
            signing_key: report.signing_key(),
            report_data: report.report_data(),
            measurement: report.measurement(),
            host_data: report.host_data(),
            id_key_digest: present(report.id_key_digest()),
            author_key_digest: present(report.author_key_digest()).filter(|_| report.key_info().author_key_en),
            report_id: report.report_id(),
            report_id_ma: (ma.as_bytes() != &[0xff; 32]).then_some(ma),
            chip_id: Some(report.chip_id()).filter(|chip| !chip.is_zero()),
            cpuid: report.cpuid(),
            current_firmware: report.current_firmware().to_string(),
            committed_firmware: report.committed_firmware().to_string(),
            launch_mit_vector: report.launch_mit_vector(),
            current_mit_vector: report.current_mit_vector(),
        }
    }
}

impl VerifiedReport {
    /// The serializable view.
    pub fn claims(&self) -> Claims {
        let ((from, to), (valid_from, valid_to)) = (self.validity(), self.leaf_validity());
        Claims {
            simulated: self.simulated(),
            anchor: self.anchor(),
            product: self.product(),
            report: ReportClaims::of(self.report()),
            tcb: *self.tcbs(),
            leaf: LeafClaims {
                spki_sha256: self.leaf_spki(),
                hwid: self.leaf().hwid.as_ref().map(hex::encode),
                csp_id: self.leaf().csp_id.clone(),
                valid_from,
                valid_to,
            },
            crl: self.crl(),
            valid: Validity { from, to },
            report_data_binding: self.binding(),
            report_data_bound: self.is_bound(),
            verified_at: self.verified_at(),
        }
    }
}
