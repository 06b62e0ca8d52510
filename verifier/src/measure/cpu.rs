//! CPUID signatures, by QEMU's vCPU type names or by family, model and stepping.

use core::{fmt, str::FromStr};

/// CPUID Fn0000_0001 EAX of a vCPU, as its VMSA holds it in RDX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuSignature(pub u32);

/// Why a name is no vCPU type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vCPU type {name:?} is unknown; known are {}, or give the signature in hexadecimal", KNOWN.map(|(name, _)| name).join(", "))]
pub struct CpuError {
    /// What was given.
    pub name: String,
}

impl CpuSignature {
    /// From combined family, combined model and stepping.
    ///
    /// Source: AMD APM volume 3, CPUID Fn0000_0001_EAX.
    pub const fn from_family_model_stepping(family: u8, model: u8, stepping: u8) -> Self {
        let (family_low, family_extended) = if family > 0xf { (0xf, family - 0xf) } else { (family, 0) };
        let model = model as u32;
        Self(
            ((family_extended as u32) << 20)
                | ((model >> 4) << 16)
                | ((family_low as u32) << 8)
                | ((model & 0xf) << 4)
                | (stepping as u32 & 0xf),
        )
    }

    /// Combined family.
    pub const fn family(self) -> u8 {
        (((self.0 >> 8) & 0xf) + ((self.0 >> 20) & 0xff)) as u8
    }

    /// Combined model.
    pub const fn model(self) -> u8 {
        (((self.0 >> 4) & 0xf) | ((self.0 >> 12) & 0xf0)) as u8
    }

    /// Stepping.
    pub const fn stepping(self) -> u8 {
        (self.0 & 0xf) as u8
    }

    /// Names QEMU knows, without their version suffix.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|(name, _)| *name)
    }
}

impl FromStr for CpuSignature {
    type Err = CpuError;

    /// A QEMU vCPU type such as `EPYC-Milan` or `EPYC-Milan-v2`; versions of a type share its signature.
    fn from_str(name: &str) -> Result<Self, CpuError> {
        let base = match name.rsplit_once("-v") {
            Some((base, version)) if !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()) => base,
            _ => name,
        };
        KNOWN
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(base))
            .map(|(_, signature)| Self(*signature))
            .ok_or_else(|| CpuError { name: name.to_owned() })
    }
}

impl fmt::Display for CpuSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

const KNOWN: [(&str, u32); 6] = [
    ("EPYC", 0x0080_0f12),
    ("EPYC-IBPB", 0x0080_0f12),
    ("EPYC-Rome", 0x0083_0f10),
    ("EPYC-Milan", 0x00a0_0f11),
    ("EPYC-Genoa", 0x00a1_0f10),
    ("EPYC-Turin", 0x00b0_0f00),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_versions_and_numbers_agree() {
        let milan = CpuSignature::from_family_model_stepping(25, 1, 1);
        assert_eq!("EPYC-Milan".parse(), Ok(milan));
        assert_eq!("epyc-milan-v2".parse(), Ok(milan));
        assert_eq!(milan.to_string(), "00a00f11");
        assert_eq!((milan.family(), milan.model(), milan.stepping()), (25, 1, 1));
        assert_eq!("EPYC-Genoa".parse(), Ok(CpuSignature::from_family_model_stepping(25, 17, 0)));
        assert!("EPYC-Milan-vx".parse::<CpuSignature>().is_err());
        assert!("Skylake".parse::<CpuSignature>().unwrap_err().to_string().contains("EPYC-Turin"));
    }
}
