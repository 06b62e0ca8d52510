//! Names that reach the store: tenants and secret paths, parsed at the door.

use core::fmt;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not a tenant.
    #[error("tenant is not {NAME_RULE}")]
    Tenant,
    /// Not a path.
    #[error("path is not kbs:///repository/type/tag, each {NAME_RULE}")]
    Path,
}

const NAME_RULE: &str = "1 to 64 of [A-Za-z0-9_.-], not starting with . or -";

/// A tenant of the key broker, as workload specs name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(String);

impl Tenant {
    /// Parses a tenant name.
    ///
    /// # Errors
    /// [`NameError::Tenant`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(NameError::Tenant) }
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

/// `kbs:///repository/type/tag`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretPath(String);

impl SecretPath {
    /// Parses a path; the short form `repository/type/tag` is written out.
    ///
    /// # Errors
    /// [`NameError::Path`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rest = text.strip_prefix("kbs:///").unwrap_or(text);
        let mut segments = rest.split('/');
        let fits = segments.by_ref().take(3).filter(|segment| is_name(segment)).count() == 3;
        if fits && segments.next().is_none() { Ok(Self(format!("kbs:///{rest}"))) } else { Err(NameError::Path) }
    }

    /// The path in full.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_three_names_in_both_forms_and_nothing_else() {
        assert_eq!(SecretPath::parse("a/b/c").unwrap().as_str(), "kbs:///a/b/c");
        assert_eq!(SecretPath::parse("kbs:///a/b/c"), SecretPath::parse("a/b/c"));
        for bad in ["", "a/b", "a/b/c/d", "kbs:///a//c", "a/../c", "/a/b/c", "a/b/c\n", "kbs://host/a/b", "-a/b/c"] {
            assert_eq!(SecretPath::parse(bad), Err(NameError::Path), "{bad:?}");
        }
    }

    #[test]
    fn refuses_odd_tenants() {
        assert!(Tenant::parse("acme").is_ok());
        for bad in ["", "a b", "../x", "a/b", &"x".repeat(65)] {
            assert_eq!(Tenant::parse(bad), Err(NameError::Tenant));
        }
    }
}
