//! Names of domains, and words for whoever asks for names: what stands in a box's `/etc/resolv.conf` beside its servers.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Labels of letters, digits, `_` and `-` with a dot between them: `corp.example`.
///
/// Source: RFC 1035 §2.3.4 for how long one is; `_` as services have it (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

/// A word for the resolver: `ndots:2`, `rotate`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResolverOption(String);

/// Why text is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{found}\" is no {what}: expected {rule}")]
pub struct DomainError {
    /// As it was given, at most as much as fits on a line, its control characters escaped.
    pub found: String,
    /// What it was to be.
    pub what: &'static str,
    /// How one is written.
    pub rule: &'static str,
}

impl Domain {
    /// How one is written.
    pub const RULE: &str =
        "at most 253 bytes: labels of 1 to 63 of [A-Za-z0-9_-], none with - at an end, a dot between them";
    /// Longest that a kernel takes for its own (`__NEW_UTS_LEN`).
    pub const MOST_OWN: usize = 64;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ResolverOption {
    /// How one is written.
    pub const RULE: &str = "at most 32 of [a-z0-9-], and behind a colon a number, such as ndots:2";

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn refused(text: &str, what: &'static str, rule: &'static str) -> DomainError {
    let found: String = text.chars().take(80).collect();
    DomainError { found: found.escape_debug().to_string(), what, rule }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        let is_one = text.len() <= 253 && text.split('.').all(label);
        if is_one { Ok(Self(text.into())) } else { Err(refused(text, "domain", Self::RULE)) }
    }
}

impl FromStr for ResolverOption {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let (word, number) = text.split_once(':').map_or((text, None), |(word, number)| (word, Some(number)));
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_one = (1..=32).contains(&word.len())
            && word.bytes().all(plain)
            && number.is_none_or(|number| {
                (1..=9).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
            });
        if is_one { Ok(Self(text.into())) } else { Err(refused(text, "option of a resolver", Self::RULE)) }
    }
}

impl TryFrom<String> for Domain {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Self, DomainError> {
        text.parse()
    }
}

impl TryFrom<String> for ResolverOption {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Self, DomainError> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0
    }
}

impl From<ResolverOption> for String {
    fn from(option: ResolverOption) -> Self {
        option.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ResolverOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_one_begins_another_line_or_another_word() {
        for good in ["example", "corp.example", "_tcp.a-b.EXAMPLE", "1.2"] {
            assert_eq!(good.parse::<Domain>().unwrap().as_str(), good);
        }
        let long = [["a".repeat(63).as_str(); 4].join("."), "a".repeat(64)];
        let bad = ["", ".", "a.", ".a", "a..b", "-a", "a-.b", "a b", "a\nnameserver 192.0.2.1", "ä", "a/b"];
        for bad in bad.iter().copied().chain(long.iter().map(String::as_str)) {
            let why = bad.parse::<Domain>().unwrap_err().to_string();
            assert!(why.contains("is no domain") && !why.contains('\n'), "{why}");
        }
        for good in ["ndots:2", "rotate", "use-vc", "inet6", "timeout:10"] {
            assert_eq!(good.parse::<ResolverOption>().unwrap().to_string(), good);
        }
        for bad in ["", ":", "ndots:", "ndots:x", "ndots:-1", "Rotate", "a b", "a\nb", &"a".repeat(33), "n:1234567890"]
        {
            assert!(bad.parse::<ResolverOption>().is_err(), "{bad:?}");
        }
    }
}
