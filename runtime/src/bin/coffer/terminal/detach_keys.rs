//! The keys that leave a program to itself, in Docker's words.

use std::fmt;
use std::str::FromStr;

/// A sequence of keys. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

/// Docker's.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(words: &str) -> Result<Self, String> {
        words.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

fn key(word: &str) -> Result<u8, String> {
    let byte = match (word.as_bytes(), word.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([byte], _) if byte.is_ascii() => Some(*byte),
        (_, Some([byte @ (b'@'..=b'_' | b'a'..=b'z')])) => Some(byte & 0x1f),
        (b"DEL", _) => Some(0x7f),
        _ => None,
    };
    byte.ok_or_else(|| format!("{word:?} is no key: expected a character, ctrl- and one of a-z @ [ \\ ] ^ _, or DEL"))
}

impl fmt::Display for DetachKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |byte: &u8| match byte {
            0x7f => "DEL".to_owned(),
            1..=26 => format!("ctrl-{}", char::from(byte | 0x60)),
            0..=31 => format!("ctrl-{}", char::from(byte | 0x40)),
            _ => char::from(*byte).to_string(),
        };
        f.pad(&self.0.iter().map(word).collect::<Vec<_>>().join(","))
    }
}

/// What was typed, with the keys looked for.
#[derive(Debug)]
pub struct Typed {
    keys: DetachKeys,
    /// The beginning of the keys, held back.
    held: Vec<u8>,
}

impl Typed {
    /// Nothing yet.
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, held: Vec::new() }
    }

    /// What is to be handed on of these bytes and of what was held back before them, and whether all of the keys have come.
    /// Nothing is handed on behind them.
    pub fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.held.push(*byte);
            while !self.keys.0.starts_with(&self.held) {
                passed.push(self.held.remove(0));
            }
            if self.held.len() == self.keys.0.len() {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(words: &str) -> DetachKeys {
        words.parse().unwrap()
    }

    #[test]
    fn keys_are_written_as_docker_writes_them() {
        for (words, bytes) in [
            (DEFAULT, &[16, 17][..]),
            ("a", b"a"),
            (
                "ctrl-@,ctrl-a,ctrl-z,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_,DEL,x",
                &[0, 1, 26, 27, 28, 29, 30, 31, 127, b'x'],
            ),
        ] {
            assert_eq!(keys(words).0, bytes, "{words}");
            assert_eq!(keys(words).to_string(), words);
        }
        for words in ["", "a,", ",", "ctrl-", "ctrl-1", "ctrl-ab", "alt-x", "ö"] {
            assert!(words.parse::<DetachKeys>().is_err(), "{words}");
        }
    }

    #[test]
    fn what_only_begins_like_the_keys_is_handed_on() {
        let mut typed = Typed::new(keys("ctrl-p,ctrl-q"));
        assert_eq!(typed.take(b"ls\r"), (b"ls\r".to_vec(), false));
        assert_eq!(typed.take(&[16]), (vec![], false), "held back: more may come");
        assert_eq!(typed.take(b"x"), (vec![16, b'x'], false));
        assert_eq!(typed.take(&[16, 16]), (vec![16], false));
        assert_eq!(typed.take(&[17, b'y']), (vec![], true), "nothing behind them is handed on");
        let mut typed = Typed::new(keys("a,a,b"));
        assert_eq!(typed.take(b"aaab"), (b"a".to_vec(), true), "they may begin within what looked like them");
    }
}
