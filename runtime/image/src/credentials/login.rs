//! A login.

use secrecy::SecretString;
use std::fmt;

/// Who we are to a registry.
#[derive(Clone)]
pub enum Login {
    /// Nobody.
    Anonymous,
    /// A user with a password.
    Basic(String, SecretString),
    /// A token for the registry itself.
    Bearer(SecretString),
    /// A token for its token service, which gives others for it (`identitytoken`).
    Identity(SecretString),
}

/// Without what is secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic(..) => "Basic",
            Self::Bearer(_) => "Bearer",
            Self::Identity(_) => "Identity",
        })
    }
}
