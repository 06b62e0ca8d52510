//! ID block and ID authentication block: the launch an author signed for.
//!
//! Layout only. The secure processor checks them at SNP_LAUNCH_FINISH; a verifier compares the digests in the report.
//! Source: SNP ABI, SNP_LAUNCH_FINISH, ID Block and ID Authentication Information structures.

use sha2::{Digest, Sha384};

use super::PAGE_SIZE;
use crate::abi::{KeyDigest, Measurement};

/// Bytes of a public key structure.
pub const KEY_STRUCTURE_SIZE: usize = 0x404;

/// Why bytes are no ID block or ID authentication block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdBlockError {
    /// Wrong number of bytes.
    #[error("{structure} is {expected} bytes, found {found}")]
    Length {
        /// Name of the structure.
        structure: &'static str,
        /// Bytes it has.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A field holds what it may not.
    #[error("{field} is {found:#x}, expected {expected:#x}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Value it must have.
        expected: u32,
        /// Value found.
        found: u32,
    },
}

/// ID block: what the launch must be, and the names the report will carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdBlock {
    /// Launch digest expected.
    pub measurement: Measurement,
    /// FAMILY_ID.
    pub family_id: [u8; 16],
    /// IMAGE_ID.
    pub image_id: [u8; 16],
    /// GUEST_SVN.
    pub guest_svn: u32,
    /// Guest policy expected.
    pub policy: u64,
}

impl IdBlock {
    /// Bytes of the structure.
    pub const SIZE: usize = 0x60;

    /// Reads the structure.
    ///
    /// # Errors
    /// [`IdBlockError`] on another length, or a version other than 1.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdBlockError> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().map_err(|_| IdBlockError::Length {
            structure: "ID block",
            expected: Self::SIZE,
            found: bytes.len(),
        })?;
        expect("ID block version", 1, u32_at(bytes, 0x50))?;
        Ok(Self {
            measurement: Measurement::new(array(bytes, 0)),
            family_id: array(bytes, 0x30),
            image_id: array(bytes, 0x40),
            guest_svn: u32_at(bytes, 0x54),
            policy: u64::from_le_bytes(array(bytes, 0x58)),
        })
    }

    /// Writes the structure, which is what the ID key signs.
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..0x30].copy_from_slice(self.measurement.as_bytes());
        bytes[0x30..0x40].copy_from_slice(&self.family_id);
        bytes[0x40..0x50].copy_from_slice(&self.image_id);
        bytes[0x50..0x54].copy_from_slice(&1_u32.to_le_bytes());
        bytes[0x54..0x58].copy_from_slice(&self.guest_svn.to_le_bytes());
        bytes[0x58..].copy_from_slice(&self.policy.to_le_bytes());
        bytes
    }
}

/// ID authentication block: signatures and the keys they are to be checked with.
#[derive(Clone)]
pub struct IdAuth(Box<[u8; PAGE_SIZE]>);

impl IdAuth {
    /// Reads the structure.
    ///
    /// # Errors
    /// [`IdBlockError`] on another length or algorithm.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdBlockError> {
        let page: [u8; PAGE_SIZE] = bytes.try_into().map_err(|_| IdBlockError::Length {
            structure: "ID authentication block",
            expected: PAGE_SIZE,
            found: bytes.len(),
        })?;
        expect("ID_KEY_ALGO", 1, u32_at(&page, 0))?;
        expect("ID key curve", 2, u32_at(&page, ID_KEY))?;
        let auth = Self(Box::new(page));
        if auth.has_author() {
            expect("AUTH_KEY_ALGO", 1, u32_at(&page, 4))?;
            expect("author key curve", 2, u32_at(&page, AUTHOR_KEY))?;
        }
        Ok(auth)
    }

    /// True if an author key stands in it.
    pub fn has_author(&self) -> bool {
        self.0[AUTHOR_KEY..AUTHOR_KEY + KEY_STRUCTURE_SIZE].iter().any(|byte| *byte != 0)
    }

    /// Signature over the ID block: R and S, 72 bytes little endian each.
    pub fn id_block_signature(&self) -> &[u8] {
        &self.0[ID_BLOCK_SIGNATURE..ID_BLOCK_SIGNATURE + SIGNATURE_USED]
    }

    /// ID key structure.
    pub fn id_key(&self) -> &[u8] {
        &self.0[ID_KEY..ID_KEY + KEY_STRUCTURE_SIZE]
    }

    /// Signature of the author key over the ID key structure.
    pub fn id_key_signature(&self) -> &[u8] {
        &self.0[ID_KEY_SIGNATURE..ID_KEY_SIGNATURE + SIGNATURE_USED]
    }

    /// Author key structure.
    pub fn author_key(&self) -> &[u8] {
        &self.0[AUTHOR_KEY..AUTHOR_KEY + KEY_STRUCTURE_SIZE]
    }

    /// ID_KEY_DIGEST the report will carry.
    pub fn id_key_digest(&self) -> KeyDigest {
        key_digest(self.id_key())
    }

    /// AUTHOR_KEY_DIGEST the report will carry, if there is an author key.
    pub fn author_key_digest(&self) -> Option<KeyDigest> {
        self.has_author().then(|| key_digest(self.author_key()))
    }
}

/// SHA-384 of a public key structure.
pub fn key_digest(structure: &[u8]) -> KeyDigest {
    KeyDigest::new(Sha384::digest(structure).into())
}

fn expect(field: &'static str, expected: u32, found: u32) -> Result<(), IdBlockError> {
    if found == expected { Ok(()) } else { Err(IdBlockError::Field { field, expected, found }) }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("offsets are constants inside the structure")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

const ID_BLOCK_SIGNATURE: usize = 0x40;
const ID_KEY: usize = 0x240;
const ID_KEY_SIGNATURE: usize = 0x680;
const AUTHOR_KEY: usize = 0x880;
const SIGNATURE_USED: usize = 144;

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors/measure/idblock/");

    #[test]
    fn agrees_with_the_id_block_vectors() {
        let read = |name: &str| std::fs::read(format!("{FOLDER}{name}")).unwrap();
        let facts: serde_json::Value = serde_json::from_slice(&read("idblock.json")).unwrap();
        let text = |name: &str| facts[name].as_str().unwrap().to_owned();
        let block = IdBlock::parse(&read("id_block.bin")).unwrap();
        assert_eq!(block.to_bytes().as_slice(), read("id_block.bin"));
        assert_eq!(block.measurement.to_string(), text("launch_digest"));
        assert_eq!(hex::encode(block.family_id), text("family_id"));
        assert_eq!(hex::encode(block.image_id), text("image_id"));
        assert_eq!((block.guest_svn, block.policy), (7, 0x30000));
        let auth = IdAuth::parse(&read("id_auth.bin")).unwrap();
        assert_eq!(auth.id_key_digest().to_string(), text("id_key_digest"));
        assert_eq!(auth.author_key_digest().unwrap().to_string(), text("author_key_digest"));
    }

    #[test]
    fn refuses_other_lengths_versions_and_algorithms() {
        assert!(matches!(IdBlock::parse(&[0; 95]), Err(IdBlockError::Length { .. })));
        assert!(matches!(IdBlock::parse(&[0; 96]), Err(IdBlockError::Field { field: "ID block version", .. })));
        assert!(matches!(IdAuth::parse(&[0; 4096]), Err(IdBlockError::Field { field: "ID_KEY_ALGO", .. })));
    }
}
