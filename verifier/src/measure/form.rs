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
    /// Not at all: a box in namespaces of its host's kernel, which simulated processors measure by a page of its own.
    Namespaces,
}

impl LaunchForm {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::ResetVector, Self::LongMode, Self::Namespaces];

    /// Those of a machine, which hardware can launch. No manifest vouches for another.
    pub const MACHINES: [Self; 2] = [Self::ResetVector, Self::LongMode];

    /// Whether there is a machine.
    pub const fn is_machine(self) -> bool {
        matches!(self, Self::ResetVector | Self::LongMode)
    }

    /// Its name, on command lines and in manifests.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ResetVector => "reset-vector",
            Self::LongMode => "long-mode",
            Self::Namespaces => "namespaces",
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
#[error("launch form {0:?} is unknown; known are reset-vector, long-mode, namespaces")]
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
        assert_eq!(
            LaunchForm::ALL.into_iter().filter(|form| form.is_machine()).collect::<Vec<_>>(),
            LaunchForm::MACHINES
        );
        let refused = "reset_vector".parse::<LaunchForm>().unwrap_err().to_string();
        assert!(refused.contains("reset-vector, long-mode"), "{refused}");
    }
}
