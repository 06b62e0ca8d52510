//! The header: everything the key depends on, and what unsealing must ask the secure processor for.

use sha2::{Digest, Sha256};

use crate::SealError;

/// Bytes of the encoded header.
pub const HEADER: usize = 8 + 2 + 1 + 1 + 4 + 8 + 32 + 32 + 16 + 8;
/// Plaintext bytes of a chunk.
pub const CHUNK: usize = 64 * 1024;

const MAGIC: &[u8; 8] = b"COFSEAL\0";
const VERSION: u16 = 1;
/// Where the root key came from: the secure processor.
const SOURCE_PROCESSOR: u8 = 1;

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
    pub fn new(policy: SealPolicy, tcb: u64, context: &[u8], salt: [u8; 32]) -> Self {
        Self { policy, tcb, context: Sha256::digest(context).into(), salt, counter: [0; 16], generation: 0 }
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
        if u32::from_be_bytes(take(&mut rest)) as usize != CHUNK {
            return Err(format("unknown chunk size"));
        }
        Ok(Self {
            policy,
            tcb: u64::from_be_bytes(take(&mut rest)),
            context: take(&mut rest),
            salt: take(&mut rest),
            counter: take(&mut rest),
            generation: u64::from_be_bytes(take(&mut rest)),
        })
    }

    /// The encoded header.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[self.policy as u8, SOURCE_PROCESSOR]);
        out.extend_from_slice(&(CHUNK as u32).to_be_bytes());
        out.extend_from_slice(&self.tcb.to_be_bytes());
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
