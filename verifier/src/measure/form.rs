//! The two ways a guest is launched, each of them a MEASUREMENT of its own.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How the first processor enters the guest, and with it which pages are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaunchForm {
    /// At the reset vector of a ROM that ends at 4 GiB: QEMU, and whoever loads OVMF.
    ResetVector,
    /// In 64-bit mode, in an image that the monitor loads with its page tables.
    LongMode,
}

impl LaunchForm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ResetVector, Self::LongMode];

    /// Its name, on command lines and in manifests.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ResetVector => "reset-vector",
            Self::LongMode => "long-mode",
        }
    }
}

impl fmt::Display for LaunchForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that names no launch form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("launch form {0:?} is unknown; known are reset-vector, long-mode")]
pub struct UnknownForm(String);

impl FromStr for LaunchForm {
    type Err = UnknownForm;

    fn from_str(word: &str) -> Result<Self, UnknownForm> {
        Self::ALL.into_iter().find(|form| form.word() == word).ok_or_else(|| UnknownForm(word.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_one_word_everywhere() {
        for form in LaunchForm::ALL {
            assert_eq!(serde_json::to_value(form).unwrap(), form.word());
            assert_eq!(form.to_string().parse(), Ok(form));
        }
        let refused = "reset_vector".parse::<LaunchForm>().unwrap_err().to_string();
        assert!(refused.contains("reset-vector, long-mode"), "{refused}");
    }
}
