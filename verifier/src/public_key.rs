//! A P-384 public key: what ID keys, author keys and manifest keys have in common.
//!
//! One key has one DER encoding here, so one digest names it: SHA-256 of the SubjectPublicKeyInfo.
//! Signatures are ECDSA with SHA-384, R and S of 48 bytes each, big endian.
//! Source: RFC 5480 §2; SEC 1 §2.3.3; RFC 7468.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::abi::SpkiDigest;

/// Bytes of a signature: R, then S, big endian.
pub const SIGNATURE_SIZE: usize = 96;

/// Why bytes are no P-384 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// Not the SubjectPublicKeyInfo of an uncompressed P-384 point.
    #[error("not the SubjectPublicKeyInfo of a P-384 key with an uncompressed point")]
    Encoding,
    /// Not PEM of a public key.
    #[error("no PEM block PUBLIC KEY")]
    Pem,
    /// Not on the curve.
    #[error("the point is not on the curve P-384")]
    Point,
}

/// A point on P-384 other than infinity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct P384PublicKey {
    x: [u8; 48],
    y: [u8; 48],
}

impl P384PublicKey {
    /// From the coordinates, big endian.
    ///
    /// # Errors
    /// [`PublicKeyError::Point`].
    pub fn from_point(x: [u8; 48], y: [u8; 48]) -> Result<Self, PublicKeyError> {
        let key = Self { x, y };
        ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key.to_sec1()).map_err(|_| PublicKeyError::Point)?;
        Ok(key)
    }

    /// From an uncompressed point: 04, X, Y.
    ///
    /// # Errors
    /// [`PublicKeyError`].
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, PublicKeyError> {
        let point: &[u8; 97] = bytes.try_into().map_err(|_| PublicKeyError::Encoding)?;
        let (tag, point) = (point[0], &point[1..]);
        if tag != 4 {
            return Err(PublicKeyError::Encoding);
        }
        let (mut x, mut y) = ([0; 48], [0; 48]);
        x.copy_from_slice(&point[..48]);
        y.copy_from_slice(&point[48..]);
        Self::from_point(x, y)
    }

    /// From a DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`PublicKeyError`].
    pub fn from_spki_der(der: &[u8]) -> Result<Self, PublicKeyError> {
        Self::from_sec1(der.strip_prefix(SPKI_PREFIX.as_slice()).ok_or(PublicKeyError::Encoding)?)
    }

    /// From PEM with one block `PUBLIC KEY`; text around it is ignored.
    ///
    /// # Errors
    /// [`PublicKeyError`].
    pub fn from_pem(text: &str) -> Result<Self, PublicKeyError> {
        let (_, body) = text.split_once(PEM_BEGIN).ok_or(PublicKeyError::Pem)?;
        let (body, _) = body.split_once(PEM_END).ok_or(PublicKeyError::Pem)?;
        let compact: String = body.split_ascii_whitespace().collect();
        Self::from_spki_der(&STANDARD.decode(compact).map_err(|_| PublicKeyError::Pem)?)
    }

    /// X, big endian.
    pub const fn x(&self) -> &[u8; 48] {
        &self.x
    }

    /// Y, big endian.
    pub const fn y(&self) -> &[u8; 48] {
        &self.y
    }

    /// The uncompressed point.
    pub fn to_sec1(&self) -> [u8; 97] {
        let mut point = [4; 97];
        point[1..49].copy_from_slice(&self.x);
        point[49..].copy_from_slice(&self.y);
        point
    }

    /// The DER SubjectPublicKeyInfo.
    pub fn to_spki_der(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.to_sec1()].concat()
    }

    /// PEM of the SubjectPublicKeyInfo.
    pub fn to_pem(&self) -> String {
        let body = STANDARD.encode(self.to_spki_der());
        let mut text = format!("{PEM_BEGIN}\n");
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = tail;
        }
        text.push_str(PEM_END);
        text.push('\n');
        text
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the key's name.
    pub fn spki_digest(&self) -> SpkiDigest {
        SpkiDigest::of(&self.to_spki_der())
    }

    /// Whether this key signed the message.
    pub fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_SIZE]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, self.to_sec1()).verify(message, signature).is_ok()
    }
}

impl core::fmt::Debug for P384PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "P384PublicKey(spki sha256 {})", self.spki_digest())
    }
}

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
/// SEQUENCE { SEQUENCE { id-ecPublicKey, secp384r1 }, BIT STRING of 97 bytes }, up to the point.
const SPKI_PREFIX: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22, 0x03, 0x62, 0x00,
];

#[cfg(test)]
mod tests {
    use p384::{
        ecdsa::{Signature, SigningKey, signature::Signer as _},
        pkcs8::{EncodePublicKey as _, LineEnding},
    };

    use super::*;

    fn pair() -> (SigningKey, P384PublicKey) {
        let key = SigningKey::from_slice(&[7; 48]).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let public = P384PublicKey::from_sec1(point.as_bytes()).unwrap();
        (key, public)
    }

    #[test]
    fn encodes_as_another_implementation_does() {
        let (key, public) = pair();
        let der = key.verifying_key().to_public_key_der().unwrap();
        assert_eq!(public.to_spki_der(), der.as_bytes());
        assert_eq!(public.to_pem(), key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap());
        assert_eq!(P384PublicKey::from_spki_der(der.as_bytes()), Ok(public));
        assert_eq!(P384PublicKey::from_pem(&format!("words\n{}more", public.to_pem())), Ok(public));
    }

    #[test]
    fn refuses_other_encodings_and_points_off_the_curve() {
        let (_, public) = pair();
        let der = public.to_spki_der();
        for at in 0..SPKI_PREFIX.len() {
            let mut bad = der.clone();
            bad[at] ^= 1;
            assert_eq!(P384PublicKey::from_spki_der(&bad), Err(PublicKeyError::Encoding), "byte {at}");
        }
        assert_eq!(P384PublicKey::from_spki_der(&der[..der.len() - 1]), Err(PublicKeyError::Encoding));
        assert_eq!(P384PublicKey::from_spki_der(&[der.as_slice(), &[0]].concat()), Err(PublicKeyError::Encoding));
        let mut bad = der;
        bad[60] ^= 1;
        assert_eq!(P384PublicKey::from_spki_der(&bad), Err(PublicKeyError::Point));
        assert_eq!(P384PublicKey::from_point([0; 48], [0; 48]), Err(PublicKeyError::Point));
        for text in ["", PEM_BEGIN, "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----"] {
            assert_eq!(P384PublicKey::from_pem(text), Err(PublicKeyError::Pem), "{text}");
        }
    }

    #[test]
    fn believes_its_own_signatures_alone() {
        let (key, public) = pair();
        let signature: Signature = key.sign(b"message");
        let mut bytes = [0; SIGNATURE_SIZE];
        bytes.copy_from_slice(&signature.to_bytes());
        assert!(public.verifies(b"message", &bytes));
        assert!(!public.verifies(b"massage", &bytes));
        assert!(!public.verifies(b"message", &[0; SIGNATURE_SIZE]));
        bytes[95] ^= 1;
        assert!(!public.verifies(b"message", &bytes));
    }
}
