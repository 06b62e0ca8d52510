//! The header: everything the key depends on, and what unsealing must ask the secure processor for.
//!
//! Integers are big-endian; the TCB is the eight bytes of TCB_VERSION as the SNP ABI has them. Format: docs/sealed-format.md.

use core::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use crate::SealError;

/// Bytes of the encoded header.
pub const HEADER: usize = 8 + 2 + 1 + 1 + 1 + 3 + 4 + 8 + 32 + 32 + 16 + 8;
/// Plaintext bytes of a chunk.
pub const CHUNK: usize = 64 * 1024;

const MAGIC: &[u8; 8] = b"COFSEAL\0";
const VERSION: u16 = 1;
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
    /// All of them.
    pub const ALL: [Self; 5] = [Self::MeasurementAndChip, Self::Chip, Self::Measurement, Self::Workload, Self::Signer];

    /// The policy's name as users write it, which is part of the key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MeasurementAndChip => "measurement-and-chip",
            Self::Chip => "chip",
            Self::Measurement => "measurement",
            Self::Workload => "workload",
            Self::Signer => "signer",
        }
    }

    /// What its keys are derived from.
    pub const fn source(self) -> Source {
        match self {
            Self::MeasurementAndChip => Source::Processor,
            Self::Chip => Source::Both,
            Self::Measurement | Self::Workload | Self::Signer => Source::Broker,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| *policy as u8 == byte)
    }
}

impl FromStr for SealPolicy {
    type Err = SealError;

    fn from_str(name: &str) -> Result<Self, SealError> {
        match name {
            "chip-only" => Ok(Self::Chip),
            "measurement-only" => Ok(Self::Measurement),
            _ => {
                let found = Self::ALL.into_iter().find(|policy| policy.name() == name);
                found.ok_or_else(|| SealError::Policy { policy: name.into() })
            }
        }
    }
}

impl fmt::Display for SealPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose secrets a key is derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// The secure processor's.
    Processor = 1,
    /// The secure processor's and the key broker's: neither alone opens anything.
    Both = 2,
    /// The key broker's.
    Broker = 3,
}

impl Source {
    /// As key derivation names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Processor => "psp",
            Self::Both => "psp+kbs",
            Self::Broker => "kbs",
        }
    }

    /// True if a key broker has part of it.
    pub const fn needs_broker(self) -> bool {
        !matches!(self, Self::Processor)
    }
}

/// The least GUEST_SVN that opens a file of policy `signer`. The header has three bytes for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MinimumSvn(u32);

impl MinimumSvn {
    /// The highest.
    pub const MOST: u32 = 0xff_ffff;

    /// That one.
    ///
    /// # Errors
    /// [`SealError::Svn`] above [`Self::MOST`].
    pub const fn new(svn: u32) -> Result<Self, SealError> {
        if svn > Self::MOST { Err(SealError::Svn { found: svn }) } else { Ok(Self(svn)) }
    }

    /// As a number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Header of a sealed file. Every byte of it is authenticated with every chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who can open it.
    pub policy: SealPolicy,
    /// True if the guest that sealed it had a simulated secure processor.
    pub simulated: bool,
    /// Policy `signer`: the least GUEST_SVN that opens it; 0 in all others.
    pub minimum_svn: MinimumSvn,
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
    /// A header without a counter and without a minimum SVN.
    pub fn new(policy: SealPolicy, simulated: bool, tcb: u64, context: &[u8], salt: [u8; 32]) -> Self {
        let (context, minimum_svn) = (Sha256::digest(context).into(), MinimumSvn::default());
        Self { policy, simulated, minimum_svn, tcb, context, salt, counter: [0; 16], generation: 0 }
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
        if take(&mut rest) != [policy.source() as u8] {
            return Err(format("a key source that is not its policy's"));
        }
        let simulated = match take(&mut rest) {
            [PROCESSOR_AMD] => false,
            [PROCESSOR_SIMULATED] => true,
            _ => return Err(format("unknown kind of secure processor")),
        };
        let [high, middle, low] = take(&mut rest);
        let minimum_svn = MinimumSvn(u32::from_be_bytes([0, high, middle, low]));
        if u32::from_be_bytes(take(&mut rest)) as usize != CHUNK {
            return Err(format("unknown chunk size"));
        }
        let header = Self {
            policy,
            simulated,
            minimum_svn,
            tcb: u64::from_le_bytes(take(&mut rest)),
            context: take(&mut rest),
            salt: take(&mut rest),
            counter: take(&mut rest),
            generation: u64::from_be_bytes(take(&mut rest)),
        };
        header.check()?;
        Ok(header)
    }

    /// Refuses what no reader takes.
    pub(crate) fn check(&self) -> Result<(), SealError> {
        let format = |what| Err(SealError::Format { what });
        if self.minimum_svn.get() != 0 && self.policy != SealPolicy::Signer {
            return format("a minimum SVN without policy signer");
        }
        if self.rollback_protected() && !self.policy.source().needs_broker() {
            return format("a counter without a key broker");
        }
        if (self.generation == 0) == self.rollback_protected() {
            return format("a generation without a counter, or the reverse");
        }
        Ok(())
    }

    /// The encoded header.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        let processor = if self.simulated { PROCESSOR_SIMULATED } else { PROCESSOR_AMD };
        out.extend_from_slice(&[self.policy as u8, self.policy.source() as u8, processor]);
        out.extend_from_slice(&self.minimum_svn.0.to_be_bytes()[1..]);
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
        for policy in SealPolicy::ALL {
            for simulated in [false, true] {
                let plain = Header { policy, simulated, ..header() };
                assert_eq!(Header::peek(&plain.encode()), Ok(plain));
                let counted = Header { counter: [9; 16], generation: 3, ..plain };
                let found = Header::peek(&counted.encode());
                assert_eq!(found.is_ok(), policy != SealPolicy::MeasurementAndChip);
                let upgradable = Header { minimum_svn: MinimumSvn::new(0x01_02_03).unwrap(), ..plain };
                assert_eq!(Header::peek(&upgradable.encode()).is_ok(), policy == SealPolicy::Signer);
            }
        }
        let signer = Header { policy: SealPolicy::Signer, minimum_svn: MinimumSvn(MinimumSvn::MOST), ..header() };
        assert_eq!(Header::peek(&signer.encode()), Ok(signer));
        assert_eq!(MinimumSvn::new(1 << 24), Err(SealError::Svn { found: 1 << 24 }));
    }

    #[test]
    fn policies_have_the_names_users_write_and_two_have_a_second() {
        for policy in SealPolicy::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
        }
        assert_eq!("chip-only".parse(), Ok(SealPolicy::Chip));
        assert_eq!("measurement-only".parse(), Ok(SealPolicy::Measurement));
        for wrong in ["", "Chip", "workload-only", "psp"] {
            assert_eq!(wrong.parse::<SealPolicy>(), Err(SealError::Policy { policy: wrong.into() }));
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
            (10, 2, "a key source that is not its policy's"),
            (11, 2, "a key source that is not its policy's"),
            (11, 0, "a key source that is not its policy's"),
            (12, 0, "unknown kind of secure processor"),
            (12, 3, "unknown kind of secure processor"),
            (13, 1, "a minimum SVN without policy signer"),
            (15, 1, "a minimum SVN without policy signer"),
            (17, 2, "unknown chunk size"),
            (92, 1, "a counter without a key broker"),
            (HEADER - 1, 1, "a generation without a counter, or the reverse"),
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
