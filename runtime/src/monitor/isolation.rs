//! The words of `--isolation`.

use std::fmt;

use coffer_verifier::measure::LaunchForm;
use serde::{Deserialize, Serialize};

/// What stands between a guest and its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Our own monitor on KVM.
    Kvm,
    /// QEMU: on KVM where that runs Linux, else in its translator. What boxes were made with before the word was recorded.
    #[default]
    Qemu,
    /// Linux namespaces, no machine.
    Process,
}

impl Isolation {
    /// Every word, the strongest first.
    pub const ALL: [Self; 3] = [Self::Kvm, Self::Qemu, Self::Process];

    /// What launches on SEV-SNP where nobody named it. QEMU is asked for by name alone: it launches in another form, and which
    /// MEASUREMENT a guest has is not to depend on what happens to work on a host.
    pub const WITH_SNP: [Self; 1] = [Self::Kvm];

    /// What a box may get that nobody asked a word for, the strongest first. Hardware is asked for by name (`--tee`), and so
    /// is doing without a machine.
    pub const UNASKED: [Self; 2] = [Self::Kvm, Self::Qemu];

    /// How its monitor launches a guest, and so what is measured of one.
    pub const fn launch_form(self) -> LaunchForm {
        match self {
            Self::Kvm => LaunchForm::LongMode,
            Self::Qemu => LaunchForm::ResetVector,
            Self::Process => LaunchForm::Namespaces,
        }
    }

    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
            Self::Process => "process",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_written_as_it_is_recorded() {
        for isolation in Isolation::ALL {
            assert_eq!(serde_json::to_value(isolation).unwrap(), isolation.word());
        }
    }
}
