//! Why evidence was not admitted: a word for the peer, a cause for the log.

/// Why evidence was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// Stable word for the peer: lower case, digits and hyphens.
    pub code: &'static str,
    /// Cause, for the log of this end only.
    pub detail: String,
    /// For whom the peer says it is, where it said so in words that mean something; nothing shows that it is. For the log alone.
    pub claims: Option<Claim>,
}

/// What a peer that was refused says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its words, once parsed.
    pub name: String,
    /// Whether this end knows something of that name; else it is a word that anybody makes up.
    pub is_known: bool,
}

impl Refusal {
    /// Of somebody of whom nothing is known.
    pub fn new(code: &'static str, detail: String) -> Self {
        Self { code, detail, claims: None }
    }
}
