//! The state folder: made once by `init`, opened by `serve`, held by one server at a time.
//!
//! ```text
//! DIR/            0700
//!   config.toml   listeners, operators, tenants, policies
//!   root.key      0600  64 hex digits; everything in kbs.db hangs from it
//!   server.pem    0600  identity guests pin
//!   admin-server.pem 0600  identity of the admin listener
//!   admin.toml    0600  profile of the first operator: move it to where the operator works
//!   kbs.db        0600
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use coffer_kbs_client::{AdminProfile, ProfileError};
use coffer_ratls::{Identity, IdentityError};
use coffer_rim::file::Writer;
use coffer_verifier::abi::SpkiDigest;
use zeroize::Zeroizing;

use crate::{
    config::{AdminEntry, ConfigFile, LimitsEntry},
    keys::RootKey,
    store::{Store, StoreError},
};

/// Why a state folder cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// There is one already.
    #[error("{path} is a state folder already, or holds other files")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read a key.
    #[error("{path} has mode {mode:04o}, expected 0600")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The root key file is not 64 hex digits.
    #[error("{path} is not a root key of 64 hex digits")]
    RootKey {
        /// Which file.
        path: PathBuf,
    },
    /// An identity is unusable.
    #[error("{path} is no identity")]
    Identity {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// The admin profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another server has it open.
    #[error("{path} is in use by another coffer-kbs")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// No randomness.
    #[error("the system gives no random bytes")]
    Random,
    /// The configuration cannot be written.
    #[error("configuration cannot be written: {0}")]
    Config(String),
}

impl StateError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "name an empty or new folder; keys are never overwritten",
            Self::File { .. } => "make a state folder with `coffer-kbs init --state DIR`, and check its permissions",
            Self::Mode { .. } => "chmod 600 the file, and make a new key if somebody may have read it",
            Self::RootKey { .. } => "restore root.key from your backup; without it the secrets are lost",
            Self::Identity { .. } | Self::Profile(_) => "restore the file from your backup",
            Self::Store(error) => error.hint(),
            Self::Locked { .. } => "stop the other server, or use its admin address",
            Self::Random => "check that the system's random source works",
            Self::Config(_) => "report this",
        }
    }
}

/// What `init` made.
#[derive(Clone, Debug)]
pub struct Initialized {
    /// What guests pin.
    pub pin: SpkiDigest,
    /// The first operator's profile.
    pub profile: PathBuf,
}

/// An opened state folder.
pub struct State {
    /// Where it is.
    pub folder: PathBuf,
    /// The store.
    pub store: Arc<Store>,
    /// Identity guests pin.
    pub server: Identity,
    /// Identity of the admin listener.
    pub admin_server: Identity,
    /// Held while this lives.
    _lock: File,
}

/// Makes a state folder. Nothing is overwritten.
///
/// # Errors
/// [`StateError`]; a folder this call made is left with what was done so far.
pub fn init(folder: &Path, listen: &str, admin_listen: &str) -> Result<Initialized, StateError> {
    make_folder(folder)?;
    let identity = |name: &str| {
        Identity::generate(name).map_err(|source| StateError::Identity { path: folder.join(name), source })
    };
    let (server, admin_server, admin) = (identity("coffer-kbs")?, identity("coffer-kbs-admin")?, identity("admin")?);
    let mut root = Zeroizing::new([0; 32]);
    getrandom::fill(root.as_mut_slice()).map_err(|_| StateError::Random)?;
    write_private(&folder.join(ROOT_KEY), Zeroizing::new(format!("{}\n", hex::encode(root.as_slice()))).as_bytes())?;
    write_identity(&folder.join(SERVER), &server)?;
    write_identity(&folder.join(ADMIN_SERVER), &admin_server)?;
    Store::create(&folder.join(DATABASE), RootKey::new(&root))?;
    let config = ConfigFile {
        listen: listen.into(),
        admin_listen: admin_listen.into(),
        admins: vec![AdminEntry { name: "admin".into(), key: admin.spki().to_string() }],
        tenants: std::collections::BTreeMap::default(),
        policies: std::collections::BTreeMap::default(),
        endorsements: Vec::new(),
        limits: LimitsEntry::default(),
    };
    let text = toml::to_string(&config).map_err(|error| StateError::Config(error.to_string()))?;
    write_private(&folder.join(CONFIG), text.as_bytes())?;
    let profile = folder.join(PROFILE);
    AdminProfile { address: admin_listen.into(), server_spki: admin_server.spki(), identity: admin }.write(&profile)?;
    Ok(Initialized { pin: server.spki(), profile })
}

impl State {
    /// Opens a state folder for serving; only one server at a time may.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let lock_path = folder.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|source| StateError::File { path: lock_path, source })?;
        lock.try_lock().map_err(|_| StateError::Locked { path: folder.into() })?;
        let store = Arc::new(Store::open(&folder.join(DATABASE), root_key(folder)?)?);
        let (server, admin_server) = (read_identity(&folder.join(SERVER))?, read_identity(&folder.join(ADMIN_SERVER))?);
        Ok(Self { folder: folder.into(), store, server, admin_server, _lock: lock })
    }

    /// Writes the real admin address into the first operator's profile, if it still lies here: a port chosen by the
    /// system is known only now.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn update_profile(&self, admin_address: &str) -> Result<(), StateError> {
        let path = self.folder.join(PROFILE);
        if !path.exists() {
            return Ok(());
        }
        let mut profile = AdminProfile::read(&path)?;
        if profile.address == admin_address || profile.server_spki != self.admin_server.spki() {
            return Ok(());
        }
        admin_address.clone_into(&mut profile.address);
        Ok(profile.replace(&path)?)
    }
}

/// The pin of a state folder.
///
/// # Errors
/// [`StateError`].
pub fn pin(folder: &Path) -> Result<SpkiDigest, StateError> {
    Ok(read_identity(&folder.join(SERVER))?.spki())
}

/// Opens only the store, as `audit verify` does beside a running server.
///
/// # Errors
/// [`StateError`].
pub fn open_store(folder: &Path) -> Result<Store, StateError> {
    Ok(Store::open(&folder.join(DATABASE), root_key(folder)?)?)
}

/// Where the configuration of a state folder is.
pub fn config_path(folder: &Path) -> PathBuf {
    folder.join(CONFIG)
}

fn make_folder(folder: &Path) -> Result<(), StateError> {
    let file = |source| StateError::File { path: folder.into(), source };
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(StateError::Exists { path: folder.into() });
            }
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(file)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file)
        }
        Err(error) => Err(file(error)),
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let written = Writer::private().new_only().write(path, bytes);
    written.map_err(|source| StateError::File { path: path.into(), source })
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, StateError> {
    let file = |source| StateError::File { path: path.into(), source };
    let mode = fs::metadata(path).map_err(file)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StateError::Mode { path: path.into(), mode });
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(file)
}

fn write_identity(path: &Path, identity: &Identity) -> Result<(), StateError> {
    let pem = identity.to_pem();
    write_private(path, Zeroizing::new(format!("{}{}", pem.certificate, pem.key.as_str())).as_bytes())
}

fn read_identity(path: &Path) -> Result<Identity, StateError> {
    let text = read_private(path)?;
    // Certificate first, then the key, as written above.
    let (certificate, key) = text.split_at(text.find(KEY_BEGINS).unwrap_or(text.len()));
    Identity::from_pem(certificate, key).map_err(|source| StateError::Identity { path: path.into(), source })
}

fn root_key(folder: &Path) -> Result<RootKey, StateError> {
    let path = folder.join(ROOT_KEY);
    let text = read_private(&path)?;
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_end(), key.as_mut_slice()).map_err(|_| StateError::RootKey { path })?;
    Ok(RootKey::new(&key))
}

const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";
const CONFIG: &str = "config.toml";
const ROOT_KEY: &str = "root.key";
const SERVER: &str = "server.pem";
const ADMIN_SERVER: &str = "admin-server.pem";
const PROFILE: &str = "admin.toml";
const DATABASE: &str = "kbs.db";
const LOCK: &str = "lock";

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, PathBuf, Initialized) {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        let made = init(&folder, "127.0.0.1:0", "127.0.0.1:0").unwrap();
        (outer, folder, made)
    }

    #[test]
    fn makes_private_files_and_three_identities() {
        let (_outer, folder, made) = made();
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
        let state = State::open(&folder).unwrap();
        let profile = AdminProfile::read(&made.profile).unwrap();
        assert_eq!(state.server.spki(), made.pin);
        assert_eq!(profile.server_spki, state.admin_server.spki());
        assert_ne!(state.server.spki(), state.admin_server.spki());
        assert_ne!(profile.identity.spki(), state.admin_server.spki());
    }

    #[test]
    fn overwrites_nothing() {
        let (_outer, folder, made) = made();
        assert!(matches!(init(&folder, "127.0.0.1:0", "127.0.0.1:0"), Err(StateError::Exists { .. })));
        assert_eq!(pin(&folder).unwrap(), made.pin);
    }

    #[test]
    fn one_server_at_a_time() {
        let (_outer, folder, _) = made();
        let first = State::open(&folder).unwrap();
        assert!(matches!(State::open(&folder), Err(StateError::Locked { .. })));
        drop(first);
        assert!(State::open(&folder).is_ok());
    }

    #[test]
    fn refuses_keys_others_may_read() {
        let (_outer, folder, _) = made();
        fs::set_permissions(folder.join(ROOT_KEY), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(State::open(&folder), Err(StateError::Mode { mode: 0o640, .. })));
    }

    #[test]
    fn refuses_a_root_key_that_is_none() {
        let (_outer, folder, _) = made();
        fs::write(folder.join(ROOT_KEY), "12").unwrap();
        assert!(matches!(State::open(&folder), Err(StateError::RootKey { .. })));
    }

    #[test]
    fn writes_the_real_admin_address_into_the_profile() {
        let (_outer, folder, made) = made();
        let state = State::open(&folder).unwrap();
        state.update_profile("127.0.0.1:4321").unwrap();
        assert_eq!(AdminProfile::read(&made.profile).unwrap().address, "127.0.0.1:4321");
        fs::remove_file(&made.profile).unwrap();
        state.update_profile("127.0.0.1:4321").unwrap();
    }
}
