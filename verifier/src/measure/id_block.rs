//! ID block and ID authentication block: the launch an author signed for.
//!
//! The secure processor checks them at SNP_LAUNCH_FINISH; a verifier compares the digests in the report. What an author
//! needs before a launch is here too: the bytes to sign, the block made of signatures, and the same check off the host.
//! Never: holds a private key. Whoever signs does so elsewhere, and brings R and S.
//! Source: SNP ABI, SNP_LAUNCH_FINISH, ID Block and ID Authentication Information structures.

use std::ops::Range;

use sha2::{Digest, Sha384};

use super::PAGE_SIZE;
use crate::abi::{FamilyId, ImageId, KeyDigest, Measurement};
use crate::public_key::{P384PublicKey, SIGNATURE_SIZE};

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
    /// A reserved byte of the ID authentication block, or one of an author that is not there, is not zero.
    #[error("byte {at:#x} of the ID authentication block is reserved and is {found:#x}, expected 0")]
    Reserved {
        /// Where.
        at: usize,
        /// Value found.
        found: u8,
    },
    /// A key structure whose numbers are no point of P-384, or have bits where there are none.
    #[error("{0} holds no point of P-384")]
    Key(&'static str),
    /// A signature does not verify.
    #[error("{0} does not verify")]
    Signature(&'static str),
    /// One key in both roles would make the second signature say nothing.
    #[error("ID key and author key are one key, digest {0}")]
    SameKey(KeyDigest),
}

/// ID block: what the launch must be, and the names the report will carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdBlock {
    /// Launch digest expected.
    pub measurement: Measurement,
    /// Family of guests, as the author names it.
    pub family_id: FamilyId,
    /// Image of that family, as the author names it.
    pub image_id: ImageId,
    /// The guest's own version.
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
            family_id: FamilyId::new(array(bytes, 0x30)),
            image_id: ImageId::new(array(bytes, 0x40)),
            guest_svn: u32_at(bytes, 0x54),
            policy: u64::from_le_bytes(array(bytes, 0x58)),
        })
    }

    /// Writes the structure, which is what the ID key signs.
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..0x30].copy_from_slice(self.measurement.as_bytes());
        bytes[0x30..0x40].copy_from_slice(self.family_id.as_bytes());
        bytes[0x40..0x50].copy_from_slice(self.image_id.as_bytes());
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
    /// [`IdBlockError`] on another length or algorithm, or where a reserved byte is not zero.
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
        } else {
            expect("AUTH_KEY_ALGO without an author key", 0, u32_at(&page, 4))?;
            zero(&page, ID_KEY_SIGNATURE..AUTHOR_KEY)?;
        }
        for range in RESERVED {
            zero(&page, range)?;
        }
        Ok(auth)
    }

    /// Makes the structure from the ID key with its signature over the ID block, and, where there is one, the author key
    /// with its signature over [`key_structure`] of the ID key.
    ///
    /// # Errors
    /// [`IdBlockError::SameKey`]. Signatures are not checked here; [`IdAuth::verify`] does.
    pub fn new(id: Signed<'_>, author: Option<Signed<'_>>) -> Result<Self, IdBlockError> {
        let mut page = Box::new([0; PAGE_SIZE]);
        page[0..4].copy_from_slice(&1_u32.to_le_bytes());
        page[ID_BLOCK_SIGNATURE..ID_BLOCK_SIGNATURE + SIGNATURE_USED].copy_from_slice(&scalars(id.signature));
        page[ID_KEY..ID_KEY + KEY_STRUCTURE_SIZE].copy_from_slice(&key_structure(id.key));
        if let Some(author) = author {
            if author.key == id.key {
                return Err(IdBlockError::SameKey(key_digest(&key_structure(id.key))));
            }
            page[4..8].copy_from_slice(&1_u32.to_le_bytes());
            page[ID_KEY_SIGNATURE..ID_KEY_SIGNATURE + SIGNATURE_USED].copy_from_slice(&scalars(author.signature));
            page[AUTHOR_KEY..AUTHOR_KEY + KEY_STRUCTURE_SIZE].copy_from_slice(&key_structure(author.key));
        }
        Ok(Self(page))
    }

    /// The structure's bytes.
    pub fn as_bytes(&self) -> &[u8; PAGE_SIZE] {
        &self.0
    }

    /// Checks both signatures as the secure processor does at launch finish.
    ///
    /// # Errors
    /// [`IdBlockError::Key`] or [`IdBlockError::Signature`] names the part.
    pub fn verify(&self, block: &IdBlock) -> Result<(), IdBlockError> {
        let id_key = parse_key_structure("ID key", self.id_key())?;
        if !signed(&id_key, &block.to_bytes(), self.id_block_signature()) {
            return Err(IdBlockError::Signature("signature of the ID key over the ID block"));
        }
        if !self.has_author() {
            return Ok(());
        }
        let author_key = parse_key_structure("author key", self.author_key())?;
        if !signed(&author_key, self.id_key(), self.id_key_signature()) {
            return Err(IdBlockError::Signature("signature of the author key over the ID key"));
        }
        Ok(())
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

/// A key and what it signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Who signed.
    pub key: &'a P384PublicKey,
    /// R, then S, big endian.
    pub signature: &'a [u8; SIGNATURE_SIZE],
}

/// The public key structure of a key: curve 2, QX and QY little endian in 72 bytes each, zeros. An author key signs
/// these bytes of the ID key.
pub fn key_structure(key: &P384PublicKey) -> [u8; KEY_STRUCTURE_SIZE] {
    let mut bytes = [0; KEY_STRUCTURE_SIZE];
    bytes[..4].copy_from_slice(&2_u32.to_le_bytes());
    bytes[4..76].copy_from_slice(&little_endian(key.x()));
    bytes[76..148].copy_from_slice(&little_endian(key.y()));
    bytes
}

fn parse_key_structure(name: &'static str, bytes: &[u8]) -> Result<P384PublicKey, IdBlockError> {
    let refused = || IdBlockError::Key(name);
    let x = bytes.get(4..76).and_then(big_endian).ok_or_else(refused)?;
    let y = bytes.get(76..148).and_then(big_endian).ok_or_else(refused)?;
    if bytes[148..].iter().any(|byte| *byte != 0) {
        return Err(refused());
    }
    P384PublicKey::from_point(x, y).map_err(|_| refused())
}

fn signed(key: &P384PublicKey, message: &[u8], scalars: &[u8]) -> bool {
    let halves = scalars.split_at_checked(72).and_then(|(r, s)| Some([big_endian(r)?, big_endian(s)?].concat()));
    halves.and_then(|both| both.try_into().ok()).is_some_and(|signature| key.verifies(message, &signature))
}

fn scalars(signature: &[u8; SIGNATURE_SIZE]) -> [u8; SIGNATURE_USED] {
    let mut bytes = [0; SIGNATURE_USED];
    bytes[..72].copy_from_slice(&little_endian(&array(signature, 0)));
    bytes[72..].copy_from_slice(&little_endian(&array(signature, 48)));
    bytes
}

fn little_endian(number: &[u8; 48]) -> [u8; 72] {
    let mut bytes = [0; 72];
    bytes[..48].copy_from_slice(number);
    bytes[..48].reverse();
    bytes
}

fn big_endian(field: &[u8]) -> Option<[u8; 48]> {
    let (used, padding) = field.split_at_checked(48)?;
    if padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut number: [u8; 48] = used.try_into().ok()?;
    number.reverse();
    Some(number)
}

/// SHA-384 of a public key structure.
pub fn key_digest(structure: &[u8]) -> KeyDigest {
    KeyDigest::new(Sha384::digest(structure).into())
}

fn expect(field: &'static str, expected: u32, found: u32) -> Result<(), IdBlockError> {
    if found == expected { Ok(()) } else { Err(IdBlockError::Field { field, expected, found }) }
}

fn zero(page: &[u8; PAGE_SIZE], range: Range<usize>) -> Result<(), IdBlockError> {
    match range.clone().find(|at| page[*at] != 0) {
        Some(at) => Err(IdBlockError::Reserved { at, found: page[at] }),
        None => Ok(()),
    }
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
/// Between and behind the fields, the ends of the signature fields included.
const RESERVED: [Range<usize>; 5] = [
    0x8..ID_BLOCK_SIGNATURE,
    ID_BLOCK_SIGNATURE + SIGNATURE_USED..ID_KEY,
    ID_KEY + KEY_STRUCTURE_SIZE..ID_KEY_SIGNATURE,
    ID_KEY_SIGNATURE + SIGNATURE_USED..AUTHOR_KEY,
    AUTHOR_KEY + KEY_STRUCTURE_SIZE..PAGE_SIZE,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the genuine vectors, where they are.
    fn read(name: &str) -> Option<Vec<u8>> {
        Some(std::fs::read(super::super::vectors::folder()?.join("idblock").join(name)).unwrap())
    }

    fn vectors() -> Option<(IdBlock, IdAuth)> {
        Some((IdBlock::parse(&read("id_block.bin")?).unwrap(), IdAuth::parse(&read("id_auth.bin")?).unwrap()))
    }

    #[test]
    fn agrees_with_the_id_block_vectors() {
        let Some((block, auth)) = vectors() else { return };
        let facts: serde_json::Value = serde_json::from_slice(&read("idblock.json").unwrap()).unwrap();
        let text = |name: &str| facts[name].as_str().unwrap().to_owned();
        assert_eq!(block.to_bytes().as_slice(), read("id_block.bin").unwrap());
        assert_eq!(block.measurement.to_string(), text("launch_digest"));
        assert_eq!(block.family_id.to_string(), text("family_id"));
        assert_eq!(block.image_id.to_string(), text("image_id"));
        assert_eq!((block.guest_svn, block.policy), (7, 0x30000));
        assert_eq!(auth.id_key_digest().to_string(), text("id_key_digest"));
        assert_eq!(auth.author_key_digest().unwrap().to_string(), text("author_key_digest"));
    }

    #[test]
    fn refuses_other_lengths_versions_and_algorithms() {
        assert!(matches!(IdBlock::parse(&[0; 95]), Err(IdBlockError::Length { .. })));
        assert!(matches!(IdBlock::parse(&[0; 96]), Err(IdBlockError::Field { field: "ID block version", .. })));
        assert!(matches!(IdAuth::parse(&[0; 4096]), Err(IdBlockError::Field { field: "ID_KEY_ALGO", .. })));
    }

    #[test]
    fn the_vectors_signatures_verify_and_nothing_else_does() {
        let Some((block, auth)) = vectors() else { return };
        assert_eq!(auth.verify(&block), Ok(()));
        for other in [
            IdBlock { measurement: Measurement::new([1; 48]), ..block },
            IdBlock { policy: block.policy ^ 1, ..block },
            IdBlock { guest_svn: 8, ..block },
            IdBlock { family_id: FamilyId::new([0; 16]), ..block },
            IdBlock { image_id: ImageId::new([0; 16]), ..block },
        ] {
            let expected = IdBlockError::Signature("signature of the ID key over the ID block");
            assert_eq!(auth.verify(&other), Err(expected), "{other:?}");
        }
        let with = |at: usize| {
            let mut bytes = *auth.as_bytes();
            bytes[at] ^= 1;
            IdAuth::parse(&bytes).unwrap().verify(&block)
        };
        let id = IdBlockError::Signature("signature of the ID key over the ID block");
        let author = IdBlockError::Signature("signature of the author key over the ID key");
        // R, its padding, S and its padding.
        for at in [0, 47, 48, 71, 72, 119, 120, 143] {
            assert_eq!(with(ID_BLOCK_SIGNATURE + at), Err(id.clone()), "{at}");
            assert_eq!(with(ID_KEY_SIGNATURE + at), Err(author.clone()), "{at}");
        }
        assert_eq!(with(ID_KEY + 4), Err(IdBlockError::Key("ID key")));
        assert_eq!(with(AUTHOR_KEY + 76), Err(IdBlockError::Key("author key")));
        // Behind the numbers of a key there is nothing.
        assert_eq!(with(ID_KEY + KEY_STRUCTURE_SIZE - 1), Err(IdBlockError::Key("ID key")));
        assert_eq!(with(AUTHOR_KEY + 148), Err(IdBlockError::Key("author key")));
    }

    #[test]
    fn reserved_bytes_are_zero() {
        let Some((_, auth)) = vectors() else { return };
        let with = |at: usize, page: &[u8; PAGE_SIZE]| {
            let mut bytes = *page;
            bytes[at] ^= 1;
            IdAuth::parse(&bytes).map(|_| ())
        };
        for at in [0x8, 0x3f, 0xd0, 0x1ff, 0x23f, 0x644, 0x67f, 0x710, 0x87f, 0xc84, 0xfff] {
            assert_eq!(with(at, auth.as_bytes()), Err(IdBlockError::Reserved { at, found: 1 }), "{at:#x}");
        }
        let mut alone = *auth.as_bytes();
        alone[4..8].fill(0);
        alone[ID_KEY_SIGNATURE..].fill(0);
        assert!(!IdAuth::parse(&alone).unwrap().has_author());
        assert_eq!(with(ID_KEY_SIGNATURE, &alone), Err(IdBlockError::Reserved { at: ID_KEY_SIGNATURE, found: 1 }));
        assert!(matches!(with(4, &alone), Err(IdBlockError::Field { expected: 0, found: 1, .. })));
    }

    #[test]
    fn what_is_made_of_keys_and_signatures_is_what_the_vectors_hold() {
        let Some((block, auth)) = vectors() else { return };
        let (id, author) = (test_key("id_key.pem"), test_key("author_key.pem"));
        assert_eq!(key_structure(&id.1).as_slice(), auth.id_key());
        assert_eq!(key_structure(&author.1).as_slice(), auth.author_key());
        let (over_block, over_key) = (sign(&id.0, &block.to_bytes()), sign(&author.0, auth.id_key()));
        let by_id = Signed { key: &id.1, signature: &over_block };
        let made = IdAuth::new(by_id, Some(Signed { key: &author.1, signature: &over_key })).unwrap();
        let again = IdAuth::parse(made.as_bytes()).unwrap();
        assert_eq!(again.verify(&block), Ok(()));
        assert_eq!(
            (again.id_key_digest(), again.author_key_digest()),
            (auth.id_key_digest(), auth.author_key_digest())
        );
        let alone = IdAuth::parse(IdAuth::new(by_id, None).unwrap().as_bytes()).unwrap();
        assert_eq!((alone.verify(&block), alone.author_key_digest()), (Ok(()), None));
        assert!(matches!(IdAuth::new(by_id, Some(by_id)), Err(IdBlockError::SameKey(_))));
        let crossed = IdAuth::new(Signed { key: &id.1, signature: &over_key }, None).unwrap();
        assert!(crossed.verify(&block).is_err());
    }

    fn test_key(file: &str) -> (p384::ecdsa::SigningKey, P384PublicKey) {
        use p384::pkcs8::DecodePrivateKey as _;
        let text = String::from_utf8(read(file).unwrap()).unwrap();
        let key = p384::ecdsa::SigningKey::from_pkcs8_pem(&text).unwrap();
        let public = P384PublicKey::from_sec1(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
        (key, public)
    }

    fn sign(key: &p384::ecdsa::SigningKey, message: &[u8]) -> [u8; SIGNATURE_SIZE] {
        use p384::ecdsa::{Signature, signature::Signer as _};
        let signature: Signature = key.sign(message);
        signature.to_bytes().into()
    }
}
