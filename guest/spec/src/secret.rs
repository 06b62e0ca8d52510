//! A secret of the key broker that a spec wants: from where, to where, and what follows when there is a new version of it.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Name, SecretPath};

/// One secret the guest fetches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretWanted {
    /// Where it lies at the broker.
    pub from: SecretPath,
    /// Permissions of the file.
    #[serde(default, skip_serializing_if = "FileMode::is_usual")]
    pub mode: FileMode,
    /// User whose file it is; the workload's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group whose file it is; the workload's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Where it goes.
    pub to: SecretTarget,
    /// What follows when the file was replaced by a new version; nothing where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<OnChange>,
}

impl SecretWanted {
    /// To this place, in the usual way.
    pub fn new(from: SecretPath, to: SecretTarget) -> Self {
        Self { from, mode: FileMode::default(), uid: None, gid: None, to, changed: None }
    }
}

/// Where a secret goes inside the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SecretTarget {
    /// `/run/secrets/NAME`.
    File(Name),
    /// Environment variable of the workload. It keeps the version that was there at the start.
    Env(Name),
}

/// What follows a new version of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OnChange {
    /// This signal to the workload's first process.
    Signal(i32),
    /// This program beside the workload, with its user, folder and environment.
    Command(Vec<String>),
}

/// Permissions of a secret's file: who may read it. Written as four octal digits, such as `0440`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

/// Why text is no permissions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mode {found:?}: expected four octal digits such as 0440, that let somebody read")]
pub struct FileModeError {
    /// What stood there; at most as many characters as fit on a line.
    pub found: String,
}

impl FileMode {
    /// As chmod takes them.
    pub fn bits(self) -> u32 {
        self.0
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for FileMode {
    /// Its owner reads it, and nobody else does anything.
    fn default() -> Self {
        Self(0o400)
    }
}

impl FromStr for FileMode {
    type Err = FileModeError;

    fn from_str(text: &str) -> Result<Self, FileModeError> {
        let octal = text.len() == 4 && text.starts_with('0') && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        let mode = if octal { u32::from_str_radix(text, 8).ok() } else { None };
        match mode {
            Some(mode) if mode & 0o444 != 0 => Ok(Self(mode)),
            _ => Err(FileModeError { found: text.chars().take(80).collect() }),
        }
    }
}

impl TryFrom<String> for FileMode {
    type Error = FileModeError;

    fn try_from(text: String) -> Result<Self, FileModeError> {
        text.parse()
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        mode.to_string()
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04o}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_have_one_spelling_and_let_somebody_read() {
        for text in ["0400", "0440", "0644", "0777"] {
            assert_eq!(text.parse::<FileMode>().unwrap().to_string(), text);
        }
        for bad in ["", "400", "0o400", "00400", "0800", "1400", "4755", "0000", "0200", "0333", "r--r"] {
            assert!(bad.parse::<FileMode>().is_err(), "{bad}");
        }
    }
}
