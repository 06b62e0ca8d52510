//! Why a document is no workload spec.

/// Why a document is no workload spec.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Longer than a spec may be.
    #[error("workload spec has {found} bytes, more than {limit}")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("workload spec is not UTF-8")]
    Encoding,
    /// Not the TOML it should be.
    #[error("workload spec, {part}: {message}")]
    Toml {
        /// Which document.
        part: &'static str,
        /// The parser's words.
        message: String,
    },
    /// A field holds what it may not.
    #[error("workload spec field {field} is {found}, expected {expected}")]
    Field {
        /// Field name.
        field: &'static str,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
}
