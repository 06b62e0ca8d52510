//! Permissions of what the guest makes for the workload, as chmod takes them; each has one spelling, four octal digits.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Permissions of a secret's file: who may read it. Written as four octal digits, such as `0440`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

/// Permissions of a folder that the guest mounts, with the bit by which each removes only what is his. Written as four octal digits,
/// such as `1777`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FolderMode(u32);

/// Why text is no permissions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mode {found:?}: expected {expected}")]
pub struct ModeError {
    /// What stood there; at most as many characters as fit on a line.
    pub found: String,
    /// What may stand there.
    pub expected: &'static str,
}

/// Four octal digits, of which the first says what the other three do not.
fn octal(text: &str) -> Option<u32> {
    let digits = text.len() == 4 && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    if digits { u32::from_str_radix(text, 8).ok() } else { None }
}

fn refused(text: &str, expected: &'static str) -> ModeError {
    ModeError { found: text.chars().take(80).collect(), expected }
}

impl FileMode {
    /// As chmod takes them.
    pub fn bits(self) -> u32 {
        self.0
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(crate) fn is_usual(&self) -> bool {
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
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        match octal(text) {
            Some(mode) if mode & !0o777 == 0 && mode & 0o444 != 0 => Ok(Self(mode)),
            _ => Err(refused(text, "four octal digits such as 0440, that let somebody read")),
        }
    }
}

impl FolderMode {
    /// These, if a folder may have them: nothing of set-user-id or set-group-id.
    pub fn new(bits: u32) -> Option<Self> {
        (bits & !0o1777 == 0).then_some(Self(bits))
    }

    /// As chmod takes them.
    pub fn bits(self) -> u32 {
        self.0
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for FolderMode {
    /// Everybody makes files there, and removes only his own.
    fn default() -> Self {
        Self(0o1777)
    }
}

impl FromStr for FolderMode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        let refused = || refused(text, "four octal digits such as 0750 or 1777");
        octal(text).and_then(Self::new).ok_or_else(refused)
    }
}

macro_rules! as_text {
    ($($mode:ident),*) => {$(
        impl TryFrom<String> for $mode {
            type Error = ModeError;

            fn try_from(text: String) -> Result<Self, ModeError> {
                text.parse()
            }
        }

        impl From<$mode> for String {
            fn from(mode: $mode) -> Self {
                mode.to_string()
            }
        }

        impl fmt::Display for $mode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{:04o}", self.0))
            }
        }
    )*};
}

as_text!(FileMode, FolderMode);

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

    #[test]
    fn a_folder_may_have_the_sticky_bit_and_nothing_of_another_users_rights() {
        for text in ["1777", "0750", "0000", "1000"] {
            assert_eq!(text.parse::<FolderMode>().unwrap().to_string(), text);
        }
        for bad in ["", "777", "01777", "2755", "4755", "3777", "7777", "0o77", "1778", "rwxt"] {
            assert!(bad.parse::<FolderMode>().is_err(), "{bad}");
        }
        assert_eq!(FolderMode::new(0o2755), None);
        assert_eq!(FolderMode::new(0o1777), Some(FolderMode::default()));
    }
}
