//! Flags of `run`, `create` and `measure` about the ID block of a launch.

use std::path::PathBuf;

use coffer_runtime::engine::LaunchIdentity;
use coffer_runtime::id_block::{LaunchNames, SignedLaunch};
use coffer_runtime::signing_key::{KeyPurpose, SigningKey};
use coffer_verifier::abi::{FamilyId, ImageId};

use crate::error::CliError;

/// Whose launch it is: signed here for the predicted measurement, or elsewhere by its author.
#[derive(Debug, clap::Args)]
pub struct IdFlags {
    /// Sign the launch with this private ID key: the report shows its digest.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id_block", "id_auth"], help_heading = "ID block")]
    id_key: Option<PathBuf>,
    #[command(flatten)]
    names: NameFlags,
    /// Launch with this ID block, signed elsewhere.
    #[arg(long, value_name = "FILE", requires = "id_auth", help_heading = "ID block")]
    id_block: Option<PathBuf>,
    /// ID authentication block that goes with --id-block.
    #[arg(long, value_name = "FILE", requires = "id_block", help_heading = "ID block")]
    id_auth: Option<PathBuf>,
}

/// What is signed beside the measurement.
#[derive(Debug, clap::Args)]
pub struct NameFlags {
    /// Sign the ID key with this private author key: rules about the author outlive the ID key.
    #[arg(long, value_name = "FILE", requires = "id_key", help_heading = "ID block")]
    pub author_key: Option<PathBuf>,
    /// FAMILY_ID of the report: 32 hex digits, or text of up to 16 bytes [default: zero].
    #[arg(long, value_name = "ID", requires = "id_key", value_parser = family_id, help_heading = "ID block")]
    pub family_id: Option<FamilyId>,
    /// IMAGE_ID of the report, in the same forms.
    #[arg(long, value_name = "ID", requires = "id_key", value_parser = image_id, help_heading = "ID block")]
    pub image_id: Option<ImageId>,
    /// GUEST_SVN of the report: a number that grows with each version that mends something [default: 0].
    #[arg(long, value_name = "N", requires = "id_key", help_heading = "ID block")]
    pub guest_svn: Option<u32>,
}

impl NameFlags {
    /// Names and version; what is left out is zero, as firmware has it.
    pub fn names(&self) -> LaunchNames {
        let none = LaunchNames::default();
        LaunchNames {
            family_id: self.family_id.unwrap_or(none.family_id),
            image_id: self.image_id.unwrap_or(none.image_id),
            guest_svn: self.guest_svn.unwrap_or(none.guest_svn),
        }
    }

    /// The author key, if one is given.
    pub fn author(&self) -> Result<Option<SigningKey>, CliError> {
        self.author_key.as_deref().map(|path| SigningKey::read(path, KeyPurpose::Author)).transpose()
    }
}

impl IdFlags {
    /// Whose launch it is, if that is asked for: keys and blocks are read here.
    ///
    /// # Errors
    /// Class `config`, naming the file.
    pub fn identity(&self) -> Result<Option<LaunchIdentity>, CliError> {
        if let Some(path) = &self.id_key {
            let (id, author) = (SigningKey::read(path, KeyPurpose::Id)?, self.names.author()?);
            let (id, author) = (Box::new(id), author.map(Box::new));
            return Ok(Some(LaunchIdentity::Sign { id, author, names: self.names.names() }));
        }
        let (Some(block), Some(auth)) = (&self.id_block, &self.id_auth) else { return Ok(None) };
        Ok(Some(LaunchIdentity::Signed(Box::new(SignedLaunch::read(block, auth)?))))
    }
}

/// Reads a FAMILY_ID.
pub fn family_id(text: &str) -> Result<FamilyId, String> {
    name16(text).map(FamilyId::new)
}

/// Reads an IMAGE_ID.
pub fn image_id(text: &str) -> Result<ImageId, String> {
    name16(text).map(ImageId::new)
}

/// 32 hex digits are 16 bytes; shorter text stands for itself, with zeros behind it.
fn name16(text: &str) -> Result<[u8; 16], String> {
    let expected = "expected 32 hexadecimal digits, or text of 1 to 16 bytes";
    if text.len() == 32 {
        return text.parse().map(|id: FamilyId| *id.as_bytes()).map_err(|_| expected.into());
    }
    if text.is_empty() || text.len() > 16 || text.chars().any(char::is_control) {
        return Err(expected.into());
    }
    let mut id = [0; 16];
    id[..text.len()].copy_from_slice(text.as_bytes());
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hex_or_text() {
        assert_eq!(name16(&"0a".repeat(16)).unwrap(), [10; 16]);
        assert_eq!(name16("web").unwrap(), *b"web\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(name16("sixteen bytes ok").unwrap(), *b"sixteen bytes ok");
        for bad in ["", "seventeen bytes !", "a\n", &"0g".repeat(16), &"00".repeat(17)] {
            assert!(name16(bad).is_err(), "{bad:?}");
        }
    }
}
