//! Where committed audit lines are printed, beside the database.

use std::sync::Arc;

/// Takes one committed line at a time.
#[derive(Clone)]
pub struct AuditLog(Arc<dyn Fn(&str) + Send + Sync>);

impl AuditLog {
    /// Prints with `write`.
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// Prints a line.
    pub fn write(&self, line: &str) {
        (self.0)(line);
    }
}
