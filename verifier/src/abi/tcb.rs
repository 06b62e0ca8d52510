//! TCB_VERSION: security patch levels, compared part by part and never as one integer.
//!
//! Source: SNP ABI, TCB_VERSION (Table "Structure of the TCB_VERSION", both layouts).

use core::fmt;

use super::TcbLayout;

/// Security patch levels of one platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct TcbVersion {
    /// FMC; present on Turin and later, and only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
    /// Boot loader.
    pub bootloader: u8,
    /// Security patch level of the TEE firmware.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode; comparable only within one model and stepping.
    pub microcode: u8,
}

/// Reserved bytes of a TCB_VERSION are not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TCB_VERSION {raw:#018x} has reserved bytes that are not zero")]
pub struct TcbError {
    /// The field.
    pub raw: u64,
}

impl TcbVersion {
    /// Reads the field; `raw` is its little-endian value.
    ///
    /// # Errors
    /// [`TcbError`] if a reserved byte is not zero.
    pub const fn from_raw(raw: u64, layout: TcbLayout) -> Result<Self, TcbError> {
        let b = raw.to_le_bytes();
        match layout {
            TcbLayout::BootLoaderFirst if b[2] | b[3] | b[4] | b[5] == 0 => {
                Ok(Self { fmc: None, bootloader: b[0], tee: b[1], snp: b[6], microcode: b[7] })
            }
            TcbLayout::FmcFirst if b[4] | b[5] | b[6] == 0 => {
                Ok(Self { fmc: Some(b[0]), bootloader: b[1], tee: b[2], snp: b[3], microcode: b[7] })
            }
            TcbLayout::BootLoaderFirst | TcbLayout::FmcFirst => Err(TcbError { raw }),
        }
    }

    /// The field these levels are written as.
    pub const fn to_raw(self) -> u64 {
        let bytes = match self.fmc {
            None => [self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode],
            Some(fmc) => [fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode],
        };
        u64::from_le_bytes(bytes)
    }

    /// True if every part is at least that of `floor`. An FMC level the floor names must be there.
    pub const fn at_least(self, floor: Self) -> bool {
        let fmc = match (self.fmc, floor.fmc) {
            (_, None) => true,
            (Some(found), Some(least)) => found >= least,
            (None, Some(_)) => false,
        };
        fmc && self.bootloader >= floor.bootloader
            && self.tee >= floor.tee
            && self.snp >= floor.snp
            && self.microcode >= floor.microcode
    }
}

impl fmt::Display for TcbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc:#04x} ")?;
        }
        let Self { bootloader, tee, snp, microcode, .. } = self;
        write!(f, "bl {bootloader:#04x} tee {tee:#04x} snp {snp:#04x} ucode {microcode:#04x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_it_reads_in_both_layouts() {
        for (raw, layout) in
            [(0xdb18_0000_0000_0004, TcbLayout::BootLoaderFirst), (0x5100_0000_0401_0101, TcbLayout::FmcFirst)]
        {
            assert_eq!(TcbVersion::from_raw(raw, layout).unwrap().to_raw(), raw);
        }
    }

    #[test]
    fn refuses_reserved_bytes() {
        for byte in 2..6 {
            let raw = 1_u64 << (byte * 8);
            assert_eq!(TcbVersion::from_raw(raw, TcbLayout::BootLoaderFirst), Err(TcbError { raw }));
        }
        for byte in 4..7 {
            let raw = 1_u64 << (byte * 8);
            assert_eq!(TcbVersion::from_raw(raw, TcbLayout::FmcFirst), Err(TcbError { raw }));
        }
    }

    #[test]
    fn compares_part_by_part() {
        let low = TcbVersion { fmc: None, bootloader: 4, tee: 0, snp: 0x18, microcode: 0xdb };
        let mixed = TcbVersion { snp: 0x17, microcode: 0xff, ..low };
        assert!(low.at_least(low));
        assert!(!mixed.at_least(low), "one higher part never makes up for a lower one");
        assert!(!low.at_least(TcbVersion { fmc: Some(0), ..low }));
        let fmc = |level| TcbVersion { fmc: Some(level), ..low };
        assert!(fmc(2).at_least(fmc(2)) && !fmc(1).at_least(fmc(2)));
    }
}
