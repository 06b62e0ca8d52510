//! Secrets that go into a program's environment, from the key broker's answer to the program's start.
//!
//! Trusts: the spec for the names. Never: shown, copied, compared or serialised by accident; the one way out of the agent is
//! [`SecretEnv::write_to`], into a memory file that only a helper of ours is given.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
};

use coffer_spec::Name;
use secrecy::{ExposeSecret, SecretBox};

/// The kernel takes no string of 128 KiB or more from a program it starts (MAX_ARG_STRLEN, with its final NUL).
const LONGEST: usize = 128 * 1024 - 1;
/// More than a spec of the longest size can list.
const MOST: usize = 4096;

/// Variables with secret values. Wiped on drop.
#[derive(Default)]
pub struct SecretEnv(Vec<SecretBox<Vec<u8>>>);

/// Why a secret cannot go into an environment. Never holds the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretEnvError {
    /// A variable without a value is one that a program takes for absent.
    #[error("is empty, so it cannot go into the environment")]
    Empty,
    /// An environment is made of strings that end at a NUL.
    #[error("is not text, so it cannot go into the environment")]
    NotText,
    /// The kernel would not start the program.
    #[error("is longer than the {LONGEST} bytes that fit into the environment")]
    TooLong,
}

impl SecretEnv {
    /// Sets a variable: in place of one of that name, or beside the others.
    ///
    /// # Errors
    /// [`SecretEnvError`]; nothing was set.
    pub fn set(&mut self, name: &Name, value: &[u8]) -> Result<(), SecretEnvError> {
        if value.is_empty() {
            return Err(SecretEnvError::Empty);
        }
        if value.contains(&0) || core::str::from_utf8(value).is_err() {
            return Err(SecretEnvError::NotText);
        }
        let name = name.as_str().as_bytes();
        let length = name.len() + 1 + value.len();
        if length > LONGEST {
            return Err(SecretEnvError::TooLong);
        }
        // With its room from the start, so that no smaller copy is left behind.
        let mut entry = Vec::with_capacity(length);
        entry.extend_from_slice(name);
        entry.push(b'=');
        entry.extend_from_slice(value);
        let entry = SecretBox::new(Box::new(entry));
        let named = |old: &&mut SecretBox<Vec<u8>>| {
            old.expose_secret().get(..=name.len()) == entry.expose_secret().get(..=name.len())
        };
        match self.0.iter_mut().find(named) {
            Some(old) => *old = entry,
            None => self.0.push(entry),
        }
        Ok(())
    }

    /// Writes every entry: u32 little-endian count, then each entry's length in the same form and its bytes.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_to(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(&length(self.0.len())?)?;
        for entry in &self.0 {
            let entry = entry.expose_secret();
            out.write_all(&length(entry.len())?)?;
            out.write_all(entry)?;
        }
        Ok(())
    }

    /// Reads what [`Self::write_to`] wrote, to its last byte.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`].
    pub fn read_from(mut bytes: &[u8]) -> io::Result<Self> {
        let count = take_length(&mut bytes, MOST)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let length = take_length(&mut bytes, LONGEST)?;
            let (entry, rest) = bytes.split_at_checked(length).ok_or(io::ErrorKind::InvalidData)?;
            entries.push(SecretBox::new(Box::new(entry.to_vec())));
            bytes = rest;
        }
        if bytes.is_empty() { Ok(Self(entries)) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Shows each variable to `each`, as name and value.
    pub fn expose(&self, mut each: impl FnMut(&OsStr, &OsStr)) {
        for entry in &self.0 {
            let entry = entry.expose_secret();
            let Some(at) = entry.iter().position(|byte| *byte == b'=') else { continue };
            each(OsStr::from_bytes(&entry[..at]), OsStr::from_bytes(&entry[at + 1..]));
        }
    }
}

fn length(count: usize) -> io::Result<[u8; 4]> {
    u32::try_from(count).map(u32::to_le_bytes).map_err(io::Error::other)
}

fn take_length(bytes: &mut &[u8], most: usize) -> io::Result<usize> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(io::ErrorKind::InvalidData)?;
    *bytes = rest;
    let length = u32::from_le_bytes(*length) as usize;
    if length <= most { Ok(length) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use core::fmt::{Debug, Display};

    use coffer_spec::sample::name;
    use static_assertions::assert_not_impl_any;

    use super::*;

    assert_not_impl_any!(SecretEnv: Debug, Display, Clone, PartialEq, serde::Serialize);

    fn shown(env: &SecretEnv) -> Vec<(String, String)> {
        let mut all = Vec::new();
        env.expose(|name, value| all.push((name.to_str().unwrap().into(), value.to_str().unwrap().into())));
        all
    }

    #[test]
    fn a_helper_reads_back_what_the_agent_wrote() {
        let mut env = SecretEnv::default();
        env.set(&name("TOKEN"), b"a=b").unwrap();
        env.set(&name("OTHER"), "ü".as_bytes()).unwrap();
        let mut bytes = Vec::new();
        env.write_to(&mut bytes).unwrap();
        let again = SecretEnv::read_from(&bytes).unwrap();
        assert_eq!(shown(&again), [("TOKEN".into(), "a=b".into()), ("OTHER".into(), "ü".into())]);
        for cut in 0..bytes.len() {
            assert!(SecretEnv::read_from(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(SecretEnv::read_from(&[bytes.as_slice(), b"x"].concat()).is_err());
    }

    #[test]
    fn a_variable_that_is_set_again_has_one_value() {
        let mut env = SecretEnv::default();
        for (variable, value) in [("TOKEN", "one"), ("TOKENS", "many"), ("TOKEN", "two")] {
            env.set(&name(variable), value.as_bytes()).unwrap();
        }
        assert_eq!(shown(&env), [("TOKEN".into(), "two".into()), ("TOKENS".into(), "many".into())]);
    }

    #[test]
    fn what_no_environment_holds_is_refused_by_its_kind() {
        let mut env = SecretEnv::default();
        let mut set = |value: &[u8]| env.set(&name("N"), value);
        assert_eq!(set(b""), Err(SecretEnvError::Empty));
        assert_eq!(set(b"a\0b"), Err(SecretEnvError::NotText));
        assert_eq!(set(b"\xff"), Err(SecretEnvError::NotText));
        assert_eq!(set(&vec![b'x'; LONGEST]), Err(SecretEnvError::TooLong));
        assert_eq!(set(&vec![b'x'; LONGEST - 2]), Ok(()));
    }
}
