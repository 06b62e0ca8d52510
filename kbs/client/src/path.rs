//! Where a secret lies: `kbs:///repository/type/tag`.

use core::{fmt, str::FromStr};

/// A parsed path. Three names, no host, no query: what is not this is not a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourcePath {
    text: String,
    first: usize,
    second: usize,
}

/// Why text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a secret path, expected kbs:///repository/type/tag with names of 1 to 64 of [A-Za-z0-9_.-]")]
pub struct PathError;

const SCHEME: &str = "kbs:///";

impl ResourcePath {
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

impl FromStr for ResourcePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let rest = text.strip_prefix(SCHEME).ok_or(PathError)?;
        let names: Vec<&str> = rest.split('/').collect();
        match names.as_slice() {
            [repository, kind, tag] if [repository, kind, tag].into_iter().all(|name| is_name(name)) => {
                let first = SCHEME.len() + repository.len();
                Ok(Self { text: text.to_owned(), first, second: first + 1 + kind.len() })
            }
            _ => Err(PathError),
        }
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_three_names_and_writes_them_back() {
        let path: ResourcePath = "kbs:///default/app/db-password".parse().unwrap();
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
            assert_eq!(text.parse::<ResourcePath>(), Err(PathError), "{text}");
        }
    }
}
