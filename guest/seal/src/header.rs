//! The header: everything the key depends on, and what unsealing must ask the secure processor for.
//!
//! Integers are big-endian; the TCB is the eight bytes of TCB_VERSION as the SNP ABI has them. Format: docs/sealing.md.

use sha2::{Digest, Sha256};

use crate::SealError;

/// Bytes of the encoded header.
pub const HEADER: usize = 8 + 2 + 1 + 1 + 1 + 3 + 4 + 8 + 32 + 32 + 16 + 8;
/// Plaintext bytes of a chunk.
pub const CHUNK: usize = 64 * 1024;

const MAGIC: &[u8; 8] = b"COFSEAL\0";
const VERSION: u16 = 1;
/// Where the root key came from: the secure processor.
const SOURCE_PROCESSOR: u8 = 1;
const PROCESSOR_AMD: u8 = 1;
const PROCESSOR_SIMULATED: u8 = 2;

/// Who can open what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SealPolicy {
    /// Same platform and workload, same chip.
    MeasurementAndChip = 1,
    /// Same chip, and whoever the key broker admits.
    Chip = 2,
    /// Any admitted chip with the same measurement.
    Measurement = 3,
    /// Any admitted platform that runs the same workload.
    Workload = 4,
    /// Upgrades by the same author.
    Signer = 5,
}

impl SealPolicy {
    /// The policy's name as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MeasurementAndChip => "measurement-and-chip",
            Self::Chip => "chip",
            Self::Measurement => "measurement",
            Self::Workload => "workload",
            Self::Signer => "signer",
        }
    }

    /// The secret its key is derived from, as key derivation names it.
    pub const fn source(self) -> &'static str {
        match self {
            Self::MeasurementAndChip => "psp",
            Self::Chip => "psp+kbs",
            Self::Measurement | Self::Workload | Self::Signer => "kbs",
        }
    }

    /// The policy of that name, if this release can seal under it.
    ///
    /// # Errors
    /// [`SealError::Policy`] for unknown names and for policies whose keys only a key broker has.
    pub fn available(name: &str) -> Result<Self, SealError> {
        if name == Self::MeasurementAndChip.name() {
            Ok(Self::MeasurementAndChip)
        } else {
            Err(SealError::Policy { policy: name.into() })
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::MeasurementAndChip, Self::Chip, Self::Measurement, Self::Workload, Self::Signer]
            .into_iter()
            .find(|policy| *policy as u8 == byte)
    }
}

/// Header of a sealed file. Every byte of it is authenticated with every chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who can open it.
    pub policy: SealPolicy,
    /// True if a simulated secure processor made the key.
    pub simulated: bool,
    /// COMMITTED_TCB at sealing, the raw little-endian field; unsealing asks for the key of this TCB.
    pub tcb: u64,
    /// SHA-256 of the caller's context.
    pub context: [u8; 32],
    /// Random salt.
    pub salt: [u8; 32],
    /// Counter at the key broker; zeros: none, so an older file can be put back.
    pub counter: [u8; 16],
    /// Generation under that counter.
    pub generation: u64,
}

impl Header {
    /// A header without a counter.
    pub fn new(policy: SealPolicy, simulated: bool, tcb: u64, context: &[u8], salt: [u8; 32]) -> Self {
        Self { policy, simulated, tcb, context: Sha256::digest(context).into(), salt, counter: [0; 16], generation: 0 }
    }

    /// True if this is the header of a file sealed under `context`.
    pub fn is_of_context(&self, context: &[u8]) -> bool {
        self.context == <[u8; 32]>::from(Sha256::digest(context))
    }

    /// Refuses a file of the simulator on hardware, and the reverse; neither would open.
    ///
    /// # Errors
    /// [`SealError::Processor`].
    pub fn check_processor(&self, simulated: bool) -> Result<(), SealError> {
        if self.simulated == simulated {
            Ok(())
        } else {
            Err(SealError::Processor { sealed_simulated: self.simulated })
        }
    }

    /// True if a counter outside keeps older files from being put back.
    pub fn rollback_protected(&self) -> bool {
        self.counter != [0; 16]
    }

    /// Reads the header of a sealed file. Believe it only after [`crate::unseal`] has succeeded.
    ///
    /// # Errors
    /// [`SealError::Format`], [`SealError::Version`].
    pub fn peek(sealed: &[u8]) -> Result<Self, SealError> {
        let format = |what| SealError::Format { what };
        let (bytes, _) = sealed.split_first_chunk::<HEADER>().ok_or(format("shorter than its header"))?;
        let mut rest = &bytes[..];
        if take::<8>(&mut rest) != *MAGIC {
            return Err(format("it does not start as one"));
        }
        let found = u16::from_be_bytes(take(&mut rest));
        if found != VERSION {
            return Err(SealError::Version { found, expected: VERSION });
        }
        let [policy] = take(&mut rest);
        let policy = SealPolicy::from_byte(policy).ok_or(format("unknown policy"))?;
        if take::<1>(&mut rest) != [SOURCE_PROCESSOR] {
            return Err(format("unknown key source"));
        }
        let simulated = match take(&mut rest) {
            [PROCESSOR_AMD] => false,
            [PROCESSOR_SIMULATED] => true,
            _ => return Err(format("unknown kind of secure processor")),
        };
        if take::<3>(&mut rest) != [0; 3] {
            return Err(format("reserved bytes are not zero"));
        }
        if u32::from_be_bytes(take(&mut rest)) as usize != CHUNK {
            return Err(format("unknown chunk size"));
        }
        let header = Self {
            policy,
            simulated,
            tcb: u64::from_le_bytes(take(&mut rest)),
            context: take(&mut rest),
            salt: take(&mut rest),
            counter: take(&mut rest),
            generation: u64::from_be_bytes(take(&mut rest)),
        };
        if header.generation != 0 && !header.rollback_protected() {
            return Err(format("a generation without a counter"));
        }
        Ok(header)
    }

    /// The encoded header.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        let processor = if self.simulated { PROCESSOR_SIMULATED } else { PROCESSOR_AMD };
        out.extend_from_slice(&[self.policy as u8, SOURCE_PROCESSOR, processor, 0, 0, 0]);
        out.extend_from_slice(&(CHUNK as u32).to_be_bytes());
        out.extend_from_slice(&self.tcb.to_le_bytes());
        out.extend_from_slice(&self.context);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.counter);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.try_into().expect("the fields above are HEADER bytes long")
    }
}

/// Takes the next `N` bytes of a slice whose length the caller has checked.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_first_chunk::<N>().expect("the header is HEADER bytes long");
    *rest = tail;
    *head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::new(SealPolicy::MeasurementAndChip, true, 0xdb18_0000_0000_0004, b"db", [7; 32])
    }

    #[test]
    fn reads_what_it_writes() {
        for code in 1..=5 {
            let policy = SealPolicy::from_byte(code).unwrap();
            for simulated in [false, true] {
                let header = Header { policy, simulated, counter: [9; 16], generation: 3, ..header() };
                assert_eq!(Header::peek(&header.encode()), Ok(header));
            }
        }
    }

    #[test]
    fn stands_where_the_format_says() {
        let raw = header().encode();
        assert_eq!(&raw[..16], b"COFSEAL\0\x00\x01\x01\x01\x02\0\0\0");
        assert_eq!(&raw[16..28], &[0, 1, 0, 0, 4, 0, 0, 0, 0, 0, 0x18, 0xdb]);
        assert_eq!(raw[28..60], Sha256::digest(b"db")[..]);
        assert_eq!(&raw[60..92], &[7; 32]);
        assert_eq!(&raw[92..], &[0; 24]);
        assert_eq!(raw.len(), HEADER);
    }

    #[test]
    fn refuses_each_field_no_one_writes() {
        let wrong = |at: usize, value: u8| {
            let mut raw = header().encode();
            raw[at] = value;
            Header::peek(&raw).unwrap_err()
        };
        assert_eq!(wrong(9, 2), SealError::Version { found: 2, expected: 1 });
        for (at, value, what) in [
            (0, b'X', "it does not start as one"),
            (10, 0, "unknown policy"),
            (10, 6, "unknown policy"),
            (11, 2, "unknown key source"),
            (12, 0, "unknown kind of secure processor"),
            (12, 3, "unknown kind of secure processor"),
            (13, 1, "reserved bytes are not zero"),
            (15, 1, "reserved bytes are not zero"),
            (17, 2, "unknown chunk size"),
            (HEADER - 1, 1, "a generation without a counter"),
        ] {
            assert_eq!(wrong(at, value), SealError::Format { what }, "byte {at}");
        }
        assert!(Header::peek(&header().encode()[..HEADER - 1]).is_err());
    }

    #[test]
    fn files_of_the_simulator_and_of_hardware_stay_apart() {
        assert_eq!(header().check_processor(true), Ok(()));
        assert_eq!(header().check_processor(false), Err(SealError::Processor { sealed_simulated: true }));
        let hardware = Header { simulated: false, ..header() };
        assert_eq!(hardware.check_processor(true), Err(SealError::Processor { sealed_simulated: false }));
    }
}
