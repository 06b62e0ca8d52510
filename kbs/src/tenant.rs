//! Tenants by name, parsed at the door.

use core::fmt;

/// Why a text is no tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tenant is not 1 to 64 of [A-Za-z0-9_.-], not starting with . or -")]
pub struct TenantError;

/// A tenant of the key broker, as workload specs name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(String);

impl Tenant {
    /// Parses a tenant name.
    ///
    /// # Errors
    /// [`TenantError`].
    pub fn parse(text: &str) -> Result<Self, TenantError> {
        let fits = (1..=64).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if fits { Ok(Self(text.into())) } else { Err(TenantError) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_odd_tenants() {
        assert!(Tenant::parse("acme").is_ok());
        for bad in ["", "a b", "../x", "a/b", "-x", &"x".repeat(65)] {
            assert_eq!(Tenant::parse(bad), Err(TenantError));
        }
    }
}
