//! Why evidence was not admitted: a word for the peer, a cause for the log.

/// Why evidence was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// Stable word for the peer: lower case, digits and hyphens.
    pub code: &'static str,
    /// Cause, for the log of this end only.
    pub detail: String,
}
