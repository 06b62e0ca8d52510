//! Bit fields of the report: POLICY, PLATFORM_INFO, KEY_INFO.
//!
//! Source: SNP ABI, "Guest Policy Structure", ATTESTATION_REPORT.

use core::fmt;

/// POLICY: what the guest's owner allowed at launch. Private bits are defined by [`PolicyBit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestPolicy(u64);

/// A named bit of POLICY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PolicyBit {
    /// SMT allowed.
    Smt = 16,
    /// A migration agent may be associated.
    MigrateMa = 18,
    /// Debugging allowed.
    Debug = 19,
    /// Runs on a single socket only.
    SingleSocket = 20,
    /// CXL devices may be populated.
    CxlAllow = 21,
    /// AES-256-XTS memory encryption demanded.
    MemAes256Xts = 22,
    /// RAPL must be disabled.
    RaplDis = 23,
    /// Ciphertext hiding demanded.
    CiphertextHiding = 24,
    /// Page swap disabled (SNP ABI 1.58).
    PageSwapDisable = 25,
}

impl PolicyBit {
    /// All named bits, lowest first.
    pub const ALL: [Self; 9] = [
        Self::Smt,
        Self::MigrateMa,
        Self::Debug,
        Self::SingleSocket,
        Self::CxlAllow,
        Self::MemAes256Xts,
        Self::RaplDis,
        Self::CiphertextHiding,
        Self::PageSwapDisable,
    ];

    /// Its name in policies and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Smt => "smt",
            Self::MigrateMa => "migrate_ma",
            Self::Debug => "debug",
            Self::SingleSocket => "single_socket",
            Self::CxlAllow => "cxl_allow",
            Self::MemAes256Xts => "mem_aes_256_xts",
            Self::RaplDis => "rapl_dis",
            Self::CiphertextHiding => "ciphertext_hiding",
            Self::PageSwapDisable => "page_swap_disable",
        }
    }
}

/// POLICY has a reserved bit set, or the bit that must be one is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("POLICY {0:#x} breaks the reserved bits (17 must be one, 63:26 zero)")]
pub struct PolicyError(pub u64);

impl GuestPolicy {
    /// Bit 17, which must be one.
    const MUST_BE_ONE: u64 = 1 << 17;
    /// Bits 63:26.
    const RESERVED: u64 = !0 << 26;

    /// Reads the field.
    ///
    /// # Errors
    /// [`PolicyError`] if reserved bits are not as the specification demands.
    pub const fn from_raw(raw: u64) -> Result<Self, PolicyError> {
        if raw & Self::RESERVED != 0 || raw & Self::MUST_BE_ONE == 0 { Err(PolicyError(raw)) } else { Ok(Self(raw)) }
    }

    /// The field.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// True if the bit is set.
    pub const fn has(self, bit: PolicyBit) -> bool {
        self.0 >> bit as u8 & 1 == 1
    }

    /// True if the host may read and write guest memory through the debug interface.
    pub const fn debug(self) -> bool {
        self.has(PolicyBit::Debug)
    }

    /// True if a migration agent may be associated.
    pub const fn migrate_ma(self) -> bool {
        self.has(PolicyBit::MigrateMa)
    }

    /// Least ABI version the guest runs under: major, minor.
    pub const fn abi(self) -> (u8, u8) {
        ((self.0 >> 8) as u8, self.0 as u8)
    }
}

impl fmt::Display for GuestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// PLATFORM_INFO: the state of the platform that made the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlatformInfo(pub u64);

/// A named bit of PLATFORM_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PlatformBit {
    /// SMT is on.
    Smt = 0,
    /// Transparent SME is on.
    Tsme = 1,
    /// ECC memory is in use.
    Ecc = 2,
    /// RAPL is disabled.
    RaplDisabled = 3,
    /// Ciphertext hiding is on.
    CiphertextHiding = 4,
    /// Alias check done since the last reset (AMD-SB-3015).
    AliasCheckComplete = 5,
    /// IOMMU write buffer safe (AMD-SB-3016).
    IommuWriteSafe = 6,
    /// Trusted I/O is on.
    Tio = 7,
}

impl PlatformBit {
    /// All named bits, lowest first.
    pub const ALL: [Self; 8] = [
        Self::Smt,
        Self::Tsme,
        Self::Ecc,
        Self::RaplDisabled,
        Self::CiphertextHiding,
        Self::AliasCheckComplete,
        Self::IommuWriteSafe,
        Self::Tio,
    ];

    /// Its name in policies and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Smt => "smt",
            Self::Tsme => "tsme",
            Self::Ecc => "ecc",
            Self::RaplDisabled => "rapl_disabled",
            Self::CiphertextHiding => "ciphertext_hiding",
            Self::AliasCheckComplete => "alias_check_complete",
            Self::IommuWriteSafe => "iommu_write_safe",
            Self::Tio => "tio",
        }
    }
}

impl PlatformInfo {
    /// True if the bit is set.
    pub const fn has(self, bit: PlatformBit) -> bool {
        self.0 >> bit as u8 & 1 == 1
    }

    /// Bits this version of the verifier has no name for.
    pub const fn unknown_bits(self) -> u64 {
        self.0 & !0xff
    }
}

impl fmt::Display for PlatformInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Which endorsement key signed (SIGNING_KEY).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SigningKey {
    /// The chip's own key.
    Vcek,
    /// A key AMD issued to a cloud provider.
    Vlek,
    /// Not signed.
    None,
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
            Self::None => "none",
        })
    }
}

/// KEY_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// AUTHOR_KEY_DIGEST holds the digest of a key that signed the ID key.
    pub author_key_en: bool,
    /// The firmware writes zeros in place of a VCEK signature.
    pub mask_chip_key: bool,
    /// Signing key.
    pub signing_key: SigningKey,
}

/// KEY_INFO names a reserved signing key or has reserved bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("KEY_INFO {0:#x} has reserved bits or a reserved signing key")]
pub struct KeyInfoError(pub u32);

impl KeyInfo {
    /// Reads the field.
    ///
    /// # Errors
    /// [`KeyInfoError`] for signing keys 2 to 6 and bits 31:5.
    pub const fn from_raw(raw: u32) -> Result<Self, KeyInfoError> {
        let signing_key = match raw >> 2 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => SigningKey::None,
            _ => return Err(KeyInfoError(raw)),
        };
        Ok(Self { author_key_en: raw & 1 != 0, mask_chip_key: raw & 2 != 0, signing_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_refuses_reserved_bits() {
        assert!(GuestPolicy::from_raw(0x30000).is_ok());
        assert_eq!(GuestPolicy::from_raw(0x10000), Err(PolicyError(0x10000)));
        for bit in 26..64 {
            assert!(GuestPolicy::from_raw(0x30000 | 1 << bit).is_err(), "bit {bit}");
        }
        assert!(GuestPolicy::from_raw(0xb0000).unwrap().debug());
        assert!(!GuestPolicy::from_raw(0x3001f).unwrap().debug());
    }

    #[test]
    fn key_info_refuses_reserved_keys_and_bits() {
        for raw in 0..64_u32 {
            let known = matches!(raw >> 2, 0 | 1 | 7);
            assert_eq!(KeyInfo::from_raw(raw).is_ok(), known, "{raw:#x}");
        }
        assert!(KeyInfo::from_raw(1 << 31).is_err());
    }
}
