//! Private P-384 keys in files: ID keys, author keys, manifest keys and policy keys.
//!
//! PKCS#8 PEM, mode 0600, never overwritten. Keys we make say in a line before the PEM block what they are for, and a key
//! made for one purpose is not taken for another; a key from elsewhere has no such line and is taken as it is.
//! Never: prints a private key, or copies one.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_rim::file::Writer;
use coffer_rim::{Class, Classify as _, Failure, input, regular};
use coffer_verifier::{P384PublicKey, SIGNATURE_SIZE};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use zeroize::Zeroizing;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPurpose {
    /// Signs ID blocks.
    Id,
    /// Signs ID keys.
    Author,
    /// Signs reference manifests.
    Manifest,
    /// Signs bundles of policies.
    Policy,
    /// Signs lists of owners.
    Owners,
}

impl KeyPurpose {
    const ALL: [Self; 5] = [Self::Id, Self::Author, Self::Manifest, Self::Policy, Self::Owners];

    /// As files and messages say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Id => "ID key",
            Self::Author => "author key",
            Self::Manifest => "manifest key",
            Self::Policy => "policy key",
            Self::Owners => "owners' key",
        }
    }

    fn label(self) -> String {
        format!("Coffer {}, private.", self.word())
    }
}

/// What makes keys.
const MAKE: &str =
    "make one with `coffer id-key init`, `coffer manifest keygen`, `coffer policy keygen` or `coffer owner keygen`";

/// A private key.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: P384PublicKey,
}

impl SigningKey {
    /// Makes a key.
    ///
    /// # Errors
    /// Class `internal` without randomness.
    pub fn generate() -> Result<Self, Failure> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)
            .map_err(|_| Failure::new(Class::Internal, "cannot make a P-384 key"))?;
        Self::of(pair).ok_or_else(|| Failure::new(Class::Internal, "cannot make a P-384 key"))
    }

    /// Reads a private key that is for `purpose`, as far as the file says.
    ///
    /// # Errors
    /// Class `config`, naming the file.
    pub fn read(path: &Path, purpose: KeyPurpose) -> Result<Self, Failure> {
        let text = read_text(path)?;
        let said = KeyPurpose::ALL.into_iter().find(|one| text.lines().any(|line| line == one.label()));
        if let Some(other) = said.filter(|said| *said != purpose) {
            let message = format!("{} was made as {}, expected {}", path.display(), other.word(), purpose.word());
            return Err(Failure::new(Class::Config, message).hint(format!("each key has one job; {MAKE}")));
        }
        let key = Self::parse(&text).ok_or_else(|| {
            Failure::new(Class::Config, format!("{} holds no private P-384 key in PEM", path.display())).hint(MAKE)
        })?;
        // Not before it is known to be one: that others read a public key is what it is for.
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            tracing::warn!(file = %path.display(), "others may read this private key; hint: chmod 600");
        }
        Ok(key)
    }

    /// Writes the key where there is nothing yet.
    ///
    /// # Errors
    /// Class `config` if something lies there already, or it cannot be written.
    pub fn write_new(&self, path: &Path, purpose: KeyPurpose) -> Result<(), Failure> {
        let failed = || Failure::new(Class::Internal, "cannot encode a P-384 key");
        let der = self.pair.to_pkcs8v1().map_err(|_| failed())?;
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let mut text = Zeroizing::new(format!("{}\n-----BEGIN PRIVATE KEY-----\n", purpose.label()));
        for line in body.as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).map_err(|_| failed())?);
            text.push('\n');
        }
        text.push_str("-----END PRIVATE KEY-----\n");
        write_new(path, text.as_bytes(), 0o600)
    }

    /// Writes the key to `path` and its public half, for whoever is to believe it, to `path.pub`, both where there is nothing
    /// yet. Gives the path of the public half.
    ///
    /// # Errors
    /// Class `config` if something lies there already, or it cannot be written; then neither is there.
    pub fn write_pair(&self, path: &Path, purpose: KeyPurpose) -> Result<PathBuf, Failure> {
        let mut public = path.as_os_str().to_owned();
        public.push(".pub");
        let public = PathBuf::from(public);
        write_new(&public, self.public.to_pem().as_bytes(), 0o644)?;
        self.write_new(path, purpose).inspect_err(|_| {
            // It was made a moment ago, and nobody was told of it.
            let _ = fs::remove_file(&public);
        })?;
        Ok(public)
    }

    /// Its public half.
    pub fn public(&self) -> &P384PublicKey {
        &self.public
    }

    /// Signs with ECDSA and SHA-384: R, then S, big endian.
    ///
    /// # Errors
    /// Class `internal` without randomness.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_SIZE], Failure> {
        let signature = self.pair.sign(&SystemRandom::new(), message).ok();
        signature
            .and_then(|signature| signature.as_ref().try_into().ok())
            .ok_or_else(|| Failure::new(Class::Internal, "cannot sign"))
    }

    fn parse(pem: &str) -> Option<Self> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let der = match &der {
            PrivateKeyDer::Pkcs8(der) => der.secret_pkcs8_der(),
            PrivateKeyDer::Sec1(der) => der.secret_sec1_der(),
            _ => return None,
        };
        Self::of(EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_FIXED_SIGNING, der).ok()?)
    }

    fn of(pair: EcdsaKeyPair) -> Option<Self> {
        let public = P384PublicKey::from_sec1(pair.public_key().as_ref()).ok()?;
        Some(Self { pair, public })
    }
}

/// The public key in a file, or the public half of the private key in it.
///
/// # Errors
/// Class `config`, naming the file.
pub fn read_public(path: &Path) -> Result<P384PublicKey, Failure> {
    let text = read_text(path)?;
    if text.contains("PRIVATE KEY-----") {
        let key = SigningKey::parse(&text).map(|key| key.public);
        return key.ok_or_else(|| {
            Failure::new(Class::Config, format!("{} holds no private P-384 key in PEM", path.display()))
        });
    }
    P384PublicKey::from_pem(&text).map_err(|error| Failure::caused(Class::Config, &error).while_doing(path.display()))
}

/// Nothing that was signed, and no key, is overwritten.
pub fn already_there(path: &Path) -> Failure {
    Failure::new(Class::Config, format!("{} is there already", path.display()))
        .hint("nothing is overwritten; choose another name")
}

/// Writes a file where there is nothing yet: aside, synced, and under its name only when it is whole.
///
/// # Errors
/// Class `config` if something lies there already, or it cannot be written.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        return Err(already_there(path));
    }
    Writer::private().mode(mode).new_only().write(path, bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => already_there(path),
        _ => Failure::caused(Class::Config, &error).while_doing(format!("cannot write {}", path.display())),
    })
}

/// Writes a file in place of the one there, with its mode and for its user, or one of this mode where there is none: aside, synced,
/// renamed.
///
/// # Errors
/// Class `config`, also where a private key lies there; what is there stays.
pub fn write_over(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    if is_private_key(path) {
        let message = format!("{} is a private key, over which nothing is written", path.display());
        return Err(Failure::new(Class::Config, message).hint("name another file to write"));
    }
    let writer = match Writer::in_place_of(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Writer::private().mode(mode)),
        there => there,
    };
    let written = writer.and_then(|writer| writer.write(path, bytes));
    written.class_while(Class::Config, format!("cannot write {}", path.display()))
}

/// Of any kind, in PEM; what cannot be read is none that could be lost unread.
fn is_private_key(path: &Path) -> bool {
    let read = regular::open(fs::OpenOptions::new().read(true), path).and_then(|file| {
        let mut first = Zeroizing::new(Vec::new());
        file.take(MOST_OF_KEY).read_to_end(&mut first)?;
        Ok(first)
    });
    read.is_ok_and(|text| text.windows(PRIVATE_KEY.len()).any(|words| words == PRIVATE_KEY))
}

/// Ends the label of all of them: `PRIVATE KEY`, `EC PRIVATE KEY`, `ENCRYPTED PRIVATE KEY`.
const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";
/// Bytes within which it stands.
const MOST_OF_KEY: u64 = 16 << 10;

fn read_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    input::read_text(path, input::DOCUMENT)
        .map(Zeroizing::new)
        .map_err(|error| Failure::caused(Class::Config, &error).while_doing(format!("cannot read {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_over_a_private_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        SigningKey::generate().unwrap().write_new(&path, KeyPurpose::Policy).unwrap();
        let key = fs::read(&path).unwrap();
        for text in [&key[..], b"-----BEGIN EC PRIVATE KEY-----\n", b"x\n-----BEGIN ENCRYPTED PRIVATE KEY-----"] {
            fs::write(&path, text).unwrap();
            let failure = write_over(&path, b"bundle", 0o644).unwrap_err();
            assert_eq!((failure.class, fs::read(&path).unwrap()), (Class::Config, text.to_vec()));
            assert!(failure.to_string().contains("is a private key"), "{failure}");
        }
        for other in [&b"-----BEGIN PUBLIC KEY-----"[..], b""] {
            fs::write(&path, other).unwrap();
            write_over(&path, b"bundle", 0o644).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"bundle");
        }
    }

    #[test]
    fn a_key_is_written_once_privately_and_read_for_its_purpose() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id.pem");
        let key = SigningKey::generate().unwrap();
        key.write_new(&path, KeyPurpose::Id).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let before = fs::read(&path).unwrap();
        assert!(SigningKey::generate().unwrap().write_new(&path, KeyPurpose::Id).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);

        let again = SigningKey::read(&path, KeyPurpose::Id).unwrap();
        assert_eq!((again.public(), &read_public(&path).unwrap()), (key.public(), key.public()));
        let signature = again.sign(b"message").unwrap();
        assert!(key.public().verifies(b"message", &signature));
        for other in [KeyPurpose::Author, KeyPurpose::Manifest, KeyPurpose::Policy] {
            let failure = SigningKey::read(&path, other).err().unwrap();
            assert!(failure.message.contains("was made as ID key"), "{failure}");
        }
    }

    #[test]
    fn a_pair_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (path, public) = (folder.path().join("a.pem"), folder.path().join("a.pem.pub"));
        let names = || fs::read_dir(folder.path()).unwrap().count();
        for taken in [&path, &public] {
            fs::write(taken, "mine").unwrap();
            let failure = SigningKey::generate().unwrap().write_pair(&path, KeyPurpose::Author).unwrap_err();
            assert!(failure.message.contains("is there already"), "{failure}");
            assert_eq!((fs::read_to_string(taken).unwrap().as_str(), names()), ("mine", 1));
            fs::remove_file(taken).unwrap();
        }
        let key = SigningKey::generate().unwrap();
        assert_eq!(key.write_pair(&path, KeyPurpose::Author).unwrap(), public);
        assert_eq!((read_public(&public).unwrap(), names()), (*key.public(), 2));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_public_key_or_another_file_is_no_signing_key() {
        let key = SigningKey::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(read_public(&path).is_err());
        fs::write(&path, key.public().to_pem()).unwrap();
        assert_eq!(read_public(&path).unwrap(), *key.public());
        assert!(SigningKey::read(&path, KeyPurpose::Id).is_err());
        for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&path, text).unwrap();
            assert!(SigningKey::read(&path, KeyPurpose::Id).is_err() && read_public(&path).is_err(), "{text}");
        }
    }
}
