//! Names of boxes: a random 64-digit id, and an `adjective_noun` for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Id of a box: 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BoxId(String);

/// Why a text is no id or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not an id.
    #[error("box id is 64 hex digits, found {0:?}")]
    Id(String),
    /// Not a name.
    #[error("invalid box name {0:?}, only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed")]
    Name(String),
}

impl BoxId {
    /// A fresh id.
    ///
    /// # Panics
    /// If the system has no random numbers, without which nothing here may go on.
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the system gives random numbers");
        Self(hex::encode(bytes))
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as tables show it.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl TryFrom<String> for BoxId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        let good = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if good { Ok(Self(text)) } else { Err(NameError::Id(text)) }
    }
}

impl From<BoxId> for String {
    fn from(id: BoxId) -> Self {
        id.0
    }
}

impl fmt::Display for BoxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a name a person chose.
///
/// # Errors
/// [`NameError::Name`] states the rule.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) && name.len() <= 128 {
        Ok(())
    } else {
        Err(NameError::Name(name.into()))
    }
}

/// A name nobody chose, such as `quiet_heron`.
///
/// # Panics
/// If the system has no random numbers.
pub fn random_name() -> String {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the system gives random numbers");
    let pick = |words: &[&'static str], a: u8, b: u8| words[usize::from(u16::from_be_bytes([a, b])) % words.len()];
    let [a, b, c, d] = bytes;
    format!("{}_{}", pick(ADJECTIVES, a, b), pick(NOUNS, c, d))
}

const ADJECTIVES: &[&str] = &[
    "amber", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "crisp", "deep", "eager", "early", "fair",
    "fine", "firm", "fleet", "frank", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "keen", "kind",
    "late", "light", "lively", "loyal", "lucid", "mellow", "mild", "neat", "nimble", "noble", "patient", "plain",
    "polite", "proud", "quick", "quiet", "rapid", "ready", "sage", "sharp", "silent", "silver", "sincere", "smooth",
    "solid", "sound", "steady", "still", "stout", "sturdy", "subtle", "sunny", "swift", "tidy", "true", "vivid",
    "warm", "wise",
];

const NOUNS: &[&str] = &[
    "alder", "anchor", "aspen", "badger", "beacon", "beech", "birch", "bridge", "brook", "cedar", "chest", "cliff",
    "cove", "crane", "dune", "elm", "falcon", "fern", "finch", "fjord", "forge", "garnet", "glade", "harbor", "hazel",
    "heron", "hinge", "island", "ivy", "jasper", "kestrel", "key", "lantern", "larch", "lark", "latch", "linden",
    "lock", "maple", "marsh", "meadow", "mesa", "oak", "onyx", "otter", "owl", "pebble", "pine", "plover", "quartz",
    "raven", "reef", "ridge", "river", "robin", "rowan", "sparrow", "spruce", "stone", "summit", "swan", "thistle",
    "vault", "willow",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_hex_digits_and_nothing_else_is_an_id() {
        let id = BoxId::random();
        assert_eq!(BoxId::try_from(id.to_string()), Ok(id.clone()));
        assert_eq!(id.short().len(), 12);
        assert_ne!(id, BoxId::random());
        for bad in ["", "abc", &"G".repeat(64), &"A".repeat(64), "../../../../etc"] {
            assert!(BoxId::try_from(bad.to_string()).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["a", "web-1", "A.b_c", &random_name()] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", &"a".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
