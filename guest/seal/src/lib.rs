//! The sealed format: versioned header, HKDF, AES-256-GCM in chunks.
//!
//! Bytes in, bytes out: the caller brings the key its secure processor derived and 32 random bytes of salt.
//! To seal: [`refuse_unsafe`] on the guest's own report, the key of [`key_request`] for its COMMITTED_TCB, [`seal`].
//! To open: [`Header::peek`], [`check_floor`], [`refuse_unsafe`], the key of the header's TCB, [`unseal`].
//!
//! ```
//! use coffer_seal::{Header, SealError, SealPolicy, seal, unseal};
//! use coffer_verifier::abi::DerivedKey;
//!
//! // What the secure processor answers to `key_request(tcb)`, and 32 bytes from the kernel's random source.
//! let (key, tcb, salt) = (DerivedKey::new([7; 32]), 0x0201_0000_0000_0304, [9; 32]);
//! let header = Header::new(SealPolicy::available("measurement-and-chip")?, true, tcb, b"backup", salt);
//! let sealed = seal(&key, &header, b"backup", b"state")?;
//!
//! assert_eq!(Header::peek(&sealed)?.tcb, tcb, "ask for the key of this TCB to open it");
//! assert_eq!(*unseal(&key, b"backup", &sealed)?, b"state");
//! assert_eq!(unseal(&key, b"another context", &sealed).unwrap_err(), SealError::Closed);
//! let other_chip = DerivedKey::new([8; 32]);
//! assert_eq!(unseal(&other_chip, b"backup", &sealed).unwrap_err(), SealError::Closed);
//! # Ok::<(), SealError>(())
//! ```
//! Trusts: the key. A sealed file is hostile until its last chunk has opened; nothing of it is handed out before.
//! Never: uses public report fields as key material, pads or cuts, opens a file whose policy or counter it
//! cannot honour, promises that an older file is not put back.
//! Source: docs/design/sealing.md §7; STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015); RFC 5869.
#![forbid(unsafe_code)]

mod header;
mod rules;
mod stream;

pub use header::{CHUNK, HEADER, Header, SealPolicy};
pub use rules::{check_floor, key_request, refuse_unsafe};
pub use stream::{LIMIT, seal, unseal};

/// Why bytes were not sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// This release has no key for the policy.
    #[error("sealing policy {policy:?} is not available here; `measurement-and-chip` is")]
    Policy {
        /// The policy asked for.
        policy: String,
    },
    /// Not a sealed file, or cut inside its header.
    #[error("not a sealed file: {what}")]
    Format {
        /// Which part.
        what: &'static str,
    },
    /// A version of the format this release does not know.
    #[error("sealed format version {found}, expected {expected}")]
    Version {
        /// Version found.
        found: u16,
        /// Version known.
        expected: u16,
    },
    /// Too long for one file.
    #[error("{found} bytes to seal, at most {LIMIT}")]
    TooLong {
        /// Bytes given.
        found: usize,
    },
    /// The key does not open it: another workload, platform, chip, context, or changed bytes.
    #[error("does not open here: sealed by another workload, platform or chip, under another context, or changed")]
    Closed,
    /// The file has a rollback counter, and nobody here can ask for its value.
    #[error("sealed with a rollback counter, which cannot be checked here")]
    Counter,
    /// Sealed by the simulator and opened on hardware, or the reverse.
    #[error("sealed with {} secure processor, this guest runs on {}",
        if *sealed_simulated { "a simulated" } else { "AMD's" }, if *sealed_simulated { "AMD's" } else { "a simulated one" })]
    Processor {
        /// True if the file is the simulator's.
        sealed_simulated: bool,
    },
    /// The guest's own report does not allow sealing.
    #[error("this guest does not seal: {what}")]
    Unsafe {
        /// What its report shows.
        what: String,
    },
    /// Sealed under a TCB below the spec's floor.
    #[error("sealed under TCB {found}, the workload spec demands at least {floor}")]
    Floor {
        /// TCB of the header, hex of the raw field.
        found: String,
        /// The floor, the same way.
        floor: String,
    },
}
