//! Why nothing was sealed or opened.

use coffer_kbs_client::ClientError;
use coffer_seal::{SealError, SealPolicy};
use coffer_verifier::abi::ProcessorError;

/// Why nothing was sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealingError {
    /// The format, the keys or the rules.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The secure processor.
    #[error("secure processor: {0}")]
    Processor(#[from] ProcessorError),
    /// Its report.
    #[error("this guest's own report does not parse")]
    Report,
    /// The kernel's random source.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    /// The secure processor was asked on a thread that ended.
    #[error("the secure processor's line failed")]
    Line,
    /// There is no broker to have a key of.
    #[error("sealing policy {policy} needs a key of a key broker, and this guest's spec names none")]
    NoBroker {
        /// The policy.
        policy: SealPolicy,
    },
    /// The broker knows contexts by names that this is none of.
    #[error("sealing policy {policy} needs a context of 1 to 128 bytes, found {found}")]
    Context {
        /// The policy.
        policy: SealPolicy,
        /// Bytes of the context.
        found: usize,
    },
    /// The broker did not give the key, or say where the counter is.
    #[error("sealing policy {policy}: {cause}")]
    Broker {
        /// The policy.
        policy: SealPolicy,
        /// Why.
        cause: ClientError,
    },
    /// Policy `signer` without one.
    #[error("sealing policy signer needs a launch that an author signed, and nobody signed this one")]
    NoAuthor,
    /// Only the broker keeps counters.
    #[error("sealing policy {policy} has no counter: only those with a key of the key broker have")]
    CounterNeedsBroker {
        /// The policy.
        policy: SealPolicy,
    },
    /// Resealed, the file would lose its protection.
    #[error("the file has a rollback counter, which it would lose under sealing policy {policy}")]
    CounterLost {
        /// The policy asked for.
        policy: SealPolicy,
    },
    /// Another line of files.
    #[error("the file to be replaced has no rollback counter under sealing policy {policy}")]
    NotReplaceable {
        /// The policy asked for.
        policy: SealPolicy,
    },
}

impl SealingError {
    /// What it is called, to a workload and to an owner.
    pub fn word(&self) -> &'static str {
        match self {
            // The broker's own word says more.
            Self::Broker { .. } => "broker",
            Self::NoBroker { .. } => "no-broker",
            Self::Context { .. } => "context",
            Self::CounterNeedsBroker { .. } => "policy",
            Self::CounterLost { .. } => "counter-lost",
            Self::NotReplaceable { .. } => "not-replaceable",
            Self::Seal(SealError::Older { .. }) => "older",
            Self::Seal(SealError::Closed | SealError::Processor { .. }) => "does-not-open",
            Self::Seal(SealError::Format { .. } | SealError::Version { .. }) => "not-sealed",
            Self::Processor(_) | Self::Report | Self::Line | Self::Random(_) => "processor",
            _ => "not-here",
        }
    }
}
