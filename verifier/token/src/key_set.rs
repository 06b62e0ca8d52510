//! The set, and its file: JSON, mode 0600, replaced whole.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_rim::{file::Writer, input};
use coffer_verifier::{
    P384PublicKey, PublicKeyError, UnixTime,
    ear::{Jwks, Lifetime, Skew, TokenSigner as _},
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::key::{KeyFailure, TokenKey};

/// The keys of one issuer.
pub struct KeySet {
    signing: TokenKey,
    next: TokenKey,
    retired: Vec<Retired>,
}

/// A key that signs no more; its private half is gone.
struct Retired {
    public: P384PublicKey,
    /// When the last token that it can have signed has ended everywhere.
    until: UnixTime,
}

/// Why a file is no key set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// The file system's.
    #[error("cannot read or write the key set")]
    File(#[from] io::Error),
    /// Others may read it.
    #[error("others may read the key set: its mode is {mode:03o}, expected 600")]
    Public {
        /// Its permissions.
        mode: u32,
    },
    /// Not the JSON expected. The parser's words stay away: they may hold a key.
    #[error("not a key set of version {VERSION} (line {line})")]
    Json {
        /// Where it stops being one.
        line: usize,
    },
    /// What others get of one.
    #[error("these are public keys (JWKS), with which nobody signs")]
    PublicKeysAlone,
    /// A private key that is none.
    #[error("{place} is no private P-384 key")]
    Private {
        /// Which.
        place: &'static str,
    },
    /// A retired key that is none.
    #[error("retired[{at}] is no public P-384 key")]
    Public384 {
        /// Which.
        at: usize,
        /// Why.
        source: PublicKeyError,
    },
    /// One more, and those who read the public keys would refuse all of them.
    #[error("{} keys are listed, as many as readers of a key set take, the first of them until {until}", Jwks::MOST)]
    Full {
        /// When there is room for another.
        until: UnixTime,
    },
    /// One key in two places.
    #[error("one key stands in the key set twice")]
    Twice,
    /// The library's.
    #[error(transparent)]
    Key(#[from] KeyFailure),
}

impl KeySetError {
    /// What helps.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Public { .. } => Some("chmod 600, and rotate twice: somebody may have read it"),
            Self::PublicKeysAlone => Some("name the file that `coffer token init` made, which has the private keys"),
            Self::Json { .. } => Some("`coffer token init` makes one"),
            Self::Full { .. } => Some("rotate more seldom: a key is listed for a day after it signed last"),
            _ => None,
        }
    }
}

impl KeySet {
    /// Makes a set of two keys: one signs, and one is the next.
    ///
    /// # Errors
    /// [`KeySetError::Key`].
    pub fn generate() -> Result<Self, KeySetError> {
        Ok(Self { signing: TokenKey::generate()?, next: TokenKey::generate()?, retired: Vec::new() })
    }

    /// The next key signs from now on; the one that did is listed until its last token has ended, and a new next one is made.
    ///
    /// # Errors
    /// [`KeySetError::Key`]; [`KeySetError::Full`] where as many are listed as may be.
    pub fn rotate(self, now: UnixTime) -> Result<Self, KeySetError> {
        let span = Lifetime::MAX.as_secs() + 2 * Skew::MAX.as_secs();
        let gone = Retired { public: *self.signing.public(), until: UnixTime(now.0.saturating_add(span)) };
        let mut retired: Vec<_> = self.retired.into_iter().filter(|key| now < key.until).collect();
        if retired.len() + 2 >= Jwks::MOST
            && let Some(until) = retired.iter().map(|key| key.until).min()
        {
            return Err(KeySetError::Full { until });
        }
        retired.push(gone);
        Ok(Self { signing: self.next, next: TokenKey::generate()?, retired })
    }

    /// The same in its file. Two that rotate at once do so after each other: no key that the other made, or retired, is lost.
    ///
    /// # Errors
    /// [`KeySetError`]; what is there stays.
    pub fn rotate_in(path: &Path, now: UnixTime) -> Result<Self, KeySetError> {
        let _held = locked(path)?;
        let set = Self::read(path)?.rotate(now)?;
        set.write_over(path)?;
        Ok(set)
    }

    /// The key that signs.
    pub const fn signing(&self) -> &TokenKey {
        &self.signing
    }

    /// The public document: the key that signs, the next one, and those whose tokens may still be about.
    pub fn jwks(&self, now: UnixTime) -> Jwks {
        let retired = self.retired.iter().filter(|key| now < key.until).map(|key| key.public);
        Jwks::new([*self.signing.public(), *self.next.public()].into_iter().chain(retired))
    }

    /// Reads the set.
    ///
    /// # Errors
    /// [`KeySetError`]; a file that others may read is refused.
    pub fn read(path: &Path) -> Result<Self, KeySetError> {
        let set = Self::parse(&Zeroizing::new(input::read(path, input::DOCUMENT)?))?;
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeySetError::Public { mode });
        }
        Ok(set)
    }

    /// Writes a set where there is nothing yet.
    ///
    /// # Errors
    /// [`KeySetError::File`].
    pub fn write_new(&self, path: &Path) -> Result<(), KeySetError> {
        Ok(Writer::private().new_only().write(path, &self.to_json()?)?)
    }

    /// Writes it in place of the one there, and for the same user: a reader sees the old one or the new one, and a service reads the
    /// new one as it read the old. A link goes on to lead there.
    ///
    /// # Errors
    /// [`KeySetError::File`]; what is there stays.
    pub fn write_over(&self, path: &Path) -> Result<(), KeySetError> {
        let path = fs::canonicalize(path)?;
        Ok(Writer::in_place_of(&path)?.write(&path, &self.to_json()?)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        let mut file: File = serde_json::from_slice(bytes).map_err(|error| match Jwks::parse(bytes) {
            Ok(_) => KeySetError::PublicKeysAlone,
            Err(_) => KeySetError::Json { line: error.line() },
        })?;
        if file.version != VERSION {
            return Err(KeySetError::Json { line: 1 });
        }
        let private = |place, text: &mut String| {
            let der = STANDARD.decode(&*text).map(Zeroizing::new).ok();
            text.zeroize();
            der.and_then(|der| TokenKey::from_pkcs8(&der)).ok_or(KeySetError::Private { place })
        };
        let (signing, next) = (private("signing", &mut file.signing)?, private("next", &mut file.next)?);
        let mut retired: Vec<Retired> = Vec::new();
        for (at, one) in file.retired.iter().enumerate() {
            let public =
                P384PublicKey::from_pem(&one.public).map_err(|source| KeySetError::Public384 { at, source })?;
            retired.push(Retired { public, until: UnixTime(one.listed_until) });
        }
        let mut all: Vec<_> = retired.iter().map(|key| key.public).collect();
        all.extend([*signing.public(), *next.public()]);
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(KeySetError::Twice);
        }
        Ok(Self { signing, next, retired })
    }

    fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, KeySetError> {
        let private = |key: &TokenKey| key.to_pkcs8().map(|der| STANDARD.encode(&*der));
        let mut file = File {
            version: VERSION,
            signing: private(&self.signing)?,
            next: private(&self.next)?,
            retired: self
                .retired
                .iter()
                .map(|key| RetiredEntry { public: key.public.to_pem(), listed_until: key.until.0 })
                .collect(),
        };
        let text = serde_json::to_vec_pretty(&file).map(Zeroizing::new);
        file.signing.zeroize();
        file.next.zeroize();
        text.map_err(|error| KeySetError::File(error.into()))
    }
}

/// The lock of the file that lies there, which goes with what is given. Whoever held it before may have put another in its place.
fn locked(path: &Path) -> io::Result<fs::File> {
    let until = Instant::now() + LOCKED;
    loop {
        let file = input::open(path)?;
        match file.try_lock() {
            Ok(()) => {
                let (held, there) = (file.metadata()?, fs::metadata(path)?);
                if (held.dev(), held.ino()) == (there.dev(), there.ino()) {
                    return Ok(file);
                }
            }
            Err(fs::TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another program rotates it"));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// How long another rotation is waited for.
const LOCKED: Duration = Duration::from_secs(10);
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    /// PKCS #8, base64.
    signing: String,
    next: String,
    retired: Vec<RetiredEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetiredEntry {
    /// PEM.
    public: String,
    listed_until: i64,
}

#[cfg(test)]
mod tests {
    use coffer_verifier::ear::thumbprint;

    use super::*;

    const NOW: UnixTime = UnixTime(1_789_862_400);
    const LISTED: i64 = 86_400 + 600;

    #[test]
    fn of_rotations_at_once_none_loses_what_another_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let first = KeySet::generate().unwrap();
        first.write_new(&path).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| KeySet::rotate_in(&path, NOW).unwrap());
            }
        });
        let set = KeySet::read(&path).unwrap();
        assert_eq!(set.retired.len(), 8);
        assert!(set.retired.iter().any(|one| one.public == *first.signing().public()));
        assert!(set.retired.iter().any(|one| one.public == *first.next.public()));
    }

    #[test]
    fn the_next_key_is_listed_before_it_signs_and_the_last_until_its_tokens_ended() {
        let first = KeySet::generate().unwrap();
        let (one, two) = (*first.signing().public(), *first.next.public());
        assert_eq!(first.jwks(NOW).keys(), [one, two]);
        let second = first.rotate(NOW).unwrap();
        assert_eq!(*second.signing().public(), two, "whoever has the first list believes it");
        let three = *second.next.public();
        assert_eq!(second.jwks(UnixTime(NOW.0 + LISTED - 1)).keys(), [two, three, one]);
        assert_eq!(second.jwks(UnixTime(NOW.0 + LISTED)).keys(), [two, three]);
        let third = second.rotate(UnixTime(NOW.0 + 1)).unwrap();
        assert_eq!(third.jwks(UnixTime(NOW.0 + 1)).keys()[2..], [one, two]);
        let fourth = third.rotate(UnixTime(NOW.0 + LISTED + 1)).unwrap();
        assert_eq!(fourth.retired.len(), 1, "what is listed no more is kept no more");
    }

    #[test]
    fn no_rotation_makes_a_set_that_its_readers_refuse() {
        let mut set = KeySet::generate().unwrap();
        for (_, second) in (2..Jwks::MOST).zip(2..) {
            set = set.rotate(UnixTime(NOW.0 + second)).unwrap();
        }
        let now = UnixTime(NOW.0 + 100);
        let listed = set.jwks(now);
        assert_eq!(listed.keys().len(), Jwks::MOST);
        Jwks::parse(listed.to_json().as_bytes()).unwrap();
        let text = set.to_json().unwrap();
        assert!(matches!(set.rotate(now), Err(KeySetError::Full { until }) if until.0 == NOW.0 + 2 + LISTED));
        KeySet::parse(&text).unwrap().rotate(UnixTime(NOW.0 + 2 + LISTED)).unwrap();
    }

    #[test]
    fn a_set_is_a_private_file_that_is_replaced_whole_and_never_by_chance() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let set = KeySet::generate().unwrap().rotate(NOW).unwrap();
        set.write_new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(&path).unwrap();
        assert!(matches!(KeySet::generate().unwrap().write_new(&path), Err(KeySetError::File(_))));
        assert_eq!(fs::read(&path).unwrap(), before);

        let read = KeySet::read(&path).unwrap();
        assert_eq!(read.jwks(NOW), set.jwks(NOW));
        let signature = read.signing().sign(b"message").unwrap();
        assert!(set.signing().public().verifies(b"message", &signature));
        let text = String::from_utf8(before).unwrap();
        let gone = set.jwks(NOW).keys()[2];
        assert!(text.contains("PUBLIC KEY") && !text.contains(&thumbprint(&gone)));

        let set = set.rotate(NOW).unwrap();
        // Of another user, where this test may give it away: whoever serves with it goes on to read it.
        let given = std::os::unix::fs::chown(&path, Some(65534), Some(65534)).is_ok();
        set.write_over(&path).unwrap();
        let there = fs::metadata(&path).unwrap();
        assert!(!given || (there.uid(), there.gid()) == (65534, 65534));
        assert_eq!(there.permissions().mode() & 0o777, 0o600);
        assert_eq!(KeySet::read(&path).unwrap().jwks(NOW).keys().len(), 4);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        set.rotate(NOW).unwrap().write_over(&link).unwrap();
        assert_eq!(KeySet::read(&path).unwrap().jwks(NOW).keys().len(), 5);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(KeySet::read(&path), Err(KeySetError::Public { mode: found }) if found == mode));
        }
    }

    #[test]
    fn what_is_no_key_set_is_refused_by_name() {
        let set = KeySet::generate().unwrap().rotate(NOW).unwrap();
        let good: serde_json::Value = serde_json::from_slice(&set.to_json().unwrap()).unwrap();
        let with = |name: &str, value: serde_json::Value| {
            let mut file = good.clone();
            file[name] = value;
            KeySet::parse(file.to_string().as_bytes()).err().map(|error| error.to_string())
        };
        assert_eq!(with("version", 1.into()), None);
        assert_eq!(with("version", 2.into()).unwrap(), "not a key set of version 1 (line 1)");
        assert_eq!(with("more", 1.into()).unwrap(), "not a key set of version 1 (line 1)");
        assert_eq!(with("signing", "AAAA".into()).unwrap(), "signing is no private P-384 key");
        assert_eq!(with("next", "?".into()).unwrap(), "next is no private P-384 key");
        assert_eq!(with("next", good["signing"].clone()).unwrap(), "one key stands in the key set twice");
        let bad = serde_json::json!([{ "public": "", "listed_until": 1 }]);
        assert_eq!(with("retired", bad).unwrap(), "retired[0] is no public P-384 key");
        assert!(KeySet::parse(b"").is_err());
        let others = set.jwks(NOW).to_json();
        assert!(matches!(KeySet::parse(others.as_bytes()), Err(KeySetError::PublicKeysAlone)));
    }
}
