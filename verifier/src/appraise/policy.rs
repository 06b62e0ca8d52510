//! What an operator demands of evidence, typed. Every waiver has a name; nothing is skipped by absence.

use super::age::MaxAge;
use crate::abi::{
    ChipId, FamilyId, GuestPolicy, HostData, ImageId, KeyDigest, Measurement, PlatformBit, PlatformInfo, PolicyBit,
    ProductLine, Report,
};

/// Which values are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accept<T> {
    /// Waives the check.
    Any,
    /// These and no other; an empty list accepts nothing, and a zero digest never matches.
    Only(Vec<T>),
}

/// One bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BitRule {
    /// Either value will do.
    #[default]
    Any,
    /// Must be one.
    Required,
    /// Must be zero.
    Forbidden,
}

/// Rules on POLICY, one per bit of [`PolicyBit::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRules(pub(super) [BitRule; 9]);

impl PolicyRules {
    /// Rule for one bit.
    pub fn rule(&self, bit: PolicyBit) -> BitRule {
        PolicyBit::ALL.iter().position(|known| *known == bit).map_or(BitRule::Any, |index| self.0[index])
    }

    /// With another rule for one bit.
    #[must_use]
    pub fn with(mut self, bit: PolicyBit, rule: BitRule) -> Self {
        if let Some(index) = PolicyBit::ALL.iter().position(|known| *known == bit) {
            self.0[index] = rule;
        }
        self
    }

    pub(super) fn broken(&self, policy: GuestPolicy) -> impl Iterator<Item = (PolicyBit, BitRule)> {
        PolicyBit::ALL.into_iter().zip(self.0).filter(move |(bit, rule)| !rule.admits(policy.has(*bit)))
    }
}

/// Rules on PLATFORM_INFO, one per bit of [`PlatformBit::ALL`], and on bits without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformRules {
    pub(super) bits: [BitRule; 8],
    /// Bits this verifier has no name for.
    pub unknown: BitRule,
}

impl PlatformRules {
    /// Rule for one bit.
    pub const fn rule(&self, bit: PlatformBit) -> BitRule {
        self.bits[bit as usize]
    }

    /// With another rule for one bit.
    #[must_use]
    pub const fn with(mut self, bit: PlatformBit, rule: BitRule) -> Self {
        self.bits[bit as usize] = rule;
        self
    }

    pub(super) fn broken(&self, info: PlatformInfo) -> impl Iterator<Item = (PlatformBit, BitRule)> {
        PlatformBit::ALL.into_iter().zip(self.bits).filter(move |(bit, rule)| !rule.admits(info.has(*bit)))
    }
}

impl BitRule {
    /// True if the bit may have this value.
    pub const fn admits(self, set: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Required => set,
            Self::Forbidden => !set,
        }
    }
}

/// Which chips may report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chips {
    /// Chips accepted; a masked CHIP_ID matches no list.
    pub allow: Accept<ChipId>,
    /// Chips refused, whatever `allow` says. With entries here a masked CHIP_ID is refused, for it may hide one.
    pub deny: Vec<ChipId>,
}

/// Least levels of one TCB_VERSION; a part left out is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbRule {
    /// FMC; Turin only.
    #[serde(default)]
    pub fmc: u8,
    /// Boot loader.
    #[serde(default)]
    pub bootloader: u8,
    /// Security patch level of the TEE firmware.
    #[serde(default)]
    pub tee: u8,
    /// SNP firmware.
    #[serde(default)]
    pub snp: u8,
    /// Security patch level of the microcode.
    #[serde(default)]
    pub microcode: u8,
}

/// Minimum TCB of some chips. Microcode levels compare only within one model and stepping, so entries that set one
/// should name both.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbMinimum {
    /// Product line.
    pub product: ProductLine,
    /// Combined model; every model where left out.
    pub model: Option<u8>,
    /// Stepping; every stepping where left out.
    pub stepping: Option<u8>,
    /// On REPORTED_TCB, which AMD certifies.
    pub reported: TcbRule,
    /// On COMMITTED_TCB, below which the platform cannot go back.
    pub committed: Option<TcbRule>,
    /// On LAUNCH_TCB.
    pub launch: Option<TcbRule>,
    /// Where the numbers come from.
    #[serde(default)]
    pub source: String,
}

/// Provisional firmware: committed below current, so the platform may still go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareRule {
    /// It may run.
    #[default]
    Accepted,
    /// COMMITTED_TCB and version must equal the current ones.
    Refused,
}

/// A platform that was admitted for one workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Launch digest of guest memory.
    pub measurement: Measurement,
    /// What the host set at launch: here the digest of the workload spec.
    pub host_data: HostData,
}

/// An author whose signed launches are admitted, so that a rule outlives an upgrade of platform or workload.
///
/// The author's signature covers MEASUREMENT, FAMILY_ID, IMAGE_ID, GUEST_SVN and POLICY, and the secure processor let the
/// guest start only because it fits. HOST_DATA is not covered: the host chooses it. It still names the workload, since
/// the measured command line states the workload digest and our measured init ends the guest where HOST_DATA states
/// another. So an author key vouches for platforms that do so: it must sign measurements of Coffer's platform alone, and
/// whoever cannot say that of an author lists (measurement, workload) pairs or signed manifests instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerRule {
    /// AUTHOR_KEY_DIGEST; counts only with AUTHOR_KEY_EN, and zero matches nothing.
    pub author_key: KeyDigest,
    /// The family the author names.
    pub family_id: FamilyId,
    /// The image the author names.
    pub image_id: ImageId,
    /// Least GUEST_SVN.
    pub minimum_guest_svn: u32,
}

impl SignerRule {
    /// True if the author signed this launch, under these names, at this version or a later one.
    pub fn admits(&self, report: &Report) -> bool {
        report.key_info().author_key_en
            && !self.author_key.is_zero()
            && !report.measurement().is_zero()
            && !report.host_data().is_zero()
            && report.author_key_digest() == self.author_key
            && report.family_id() == self.family_id
            && report.image_id() == self.image_id
            && report.guest_svn() >= self.minimum_guest_svn
    }
}

/// Appraisal policy for evidence: the typed floor. Which roots are accepted is not here but in
/// [`crate::TrustAnchors`], so no policy can admit simulated evidence by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidencePolicy {
    /// Product lines.
    pub products: Accept<ProductLine>,
    /// Product lines refused, whatever `products` says.
    pub denied_products: Vec<ProductLine>,
    /// Which chips may report.
    pub chips: Chips,
    /// VMPLs of the requester.
    pub vmpls: Vec<u32>,
    /// Bits of POLICY, which the owner fixed at launch.
    pub guest_policy: PolicyRules,
    /// Least ABI version POLICY must demand: major, minor.
    pub minimum_abi: (u8, u8),
    /// Bits of PLATFORM_INFO, the state of the host.
    pub platform: PlatformRules,
    /// Minimum TCBs. `Any` waives them; `Only` refuses chips without an entry, and applies every entry that matches.
    pub tcb: Accept<TcbMinimum>,
    /// Provisional firmware.
    pub provisional_firmware: FirmwareRule,
    /// Bits LAUNCH_MIT_VECTOR must have. Not zero refuses reports below version 5.
    pub launch_mitigations: u64,
    /// Bits CURRENT_MIT_VECTOR must have. Not zero refuses reports below version 5.
    pub current_mitigations: u64,
    /// Least GUEST_SVN.
    pub minimum_guest_svn: u32,
    /// Age of the revocation list.
    pub max_crl_age: MaxAge,
    /// Age of the reference manifest that admits a guest, for whoever holds manifests: a key broker.
    pub max_manifest_age: MaxAge,
    /// Age of the signature of Rego that is asked behind these rules, for whoever asks Rego.
    pub max_policy_age: MaxAge,
    /// Launch digest of guest memory.
    pub measurements: Accept<Measurement>,
    /// HOST_DATA. It proves nothing alone: the host chooses it.
    pub host_data: Accept<HostData>,
    /// MEASUREMENT together with HOST_DATA.
    pub pairs: Accept<Pair>,
    /// Authors whose signed launches need no listed pair. Empty: none.
    pub signers: Vec<SignerRule>,
    /// Keys that may have signed the ID block.
    pub id_keys: Accept<KeyDigest>,
    /// AUTHOR_KEY_DIGEST, which counts only with AUTHOR_KEY_EN.
    pub author_keys: Accept<KeyDigest>,
}

impl EvidencePolicy {
    /// What holds without a policy file: VMPL 0, no debug, no migration agent. Everything else is waived by name, the
    /// measurement included: it says that a genuine guest reports, not which.
    pub fn default_floor() -> Self {
        Self {
            products: Accept::Any,
            denied_products: Vec::new(),
            chips: Chips { allow: Accept::Any, deny: Vec::new() },
            vmpls: vec![0],
            guest_policy: PolicyRules([BitRule::Any; 9])
                .with(PolicyBit::Debug, BitRule::Forbidden)
                .with(PolicyBit::MigrateMa, BitRule::Forbidden),
            minimum_abi: (0, 0),
            platform: PlatformRules { bits: [BitRule::Any; 8], unknown: BitRule::Any },
            tcb: Accept::Any,
            provisional_firmware: FirmwareRule::Accepted,
            launch_mitigations: 0,
            current_mitigations: 0,
            minimum_guest_svn: 0,
            max_crl_age: MaxAge::Any,
            max_manifest_age: MaxAge::Any,
            max_policy_age: MaxAge::Any,
            measurements: Accept::Any,
            host_data: Accept::Any,
            pairs: Accept::Any,
            signers: Vec::new(),
            id_keys: Accept::Any,
            author_keys: Accept::Any,
        }
    }

    /// Keys by which this policy accepts what [`Self::default_floor`] refuses. Where a policy may only narrow, it has none.
    pub fn wider_than_floor(&self) -> Vec<String> {
        let floor = Self::default_floor();
        let bits = PolicyBit::ALL.into_iter().filter(|bit| {
            let (own, rule) = (self.guest_policy.rule(*bit), floor.guest_policy.rule(*bit));
            [false, true].into_iter().any(|set| own.admits(set) && !rule.admits(set))
        });
        let vmpls = self.vmpls.iter().any(|vmpl| !floor.vmpls.contains(vmpl));
        let mut keys: Vec<String> = bits.map(|bit| format!("guest_policy.{}", bit.name())).collect();
        keys.extend(vmpls.then(|| "vmpls".to_owned()));
        keys
    }

    /// Accepts these launch digests only.
    #[must_use]
    pub fn with_measurements(mut self, accepted: Vec<Measurement>) -> Self {
        self.measurements = Accept::Only(accepted);
        self
    }

    /// Accepts this HOST_DATA only.
    #[must_use]
    pub fn with_host_data(mut self, accepted: Vec<HostData>) -> Self {
        self.host_data = Accept::Only(accepted);
        self
    }

    /// Accepts these pairs of launch digest and HOST_DATA only.
    #[must_use]
    pub fn with_pairs(mut self, accepted: Vec<Pair>) -> Self {
        self.pairs = Accept::Only(accepted);
        self
    }
    /// Accepts, beside the pairs, what one of these authors signed.
    #[must_use]
    pub fn with_signers(mut self, accepted: Vec<SignerRule>) -> Self {
        self.signers = accepted;
        self
    }
}
