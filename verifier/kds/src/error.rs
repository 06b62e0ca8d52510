//! Why an item is not at hand.

use std::time::Duration;

use crate::check::Unfit;

/// Why an item is not at hand. A judgement goes on without it, and says what it lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody serves it.
    #[error("no service has it")]
    NoAddress,
    /// This client asks nobody.
    #[error("it is not kept here, and nobody is asked")]
    Offline,
    /// The service has none.
    #[error("the service has none (status {status})")]
    None {
        /// HTTP status.
        status: u16,
    },
    /// The service wants to be left alone.
    #[error("the service wants no request for {} s", retry_after.as_secs().max(1))]
    Busy {
        /// Until then.
        retry_after: Duration,
    },
    /// Chips not seen before have used up what may be asked for them.
    #[error("too many certificates of this kind were asked for; one may be again in {} s", retry_after.as_secs().max(1))]
    Budget {
        /// Until then.
        retry_after: Duration,
    },
    /// No answer in time.
    #[error("no whole answer in time")]
    Slow,
    /// The folder's disk does not answer.
    #[error("the folder of what is kept does not answer in time")]
    Folder,
    /// An answer longer than any item.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// No connection, no HTTP, or a status that says nothing of the item.
    #[error("asking failed: {reason}")]
    Failed {
        /// In words.
        reason: String,
    },
    /// The answer is not what was asked for.
    #[error("the answer cannot be used")]
    Unfit(#[from] Unfit),
}

impl FetchError {
    /// What helps.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NoAddress => {
                "only the cloud provider has a VLEK certificate, and a masked chip has none: have it sent with the evidence"
            }
            Self::Offline => "import it from where there is a network",
            Self::None { .. } => "no chip has that identity at that TCB, or the service is of another manufacturer",
            Self::Busy { .. } | Self::Budget { .. } => "try again then, or have the guest send its certificates",
            Self::Slow | Self::Failed { .. } => {
                "check the network and the mirror, or have the guest send its certificates"
            }
            Self::Folder => "look at the disk that the folder is on",
            Self::TooLong { .. } | Self::Unfit(_) => "the service is not what it should be: check the mirror",
        }
    }

    /// When it is worth asking again, where that was said.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } | Self::Budget { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}
