//! AMD's product lines: which root certifies a chip, and how its TCB_VERSION is laid out.
//!
//! Source: AMD 57230 §2 (product names of the KDS), SNP ABI, CPUID_FAM_ID and CPUID_MOD_ID of the report.

use core::{fmt, str::FromStr};

/// A product line with a root of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum ProductLine {
    /// Family 19h, models 00h to 0Fh.
    Milan,
    /// Family 19h, models 10h to 1Fh, and A0h to AFh (Bergamo, Siena).
    Genoa,
    /// Family 1Ah, models 00h to 11h.
    Turin,
}

/// How the eight bytes of a TCB_VERSION are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcbLayout {
    /// Milan and Genoa: boot loader first.
    BootLoaderFirst,
    /// Turin: FMC first.
    FmcFirst,
}

impl ProductLine {
    /// All lines with a published root.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// From combined family and combined model, as a report of version 3 states them.
    pub const fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }

    /// The name in the KDS and in certificates.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// Reading of its TCB_VERSION.
    pub const fn tcb_layout(self) -> TcbLayout {
        match self {
            Self::Milan | Self::Genoa => TcbLayout::BootLoaderFirst,
            Self::Turin => TcbLayout::FmcFirst,
        }
    }

    /// Bytes of CHIP_ID that name the chip; the rest of the field is zero.
    pub const fn hwid_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

impl fmt::Display for ProductLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a product line we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown product line; known are Milan, Genoa and Turin")]
pub struct UnknownProduct;

impl FromStr for ProductLine {
    type Err = UnknownProduct;
    fn from_str(text: &str) -> Result<Self, UnknownProduct> {
        Self::ALL.into_iter().find(|line| line.name().eq_ignore_ascii_case(text)).ok_or(UnknownProduct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siena_and_bergamo_are_genoa() {
        assert_eq!(ProductLine::from_cpuid(0x19, 0xa0), Some(ProductLine::Genoa));
        assert_eq!(ProductLine::from_cpuid(0x19, 0x01), Some(ProductLine::Milan));
        assert_eq!(ProductLine::from_cpuid(0x1a, 0x11), Some(ProductLine::Turin));
        assert_eq!(ProductLine::from_cpuid(0x1a, 0x12), None);
        assert_eq!(ProductLine::from_cpuid(0x1a, 0x50), None);
        for model in [0x20, 0x9f, 0xb0] {
            assert_eq!(ProductLine::from_cpuid(0x19, model), None, "{model:#x}");
        }
        assert_eq!(ProductLine::from_cpuid(0x17, 0x31), None);
    }
}
