//! Names: the one grammar of tenants, secrets, injected values, host names and policies, and what is made of names.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// 1 to 64 of `[A-Za-z0-9_.-]`, not starting with `.` or `-`: safe as a file's name, as a word of a command line and in a log.
///
/// ```
/// use coffer_spec::Name;
/// assert_eq!("db-password".parse::<Name>().unwrap().as_str(), "db-password");
/// assert!("../etc/passwd".parse::<Name>().is_err());
/// assert!("".parse::<Name>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// What a name is made of, in words.
pub const NAME_RULE: &str = "1 to 64 of [A-Za-z0-9_.-], not starting with . or -";

/// Why text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no name: expected {NAME_RULE}")]
pub struct NameError {
    /// What stood there; at most as many characters as fit on a line.
    pub found: String,
}

impl Name {
    /// Longest name in bytes.
    pub const MOST: usize = 64;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether text is a name.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=Name::MOST).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(NameError { found: text.chars().take(80).collect() }) }
    }
}

/// A tenant of the key broker, as workload specs name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(Name);

impl Tenant {
    /// Parses a tenant's name.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        text.parse()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Tenant {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self)
    }
}

/// Where a secret lies at a key broker: `kbs:///repository/type/tag`. Three names, no host, no query.
///
/// ```
/// use coffer_spec::SecretPath;
/// let path: SecretPath = "kbs:///default/app/key".parse().unwrap();
/// assert_eq!((path.repository(), path.kind(), path.tag()), ("default", "app", "key"));
/// assert!("kbs://host/default/app/key".parse::<SecretPath>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretPath {
    text: String,
    first: usize,
    second: usize,
}

/// Why text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no secret path: expected kbs:///repository/type/tag, each part {NAME_RULE}")]
pub struct PathError {
    /// What stood there; at most as many characters as fit on a few lines.
    pub found: String,
}

const SCHEME: &str = "kbs:///";

impl SecretPath {
    /// First name.
    pub fn repository(&self) -> &str {
        &self.text[SCHEME.len()..self.first]
    }

    /// Second name.
    pub fn kind(&self) -> &str {
        &self.text[self.first + 1..self.second]
    }

    /// Third name.
    pub fn tag(&self) -> &str {
        &self.text[self.second + 1..]
    }

    /// The whole, as parsed.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for SecretPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let error = || PathError { found: text.chars().take(240).collect() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(error)?;
        let names: Vec<&str> = rest.split('/').collect();
        match names.as_slice() {
            [repository, kind, tag] if [repository, kind, tag].into_iter().all(|name| is_name(name)) => {
                let first = SCHEME.len() + repository.len();
                Ok(Self { text: text.to_owned(), first, second: first + 1 + kind.len() })
            }
            _ => Err(error()),
        }
    }
}

macro_rules! text_word {
    ($($word:ident, $error:ident;)*) => {$(
        impl TryFrom<String> for $word {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$word> for String {
            fn from(word: $word) -> Self {
                word.as_str().to_owned()
            }
        }

        impl AsRef<str> for $word {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl PartialEq<str> for $word {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $word {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl fmt::Display for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

text_word! {
    Name, NameError;
    Tenant, NameError;
    SecretPath, PathError;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder_and_on_their_line() {
        for good in ["a", "A_b.c-9", "_", &"x".repeat(64)] {
            assert_eq!(good.parse::<Name>().unwrap().to_string(), good);
            assert_eq!(Tenant::parse(good).unwrap(), good);
        }
        for bad in ["", "a b", "../x", "a/b", "-x", ".x", "ä", "a\n", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err() && Tenant::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn takes_three_names_and_writes_them_back() {
        let path: SecretPath = "kbs:///default/app/db-password".parse().unwrap();
        assert_eq!((path.repository(), path.kind(), path.tag()), ("default", "app", "db-password"));
        assert_eq!(path.to_string(), "kbs:///default/app/db-password");
    }

    #[test]
    fn refuses_whatever_is_not_three_names() {
        let long = format!("kbs:///a/b/{}", "c".repeat(65));
        for text in [
            "",
            "kbs:///",
            "kbs:///a/b",
            "kbs:///a/b/c/d",
            "kbs://host/a/b/c",
            "http:///a/b/c",
            "kbs:///a//c",
            "kbs:///a/../c",
            "kbs:///.a/b/c",
            "kbs:///-a/b/c",
            "kbs:///a/b/c?x",
            "kbs:///a/b/ä",
            "kbs:///a b/b/c",
            &long,
        ] {
            assert!(text.parse::<SecretPath>().is_err(), "{text}");
        }
    }
}
