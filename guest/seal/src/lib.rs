//! The sealed format: versioned header, HKDF, AES-256-GCM in chunks.
//!
//! Bytes in, bytes out: the caller brings the secrets of the policy and 32 random bytes of salt.
//! To seal: [`refuse_unsafe`] on the guest's own report, [`Keys`] of the policy ([`key_request`] for its COMMITTED_TCB, the broker's
//! key), [`seal`]. To open: [`Header::peek`], [`check_floor`], [`refuse_unsafe`], the keys for the header, [`unseal`].
//!
//! ```
//! use coffer_seal::{Header, Scope, SealError, SealPolicy, Secrets, seal, unseal};
//! use coffer_verifier::abi::DerivedKey;
//!
//! // What the secure processor answers to `key_request(policy.source(), tcb)`, and 32 bytes from the kernel's random source.
//! let (key, tcb, salt) = (DerivedKey::new([7; 32]), 0x0201_0000_0000_0304, [9; 32]);
//! let (keys, policy) = (Secrets::Processor(key).of(Scope::Agent), "measurement-and-chip".parse::<SealPolicy>()?);
//! let sealed = seal(&keys, &Header::new(policy, true, tcb, b"backup", salt), b"backup", b"state")?;
//!
//! assert_eq!(Header::peek(&sealed)?.tcb, tcb, "ask for the key of this TCB to open it");
//! assert_eq!(*unseal(&keys, b"backup", None, &sealed)?, b"state");
//! assert_eq!(unseal(&keys, b"another context", None, &sealed).unwrap_err(), SealError::Closed);
//! let other_chip = Secrets::Processor(DerivedKey::new([8; 32])).of(Scope::Agent);
//! assert_eq!(unseal(&other_chip, b"backup", None, &sealed).unwrap_err(), SealError::Closed);
//! # Ok::<(), SealError>(())
//! ```
//! Trusts: the keys, and what it is told of the counter. A sealed file is hostile until its last chunk has opened; [`unseal`] hands
//! out nothing of it before, [`unseal_stream`] says what is worth nothing until then.
//! Never: uses public report fields as key material, pads or cuts, derives a key from fewer secrets than the policy has, opens a
//! file with a counter that nobody asked for, promises that an older file without one is not put back.
//! Source: docs/design/sealing.md §7; STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015); RFC 5869.
#![forbid(unsafe_code)]

mod header;
mod keys;
mod rules;
mod stream;

pub use header::{CHUNK, HEADER, Header, MinimumSvn, SealPolicy, Source};
pub use keys::{BrokerKey, Keys, Scope, Secrets};
pub use rules::{check_floor, key_request, refuse_unsafe};
pub use stream::{LIMIT, Opener, Sealer, TAG, seal, seal_stream, unseal, unseal_stream};

/// Why bytes were not sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// No policy has that name.
    #[error("unknown sealing policy {policy:?}: measurement-and-chip, chip, measurement, workload or signer")]
    Policy {
        /// The policy asked for.
        policy: String,
    },
    /// The keys at hand are not those of the policy.
    #[error("sealing policy {policy} needs a key of `{needs}`")]
    Keys {
        /// Policy of the file.
        policy: SealPolicy,
        /// Whose secrets it wants.
        needs: &'static str,
    },
    /// The header has no room for it.
    #[error("guest SVN {found} is above {}, the highest of policy signer", MinimumSvn::MOST)]
    Svn {
        /// GUEST_SVN.
        found: u32,
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
    #[error("more than {LIMIT} bytes to seal")]
    TooLong,
    /// The key does not open it: another workload, platform, chip, context, or changed bytes.
    #[error("does not open here: sealed by another workload, platform or chip, under another context, or changed")]
    Closed,
    /// The file has a rollback counter, and nobody here can ask for its value.
    #[error("sealed with a rollback counter, which cannot be checked here")]
    Counter,
    /// Another file has taken its place.
    #[error("an older generation: the file is of generation {found}, its counter is at {current}")]
    Older {
        /// Of the file.
        found: u64,
        /// At the key broker; 0: nobody began it.
        current: u64,
    },
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

/// Why a stream was not sealed or opened. What was written until then is worth nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The format, the keys or the rules.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The input.
    #[error("cannot read what is to be sealed or opened")]
    Read(#[source] std::io::Error),
    /// The output.
    #[error("cannot write what was sealed or opened")]
    Write(#[source] std::io::Error),
}
