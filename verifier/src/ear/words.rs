//! Values that stand in a token, bounded when they are made.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};

/// Text or bytes are not such a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct WordError(pub(super) &'static str);

/// A name others compare letter by letter: an audience, a policy, a revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Word(String);

impl Word {
    /// From text.
    ///
    /// # Errors
    /// [`WordError`] unless it is 1 to 256 printable ASCII characters without spaces.
    pub fn parse(text: &str) -> Result<Self, WordError> {
        if (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(WordError("1 to 256 printable ASCII characters without spaces"))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::fmt::Display for Word {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value somebody chose freshly: 8 to 64 bytes, as RFC 9711 bounds them. Its text is base64url without padding.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Nonce(Vec<u8>);

impl Nonce {
    /// From bytes.
    ///
    /// # Errors
    /// [`WordError`].
    pub fn new(bytes: &[u8]) -> Result<Self, WordError> {
        if (8..=64).contains(&bytes.len()) { Ok(Self(bytes.to_vec())) } else { Err(NONCE) }
    }

    /// From text.
    ///
    /// # Errors
    /// [`WordError`].
    pub fn parse(text: &str) -> Result<Self, WordError> {
        Self::new(&BASE64URL.decode(text).map_err(|_| NONCE)?)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

const NONCE: WordError = WordError("base64url without padding of 8 to 64 bytes");

impl core::fmt::Display for Nonce {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&BASE64URL.encode(&self.0))
    }
}

impl core::fmt::Debug for Nonce {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Nonce({self})")
    }
}

/// Seconds a token is good for, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(i64);

impl Lifetime {
    /// The longest: a day.
    pub const MAX: Self = Self(24 * 60 * 60);
    /// Five minutes.
    pub const DEFAULT: Self = Self(5 * 60);

    /// From seconds.
    ///
    /// # Errors
    /// [`WordError`].
    pub const fn from_secs(seconds: i64) -> Result<Self, WordError> {
        if seconds >= 1 && seconds <= Self::MAX.0 { Ok(Self(seconds)) } else { Err(WordError("1 to 86400 seconds")) }
    }

    /// Seconds.
    pub const fn as_secs(self) -> i64 {
        self.0
    }
}

/// The name of one token, `jti`: 16 bytes of the caller's random source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenId([u8; 16]);

impl TokenId {
    /// From random bytes.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }
}

impl core::fmt::Display for TokenId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&BASE64URL.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded_and_have_one_spelling() {
        for bad in ["", "a b", "a\n", "ü", &"a".repeat(257)] {
            assert!(Word::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Word::parse("https://a/b").unwrap().as_str(), "https://a/b");
        let nonce = Nonce::new(&[0xfb; 8]).unwrap();
        assert_eq!((nonce.to_string().as_str(), Nonce::parse("-_v7-_v7-_s")), ("-_v7-_v7-_s", Ok(nonce)));
        // Padding, the other alphabet, bits behind the last byte, and lengths.
        for bad in ["-_v7-_v7-_s=", "+/v7+/v7+/s", "-_v7-_v7-_t", "AAAAAAAAAA", &"A".repeat(87)] {
            assert!(Nonce::parse(bad).is_err(), "{bad}");
        }
        assert!(Nonce::new(&[0; 7]).is_err() && Nonce::new(&[0; 65]).is_err() && Nonce::new(&[0; 64]).is_ok());
        assert!(Lifetime::from_secs(0).is_err() && Lifetime::from_secs(86_401).is_err());
    }
}
