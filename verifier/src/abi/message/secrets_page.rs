//! The secrets page: what the secure processor alone tells a guest at launch.
//!
//! Source: SNP ABI, Secrets Page format.

use super::{MESSAGE_PAGE, Vmpck};

/// Secrets page, the fields a guest at VMPL 0 uses.
pub struct SecretsPage {
    /// Version of the layout.
    pub version: u32,
    /// CPUID family, model, stepping as the firmware packs them.
    pub family_model_stepping: u32,
    /// Message keys of VMPL 0 to 3.
    pub vmpcks: [Vmpck; 4],
}

/// Why a page is no secrets page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretsPageError {
    /// Layout version outside 2 to 4.
    #[error("secrets page version is {found}, expected 2 to 4")]
    Version {
        /// Version found.
        found: u32,
    },
    /// The key of VMPL 0 is gone: the page was used and wiped, or never filled.
    #[error("secrets page holds no VMPCK0")]
    NoKey,
}

impl SecretsPage {
    /// Reads the page; the caller wipes it afterwards.
    ///
    /// # Errors
    /// [`SecretsPageError`].
    pub fn parse(page: &[u8; MESSAGE_PAGE]) -> Result<Self, SecretsPageError> {
        let version = u32_at(page, 0);
        if !(2..=4).contains(&version) {
            return Err(SecretsPageError::Version { found: version });
        }
        let vmpcks = [0, 1, 2, 3].map(|index| {
            let at = VMPCK0 + 32 * index;
            Vmpck::new(page[at..at + 32].try_into().expect("32 bytes"))
        });
        if vmpcks[0].expose().iter().all(|byte| *byte == 0) {
            return Err(SecretsPageError::NoKey);
        }
        Ok(Self { version, family_model_stepping: u32_at(page, 8), vmpcks })
    }

    /// Writes the page.
    pub fn to_page(&self) -> Box<[u8; MESSAGE_PAGE]> {
        let mut page = Box::new([0; MESSAGE_PAGE]);
        page[..4].copy_from_slice(&self.version.to_le_bytes());
        page[8..12].copy_from_slice(&self.family_model_stepping.to_le_bytes());
        for (index, key) in self.vmpcks.iter().enumerate() {
            let at = VMPCK0 + 32 * index;
            page[at..at + 32].copy_from_slice(key.expose());
        }
        page
    }
}

fn u32_at(page: &[u8; MESSAGE_PAGE], at: usize) -> u32 {
    u32::from_le_bytes(page[at..at + 4].try_into().expect("four bytes"))
}

const VMPCK0: usize = 0x20;
