//! A file encrypted to a recovery key: a fresh file key under HPKE, then AES-256-GCM in chunks. Nothing can be cut off, moved or
//! added; whoever only has the public half cannot read it.
//!
//! Form: magic ‖ lp(encapsulated key) ‖ lp(encrypted file key) ‖ chunks of 64 KiB with their tags. The nonce of a chunk is its
//! number, and says whether it is the last (STREAM construction); magic and encapsulated key are in its AAD.
//! Source: RFC 9180 base mode, DHKEM(P-384, HKDF-SHA384) / HKDF-SHA384 / AES-256-GCM; Hoang et al., STREAM (CRYPTO 2015).

use std::io::{self, Read, Write};

use aes_gcm::{
    Aes256Gcm, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_P384_HKDF_SHA384_AES_256,
    hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey},
};
use static_assertions::assert_not_impl_any;
use zeroize::Zeroizing;

/// The half that may lie on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryKey(Vec<u8>);

/// The half that opens backups. Never on the broker; wiped on drop, never printed.
pub struct RecoverySecret(HpkePrivateKey);

assert_not_impl_any!(RecoverySecret: core::fmt::Debug, Clone, PartialEq, serde::Serialize);

/// What is wrong with a key or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealedFileError {
    /// Not one of ours.
    #[error("not a recovery key")]
    Key,
    /// The half that opens, where the other one belongs.
    #[error("the secret half of a recovery key, which belongs off the broker; expected the public half")]
    SecretHalf,
    /// The half that opens nothing, where the other one belongs.
    #[error("the public half of a recovery key, which opens nothing; expected the secret half")]
    PublicHalf,
    /// No randomness, or an unusable key.
    #[error("cannot encrypt to this recovery key")]
    Seal,
    /// Another key's, changed, or cut.
    #[error("does not open with this recovery key, or was changed or cut")]
    Open,
}

impl SealedFileError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Key => "name a file that `coffer-kbs recovery-key` wrote",
            Self::SecretHalf => "give FILE.pub, which lies where it was made, and take the secret half off the broker",
            Self::PublicHalf => "give the file without .pub: whoever made the key keeps it off the broker",
            Self::Seal => "check that the system's random source works",
            Self::Open => "use the recovery key this backup was made for, and a copy that is whole",
        }
    }
}

impl From<SealedFileError> for io::Error {
    fn from(error: SealedFileError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Makes a pair.
///
/// # Errors
/// [`SealedFileError::Seal`] without randomness.
pub fn recovery_pair() -> Result<(RecoveryKey, RecoverySecret), SealedFileError> {
    let (public, secret) = DH_KEM_P384_HKDF_SHA384_AES_256.generate_key_pair().map_err(|_| SealedFileError::Seal)?;
    Ok((RecoveryKey(public.0), RecoverySecret(secret)))
}

impl RecoveryKey {
    /// From text as [`Self::to_text`] gives it.
    ///
    /// # Errors
    /// [`SealedFileError::Key`].
    pub fn from_text(text: &str) -> Result<Self, SealedFileError> {
        let Some(hex) = text.trim_end().strip_prefix(PUBLIC) else {
            return Err(if text.starts_with(SECRET) { SealedFileError::SecretHalf } else { SealedFileError::Key });
        };
        let bytes = hex::decode(hex).map_err(|_| SealedFileError::Key)?;
        if bytes.len() == POINT { Ok(Self(bytes)) } else { Err(SealedFileError::Key) }
    }

    /// One line.
    pub fn to_text(&self) -> String {
        format!("{PUBLIC}{}\n", hex::encode(&self.0))
    }
}

impl RecoverySecret {
    /// From text as [`Self::to_text`] gives it.
    ///
    /// # Errors
    /// [`SealedFileError::Key`].
    pub fn from_text(text: &str) -> Result<Self, SealedFileError> {
        let Some(hex) = text.trim_end().strip_prefix(SECRET) else {
            return Err(if text.starts_with(PUBLIC) { SealedFileError::PublicHalf } else { SealedFileError::Key });
        };
        Ok(Self(HpkePrivateKey::from(hex::decode(hex).map_err(|_| SealedFileError::Key)?)))
    }

    /// One line, for a private file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let hex = Zeroizing::new(hex::encode(self.0.secret_bytes()));
        Zeroizing::new(format!("{SECRET}{}\n", hex.as_str()))
    }
}

/// Encrypts what is written to it; [`Self::finish`] ends it, and without that it does not open.
pub struct Sealer<W> {
    to: W,
    chunks: Chunks,
    buffer: Zeroizing<Vec<u8>>,
}

/// Decrypts. No byte of a chunk is given before its tag holds; that it is the whole file is known at its end.
pub struct Opener<R> {
    from: R,
    chunks: Chunks,
    ahead: Vec<u8>,
    plain: Zeroizing<Vec<u8>>,
    at: usize,
    ended: bool,
}

struct Chunks {
    cipher: Aes256Gcm,
    additional: Vec<u8>,
    number: u64,
}

impl Chunks {
    fn new(key: &[u8], enc: &[u8]) -> Result<Self, SealedFileError> {
        let cipher = Aes256Gcm::new_from_slice(key).map_err(|_| SealedFileError::Key)?;
        Ok(Self { cipher, additional: [MAGIC, enc].concat(), number: 0 })
    }

    fn nonce(&mut self, last: bool) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[0] = u8::from(last);
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        nonce
    }

    fn seal(&mut self, plain: &[u8], last: bool) -> Result<Vec<u8>, SealedFileError> {
        let nonce = self.nonce(last);
        let payload = Payload { msg: plain, aad: &self.additional };
        self.cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| SealedFileError::Seal)
    }

    fn open(&mut self, sealed: &[u8], last: bool) -> Result<Zeroizing<Vec<u8>>, SealedFileError> {
        let nonce = self.nonce(last);
        let payload = Payload { msg: sealed, aad: &self.additional };
        self.cipher.decrypt(&Nonce::from(nonce), payload).map(Zeroizing::new).map_err(|_| SealedFileError::Open)
    }
}

impl<W: Write> Sealer<W> {
    /// Begins a file for a recovery key.
    ///
    /// # Errors
    /// The writer's, or [`SealedFileError::Seal`].
    pub fn new(mut to: W, key: &RecoveryKey) -> io::Result<Self> {
        let mut file_key = Zeroizing::new([0; 32]);
        getrandom::fill(file_key.as_mut_slice()).map_err(|_| SealedFileError::Seal)?;
        let public = HpkePublicKey(key.0.clone());
        let (enc, wrapped) = DH_KEM_P384_HKDF_SHA384_AES_256
            .seal(INFO, MAGIC, file_key.as_slice(), &public)
            .map_err(|_| SealedFileError::Seal)?;
        to.write_all(MAGIC)?;
        for part in [&enc.0, &wrapped] {
            to.write_all(&u32::try_from(part.len()).unwrap_or(0).to_be_bytes())?;
            to.write_all(part)?;
        }
        let chunks = Chunks::new(file_key.as_slice(), &enc.0)?;
        Ok(Self { to, chunks, buffer: Zeroizing::new(Vec::with_capacity(CHUNK)) })
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self) -> io::Result<W> {
        let last = self.chunks.seal(&self.buffer, true)?;
        self.to.write_all(&last)?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == CHUNK {
            let sealed = self.chunks.seal(&self.buffer, false)?;
            self.to.write_all(&sealed)?;
            self.buffer.clear();
        }
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<R: Read> Opener<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// The reader's, or [`SealedFileError::Open`].
    pub fn new(mut from: R, secret: &RecoverySecret) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic)?;
        let enc = part(&mut from)?;
        let wrapped = part(&mut from)?;
        if magic != *MAGIC {
            return Err(SealedFileError::Open.into());
        }
        let file_key = DH_KEM_P384_HKDF_SHA384_AES_256
            .open(&EncapsulatedSecret(enc.clone()), INFO, MAGIC, &wrapped, &secret.0)
            .map(Zeroizing::new)
            .map_err(|_| SealedFileError::Open)?;
        let chunks = Chunks::new(&file_key, &enc)?;
        let mut opener = Self { from, chunks, ahead: Vec::new(), plain: Zeroizing::default(), at: 0, ended: false };
        opener.ahead = opener.chunk()?;
        Ok(opener)
    }

    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::new();
        self.from.by_ref().take((CHUNK + TAG) as u64).read_to_end(&mut chunk)?;
        Ok(chunk)
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            if self.ended {
                return Ok(0);
            }
            let next = self.chunk()?;
            let chunk = std::mem::replace(&mut self.ahead, next);
            self.ended = self.ahead.is_empty();
            self.plain = self.chunks.open(&chunk, self.ended)?;
            self.at = 0;
        }
        let taken = bytes.len().min(self.plain.len() - self.at);
        bytes[..taken].copy_from_slice(&self.plain[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

/// True of a file that begins like one of these.
pub(crate) fn is_sealed(beginning: &[u8]) -> bool {
    beginning.starts_with(MAGIC)
}

/// A length-prefixed part of the beginning.
fn part(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > 256 {
        return Err(SealedFileError::Open.into());
    }
    let mut part = vec![0; length];
    from.read_exact(&mut part)?;
    Ok(part)
}

const MAGIC: &[u8; 24] = b"coffer-kbs sealed file 1";
const INFO: &[u8] = b"coffer/kbs/backup/v1";
const PUBLIC: &str = "coffer-kbs-recovery-public:";
const SECRET: &str = "coffer-kbs-recovery-secret:";
/// Uncompressed P-384 point.
const POINT: usize = 97;
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(length: usize, key: &RecoveryKey) -> (Vec<u8>, Vec<u8>) {
        let plain: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let mut sealer = Sealer::new(Vec::new(), key).unwrap();
        sealer.write_all(&plain).unwrap();
        (plain, sealer.finish().unwrap())
    }

    fn opened(file: &[u8], secret: &RecoverySecret) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Opener::new(file, secret)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn opens_with_its_key_whole_and_unchanged_or_not_at_all() {
        let (key, secret) = recovery_pair().unwrap();
        let (_, other) = recovery_pair().unwrap();
        let again = RecoverySecret::from_text(&secret.to_text()).unwrap();
        assert_eq!(RecoveryKey::from_text(&key.to_text()).unwrap(), key);
        assert_eq!(RecoveryKey::from_text(&secret.to_text()), Err(SealedFileError::SecretHalf));
        assert_eq!(RecoverySecret::from_text(&key.to_text()).err(), Some(SealedFileError::PublicHalf));
        assert_eq!(RecoverySecret::from_text("other").err(), Some(SealedFileError::Key));
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let (plain, file) = sealed(length, &key);
            assert_eq!(opened(&file, &again).unwrap(), plain, "{length}");
            assert!(opened(&file, &other).is_err());
            for at in (0..file.len()).step_by(file.len() / 40 + 1) {
                let mut changed = file.clone();
                changed[at] ^= 1;
                assert!(opened(&changed, &secret).is_err(), "{length}, byte {at}");
                assert!(opened(&file[..at], &secret).is_err(), "{length}, cut at {at}");
            }
            assert!(opened(&[file.as_slice(), b"more"].concat(), &secret).is_err());
        }
        // Whole chunks cut off at the end, or in the middle.
        let (_, file) = sealed(3 * CHUNK, &key);
        let begins = file.len() - 3 * (CHUNK + TAG);
        assert!(opened(&file[..file.len() - CHUNK - TAG], &secret).is_err());
        let without = [&file[..begins], &file[begins + CHUNK + TAG..]].concat();
        assert!(opened(&without, &secret).is_err());
    }
}
