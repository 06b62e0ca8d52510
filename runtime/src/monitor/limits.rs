//! What bounds a box that has no machine.

use serde::{Deserialize, Serialize};

/// What a box without a machine may have of its host's. Nothing that was not asked for bounds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processors' time.
    pub cpus: Option<u32>,
}

impl Limits {
    /// Whether nothing bounds it.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
