//! The state folder: made once by `init`, opened by `serve`, held by one server at a time.
//!
//! ```text
//! DIR/            0700
//!   config.toml   listeners, operators, tenants, policies
//!   root.key      0600  64 hex digits; everything in kbs.db hangs from it (custody)
//!   root.key.next 0600  only while the root key changes
//!   root.key.unused-TIME 0600  of a change that did not happen: it opens no database here
//!   server.pem    0600  identity guests pin
//!   admin-server.pem 0600  identity of the admin listener
//!   server.pem.next, admin-server.pem.next 0600  those that come next, where they were made
//!   admin.toml    0600  profile of the first operator: move it to where the operator works
//!   kbs.db        0600
//!   checkpoint    0600  where kbs.db ends, unless `checkpoint` of config.toml says another place
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use coffer_kbs_client::{AdminProfile, ProfileError};
use coffer_ratls::{Identity, IdentityError};
use coffer_rim::file::{Writer, sync_folder};
use coffer_verifier::abi::SpkiDigest;
use zeroize::Zeroizing;

use crate::{
    checkpoint_place::objection,
    clock::Clock,
    config::{ConfigError, ConfigFile},
    custody::{Custody as _, CustodyError, FileCustody, NotPrivate, private_text},
    keys::RootKey,
    owner::{Kept, NOT_MINE},
    scratch,
    store::{FileCheckpoint, Opened, Rows, SqliteRows, Store, StoreError, Traces, Upgrade, Witness, opens},
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
    /// There is none.
    #[error("{path} is no state folder")]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// The root key.
    #[error(transparent)]
    Custody(#[from] CustodyError),
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
    /// A next key of a listener is there already.
    #[error("a next key waits already: {path}")]
    NextKeyWaits {
        /// Where.
        path: PathBuf,
    },
    /// There is no next key of a listener.
    #[error("no next key waits: there is no {path}")]
    NoNextKey {
        /// Where it would be.
        path: PathBuf,
    },
    /// What the configuration would say contradicts itself.
    #[error(transparent)]
    Mistakes(#[from] ConfigError),
    /// The configuration cannot be written.
    #[error("configuration cannot be written: {0}")]
    Config(String),
}

impl StateError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "name an empty or new folder; keys are never overwritten",
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => NOT_MINE,
            Self::File { .. } => "make a state folder with `coffer-kbs init --state DIR`, and check its permissions",
            Self::Mode { .. } => "chmod 600 the file, and make a new key if somebody may have read it",
            Self::Missing { .. } => "make one with `coffer-kbs init --state DIR`",
            Self::Custody(error) => error.hint(),
            Self::Profile(error) => error.hint(),
            Self::Identity { .. } => "restore the file from your backup",
            Self::Store(error) => error.hint(),
            Self::Locked { .. } => "stop the broker that serves it first: this is done while none does",
            Self::NextKeyWaits { .. } => {
                "somebody may pin it: switch to it with `coffer-kbs server-key switch --state DIR --listener guests|operators`, or remove the file where nobody does"
            }
            Self::NoNextKey { .. } => {
                "make one with `coffer-kbs server-key next --state DIR --listener guests|operators`, and have it pinned beside the present one before you switch"
            }
            Self::Mistakes(error) => error.hint(),
            Self::Config(_) => "report this",
        }
    }
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

impl State {
    /// Opens a state folder for serving, with the checkpoint its own configuration names; only one server at a time may. A
    /// database of an earlier format is refused.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn open(folder: &Path) -> Result<Self, StateError> {
        Self::open_watched(folder, &checkpoint_path(folder)).await
    }

    /// The same with a checkpoint at another place.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn open_watched(folder: &Path, checkpoint: &Path) -> Result<Self, StateError> {
        let (lock, witness) = (lock(folder)?, Witness::Kept(keeper(folder, checkpoint)?));
        scratch::clear(scratch::RESTORING, folder);
        let changed = settle_root_key(folder).await? == RootKeys::NewOne;
        let (path, root) = (folder.join(DATABASE), root_key(folder).await?);
        let store = Store::open_file(&path, root, Upgrade::Refused, witness).await?;
        // A server that was killed may have come no further.
        if let Err(error) = store.leave_no_traces(if changed { Traces::Everywhere } else { Traces::Log }).await {
            tracing::error!(error = %coffer_rim::chain(&error), hint = error.hint(), "an earlier server left it undone");
        }
        Self::around(folder, lock, store)
    }

    /// Opens a state folder whose rows are kept elsewhere, such as in memory for a test. Rows that hold nothing yet are
    /// begun with [`begin_store`].
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn open_with(folder: &Path, rows: Arc<dyn Rows>) -> Result<Self, StateError> {
        let lock = lock(folder)?;
        let store = Store::open(rows, root_key(folder).await?, Witness::OlderDatabaseIsNotNoticed).await?;
        Self::around(folder, lock, store)
    }

    fn around(folder: &Path, lock: File, store: Store) -> Result<Self, StateError> {
        let (server, admin_server) = (read_identity(&folder.join(SERVER))?, read_identity(&folder.join(ADMIN_SERVER))?);
        Ok(Self { folder: folder.into(), store: Arc::new(store), server, admin_server, _lock: lock })
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
        if profile.address == admin_address || !profile.pins.contains(&self.admin_server.spki()) {
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
pub async fn open_store(folder: &Path) -> Result<Store, StateError> {
    open_store_watched(folder, watched(folder)?).await
}

/// The same with another witness, such as none for a copy that came without its checkpoint.
///
/// # Errors
/// [`StateError`].
pub async fn open_store_watched(folder: &Path, witness: Witness) -> Result<Store, StateError> {
    Ok(Store::open_file(&folder.join(DATABASE), root_key(folder).await?, Upgrade::Refused, witness).await?)
}

/// Begins a store under a folder's root key in rows that hold nothing yet.
///
/// # Errors
/// [`StateError`].
pub async fn begin_store(folder: &Path, rows: Arc<dyn Rows>) -> Result<Store, StateError> {
    Ok(Store::create(rows, root_key(folder).await?, Witness::OlderDatabaseIsNotNoticed).await?)
}

/// Opens the store under a folder's root key in rows that are kept elsewhere.
///
/// # Errors
/// [`StateError`].
pub async fn open_store_with(folder: &Path, rows: Arc<dyn Rows>) -> Result<Store, StateError> {
    Ok(Store::open(rows, root_key(folder).await?, Witness::OlderDatabaseIsNotNoticed).await?)
}

/// The rows of a state folder, which nobody believes: what whoever writes to the database has in hand.
///
/// # Errors
/// [`StateError`].
pub async fn open_rows(folder: &Path) -> Result<Arc<dyn Rows>, StateError> {
    match SqliteRows::open(&folder.join(DATABASE), Upgrade::Refused).await.map_err(StoreError::from)? {
        Opened::Current(rows) | Opened::Old { rows, .. } | Opened::Format3 { rows, .. } => Ok(Arc::new(rows)),
    }
}

/// Where the configuration of a state folder is.
pub fn config_path(folder: &Path) -> PathBuf {
    folder.join(CONFIG)
}

/// Where the checkpoint of a state folder is, by its own configuration. One that cannot be read says nothing: the usual place.
pub fn checkpoint_path(folder: &Path) -> PathBuf {
    let configured = ConfigFile::read(&config_path(folder)).ok().and_then(|file| file.checkpoint);
    configured.map_or_else(|| folder.join(CHECKPOINT), |path| folder.join(path))
}

/// The checkpoint of a state folder that lies there.
pub(crate) fn keeper(folder: &Path, checkpoint: &Path) -> Result<Arc<FileCheckpoint>, StateError> {
    match objection(folder, checkpoint, []) {
        None => Ok(Arc::new(FileCheckpoint::new(checkpoint))),
        Some(why) => Err(ConfigError::Mistakes(vec![format!("checkpoint {} {why}", checkpoint.display())]).into()),
    }
}

/// What notices a whole older database of a state folder, by its own configuration.
pub(crate) fn watched(folder: &Path) -> Result<Witness, StateError> {
    Ok(Witness::Kept(keeper(folder, &checkpoint_path(folder))?))
}

/// What root makes in a state folder is to be the folder's owner's.
pub(crate) fn kept_its_owners(folder: &Path) -> Kept {
    Kept::of(folder, &checkpoint_path(folder))
}

/// Held by the one server of a folder.
pub(crate) fn lock(folder: &Path) -> Result<File, StateError> {
    lock_where(folder, DATABASE)
}

/// The same of a folder that has this file.
pub(crate) fn lock_where(folder: &Path, name: &str) -> Result<File, StateError> {
    // A lock in an empty folder would stand in the way of the `init` that is about to fill it.
    if !folder.join(name).exists() {
        return Err(StateError::Missing { path: folder.into() });
    }
    let path = folder.join(LOCK);
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| StateError::File { path, source })?;
    lock.try_lock().map_err(|_| StateError::Locked { path: folder.into() })?;
    Ok(lock)
}

pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let written = Writer::private().new_only().write(path, bytes);
    written.map_err(|source| StateError::File { path: path.into(), source })
}

pub(crate) fn write_identity(path: &Path, identity: &Identity) -> Result<(), StateError> {
    let pem = identity.to_pem();
    write_private(path, Zeroizing::new(format!("{}{}", pem.certificate, pem.key.as_str())).as_bytes())
}

pub(crate) fn read_identity(path: &Path) -> Result<Identity, StateError> {
    let text = private_text(path).map_err(|error| match error {
        NotPrivate::File(source) => StateError::File { path: path.into(), source },
        NotPrivate::Mode(mode) => StateError::Mode { path: path.into(), mode },
    })?;
    // Certificate first, then the key, as written above.
    let (certificate, key) = text.split_at(text.find(KEY_BEGINS).unwrap_or(text.len()));
    Identity::from_pem(certificate, key).map_err(|source| StateError::Identity { path: path.into(), source })
}

/// Where the root key is that opens the database: while it changes there are two.
async fn root_key_path(folder: &Path) -> Result<PathBuf, StateError> {
    let next = folder.join(NEXT_ROOT_KEY);
    if next.exists()
        && let Ok(key) = FileCustody::new(&next).open().await
        && opens(&*open_rows(folder).await?, &key).await?
    {
        return Ok(next);
    }
    Ok(folder.join(ROOT_KEY))
}

/// Every root key that lies in the folder, with its text: one of them opens the database.
pub(crate) fn root_keys(folder: &Path) -> Result<Vec<(Zeroizing<String>, RootKey)>, StateError> {
    let read = |name| {
        let custody = FileCustody::new(folder.join(name));
        let text = custody.text()?;
        Ok::<_, StateError>((custody.parse(&text)?, text)).map(|(key, text)| (text, key))
    };
    // The next one may get its name at this moment, or may have been cut off while it was written.
    let next = read(NEXT_ROOT_KEY);
    Ok(std::iter::once(read(ROOT_KEY)?).chain(next).collect())
}

/// The root key that opens the database.
pub(crate) async fn root_key(folder: &Path) -> Result<RootKey, StateError> {
    Ok(FileCustody::new(root_key_path(folder).await?).open().await?)
}

/// What a change of the root key that was cut off came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootKeys {
    /// Nothing, or there was none.
    OldOne,
    /// The new key opens the database.
    NewOne,
}

/// Ends what a change of the root key that was cut off began. Whoever calls it holds the folder.
pub(crate) async fn settle_root_key(folder: &Path) -> Result<RootKeys, StateError> {
    let next = folder.join(NEXT_ROOT_KEY);
    if !next.exists() {
        return Ok(RootKeys::OldOne);
    }
    if root_key_path(folder).await? == next {
        adopt_root_key(folder)?;
        return Ok(RootKeys::NewOne);
    }
    // Set aside only where the old key is seen to open the database, and kept: an older database may lie here, and this be the
    // key of the newer one.
    let old = FileCustody::new(folder.join(ROOT_KEY)).open().await?;
    if opens(&*open_rows(folder).await?, &old).await? {
        let now = Clock::system().now();
        let mut names = (0..).map(|number: u32| match number {
            0 => folder.join(format!("{UNUSED_ROOT_KEY}{now}")),
            number => folder.join(format!("{UNUSED_ROOT_KEY}{now}-{number}")),
        });
        let aside = names.find(|path| !path.exists()).unwrap_or_else(|| next.clone());
        tracing::warn!(kept = %aside.display(), "a change of the root key did not happen");
        let kept = std::fs::rename(&next, aside).and_then(|()| sync_folder(folder));
        kept.map_err(|source| StateError::File { path: next, source })?;
    }
    Ok(RootKeys::OldOne)
}

/// Gives the new root key its name.
pub(crate) fn adopt_root_key(folder: &Path) -> Result<(), StateError> {
    let next = folder.join(NEXT_ROOT_KEY);
    let named = std::fs::rename(&next, folder.join(ROOT_KEY)).and_then(|()| sync_folder(folder));
    named.map_err(|source| StateError::File { path: next, source })
}

const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";
pub(crate) const CONFIG: &str = "config.toml";
pub(crate) const ROOT_KEY: &str = "root.key";
pub(crate) const NEXT_ROOT_KEY: &str = "root.key.next";
pub(crate) const UNUSED_ROOT_KEY: &str = "root.key.unused-";
pub(crate) const SERVER: &str = "server.pem";
pub(crate) const ADMIN_SERVER: &str = "admin-server.pem";
pub(crate) const NEXT_SERVER: &str = "server.pem.next";
pub(crate) const NEXT_ADMIN_SERVER: &str = "admin-server.pem.next";
pub(crate) const PROFILE: &str = "admin.toml";
pub(crate) const DATABASE: &str = "kbs.db";
pub(crate) const CHECKPOINT: &str = "checkpoint";
pub(crate) const LOCK: &str = "lock";

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::init::{Initialized, init};

    async fn made() -> (tempfile::TempDir, PathBuf, Initialized) {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        let made = init(&folder, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        (outer, folder, made)
    }

    #[tokio::test]
    async fn one_server_at_a_time() {
        let (_outer, folder, _) = made().await;
        let first = State::open(&folder).await.unwrap();
        assert!(matches!(State::open(&folder).await, Err(StateError::Locked { .. })));
        drop(first);
        assert!(State::open(&folder).await.is_ok());
    }

    #[tokio::test]
    async fn a_server_that_comes_too_early_leaves_an_empty_folder_empty() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(State::open(folder.path()).await, Err(StateError::Missing { .. })));
        init(folder.path(), "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    }

    #[tokio::test]
    async fn refuses_identities_others_may_read() {
        let (_outer, folder, _) = made().await;
        fs::set_permissions(folder.join(SERVER), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(State::open(&folder).await, Err(StateError::Mode { mode: 0o640, .. })));
    }

    #[tokio::test]
    async fn writes_the_real_admin_address_into_the_profile() {
        let (_outer, folder, made) = made().await;
        let state = State::open(&folder).await.unwrap();
        state.update_profile("127.0.0.1:4321").unwrap();
        assert_eq!(AdminProfile::read(&made.profile).unwrap().address, "127.0.0.1:4321");
        fs::remove_file(&made.profile).unwrap();
        state.update_profile("127.0.0.1:4321").unwrap();
    }
}
