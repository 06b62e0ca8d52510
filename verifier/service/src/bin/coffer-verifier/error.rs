//! What failed, with its class and a hint.

use coffer_rim::{Class, Failure};
use coffer_verifier_service::{ConfigError, InitError, ServerError};

/// The library's errors as this program says them.
pub trait Said {
    /// Class, words and hint.
    fn said(&self) -> Failure;
}

impl Said for ConfigError {
    fn said(&self) -> Failure {
        let failure = match self.mistakes() {
            [] => Failure::caused(Class::Config, self),
            all => Failure::of_mistakes(Class::Config, "configuration", all),
        };
        failure.hint(self.hint())
    }
}

impl Said for InitError {
    fn said(&self) -> Failure {
        let class = if matches!(self, Self::Random(_) | Self::Toml(_)) { Class::Internal } else { Class::Config };
        Failure::caused(class, self).hint(self.hint())
    }
}

impl Said for ServerError {
    fn said(&self) -> Failure {
        Failure::caused(Class::Config, self).hint(self.hint())
    }
}
