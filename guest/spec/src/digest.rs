//! Digests a spec states, each its own type.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// SHA-256 of an image's configuration, written `sha256:` and 64 lower-case hex digits, as registries write it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConfigDigest([u8; 32]);

/// Why text is no digest of an image configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no image digest: expected sha256: and 64 lower-case hex digits")]
pub struct DigestError {
    /// What stood there.
    pub found: String,
}

impl ConfigDigest {
    /// From its bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// SHA-256 digest of an image manifest, 32 bytes; written as a [`ConfigDigest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ManifestDigest(ConfigDigest);

impl ManifestDigest {
    /// Of these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(ConfigDigest::new(bytes))
    }
}

impl fmt::Display for ManifestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ConfigDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let parse = || {
            let digits = text.strip_prefix("sha256:").filter(|digits| is_hex(digits))?;
            hex::decode(digits).ok()?.try_into().ok()
        };
        parse().map(Self).ok_or_else(|| DigestError { found: text.chars().take(80).collect() })
    }
}

impl TryFrom<String> for ConfigDigest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<ConfigDigest> for String {
    fn from(digest: ConfigDigest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for ConfigDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for ConfigDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigDigest({self})")
    }
}

/// Reads a word of the report in lower-case hex alone.
pub(crate) fn lower_hex<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !is_hex(&text) {
        return Err(D::Error::custom("expected lower-case hex digits"));
    }
    text.parse().map_err(D::Error::custom)
}

/// One spelling per value: two specs that mean the same would otherwise have two digests.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_one_digest_in_one_spelling() {
        let text = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(text.parse::<ConfigDigest>().unwrap().to_string(), text);
        for bad in ["", "sha256:", "sha256:00", &text[7..], &text.to_uppercase(), &text.replace("256", "512")] {
            assert!(bad.parse::<ConfigDigest>().is_err(), "{bad}");
        }
    }
}
