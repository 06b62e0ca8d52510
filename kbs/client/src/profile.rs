//! The operator's profile: where the admin API is, which key it has, and the operator's own key. One file, mode 0600.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use coffer_ratls::{Identity, IdentityError};
use coffer_rim::file::Writer;
use coffer_verifier::abi::SpkiDigest;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Not read or written.
    #[error("admin profile {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read the key.
    #[error("admin profile {path} has mode {mode:04o}, its key may be read by others; expected 0600")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a profile. The text of the error names the place, never the content.
    #[error("admin profile is malformed at byte {at}")]
    Malformed {
        /// Offset.
        at: usize,
    },
    /// No pin would admit nobody, and more than the next one beside the present are too many.
    #[error("admin profile pins {found} keys, expected one, or the present one and the next")]
    Pins {
        /// How many.
        found: usize,
    },
    /// Key or certificate.
    #[error("admin profile holds no usable key and certificate")]
    Identity(#[from] IdentityError),
}

impl ProfileError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                "name a new file: keys are never written over"
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "`coffer-kbs init --state DIR` writes DIR/admin.toml; an owner makes another with `coffer kbs admin add NAME --new-profile FILE`"
            }
            Self::File { .. } => "check the path, free space and permissions",
            Self::Mode { .. } => "chmod 600 it, and make a new key if somebody may have read it",
            Self::Malformed { .. } | Self::Identity(_) => {
                "use a copy that is as it was written, or have an owner make another: `coffer kbs admin add NAME --new-profile FILE`"
            }
            Self::Pins { .. } => "`coffer kbs admin pin PRESENT NEXT` writes what is pinned",
        }
    }
}

/// The present key and the next, as in a workload spec.
const MOST_PINS: usize = 2;

/// How an operator reaches the admin API.
pub struct AdminProfile {
    /// `host:port`.
    pub address: String,
    /// SHA-256 of the admin listener's SubjectPublicKeyInfo: of the present key, and of the next one while keys change.
    pub pins: Vec<SpkiDigest>,
    /// The operator's key and certificate.
    pub identity: Identity,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    address: String,
    server_spki: Pins,
    certificate: String,
    key: String,
}

/// One pin, or the present one and the next.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Pins {
    One(SpkiDigest),
    List(Vec<SpkiDigest>),
}

impl Drop for ProfileFile {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl AdminProfile {
    /// Reads a profile file.
    ///
    /// # Errors
    /// [`ProfileError`]; also if the file is readable by group or others.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let file = |source| ProfileError::File { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(file)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ProfileError::Mode { path: path.to_owned(), mode });
        }
        Self::parse(&Zeroizing::new(coffer_rim::input::read_text(path, coffer_rim::input::DOCUMENT).map_err(file)?))
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// [`ProfileError::Malformed`], [`ProfileError::Identity`].
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let mut file: ProfileFile = toml::from_str(text)
            .map_err(|error| ProfileError::Malformed { at: error.span().map_or(0, |s| s.start) })?;
        let identity = Identity::from_pem(&file.certificate, &file.key)?;
        let pins = match &file.server_spki {
            Pins::One(pin) => vec![*pin],
            Pins::List(pins) => pins.clone(),
        };
        if !(1..=MOST_PINS).contains(&pins.len()) {
            return Err(ProfileError::Pins { found: pins.len() });
        }
        Ok(Self { address: std::mem::take(&mut file.address), pins, identity })
    }

    /// Writes a profile file, mode 0600 from its first byte; an existing one is refused.
    ///
    /// # Errors
    /// [`ProfileError::File`].
    pub fn write(&self, path: &Path) -> Result<(), ProfileError> {
        self.write_as(Writer::private().new_only(), path)
    }

    /// Writes a profile file in place of the one that is there; a reader sees the old one or the new one.
    ///
    /// # Errors
    /// [`ProfileError::File`]; the old one is then still there.
    pub fn replace(&self, path: &Path) -> Result<(), ProfileError> {
        self.write_as(Writer::private(), path)
    }

    fn write_as(&self, writer: Writer, path: &Path) -> Result<(), ProfileError> {
        let error = |source| ProfileError::File { path: path.to_owned(), source };
        let text = self.to_toml().map_err(|cause| error(io::Error::other(cause)))?;
        writer.write(path, text.as_bytes()).map_err(error)
    }

    fn to_toml(&self) -> Result<Zeroizing<String>, toml::ser::Error> {
        let pem = self.identity.to_pem();
        let file = ProfileFile {
            address: self.address.clone(),
            server_spki: match self.pins.as_slice() {
                [pin] => Pins::One(*pin),
                pins => Pins::List(pins.to_vec()),
            },
            certificate: pem.certificate,
            key: pem.key.to_string(),
        };
        toml::to_string(&file).map(Zeroizing::new)
    }
}
