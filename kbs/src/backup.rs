//! Backups: one file with the database as of one moment, and, encrypted to a recovery key, everything else a broker needs.
//!
//! Without a recovery key a backup holds database and configuration only: values in it are encrypted under the root key, which
//! is never in it. With one it also holds the root key and both identities (next ones too), and nobody reads any of it but the recovery key.
//! Believes a database only after every row of it was checked, and never a configuration that was not encrypted: it is put
//! beside for a person to read. An encrypted backup proves who can read it, not who made it: whoever has the recovery key's
//! public half can make one. Never: writes a root key that is not encrypted, replaces a
//! folder's database without keeping it beside.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use coffer_rim::{
    file::{Writer, sync_folder},
    regular,
};
use zeroize::Zeroizing;

use crate::{
    checkpoint_place,
    init::{building, publish, refuse_used},
    keys::RootKey,
    mend,
    scratch::{RESTORING, Scratch},
    sealed_file::{Opener, RecoveryKey, RecoverySecret, SealedFileError, Sealer, is_sealed},
    state::{
        ADMIN_SERVER, CONFIG, DATABASE, NEXT_ADMIN_SERVER, NEXT_SERVER, ROOT_KEY, SERVER, StateError, checkpoint_path,
        keeper, kept_its_owners, lock_where, root_key, root_keys, write_private,
    },
    store::{Accepted, NotedCheckpoint, Opened, RowsError, SqliteRows, Store, StoreError, Upgrade, Witness, opens},
};

/// Why there is no backup, or nothing was restored from one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A file operation failed.
    #[error("{path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file the broker lives by.
    #[error("{path} {why}")]
    Place {
        /// Where the backup was to be written.
        path: PathBuf,
        /// What is there.
        why: String,
    },
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// What would be backed up is not what the broker wrote.
    #[error("the state is damaged: {}", .0.join("; "))]
    Damaged(Vec<String>),
    /// Not a backup.
    #[error("{path} is no backup of coffer-kbs")]
    NotOurs {
        /// Which file.
        path: PathBuf,
    },
    /// It ends before it should.
    #[error("{path} is the beginning of a backup: the rest of it is missing")]
    Cut {
        /// Which file.
        path: PathBuf,
    },
    /// It goes on where it should end.
    #[error("{path} has bytes behind the end of the backup")]
    Longer {
        /// Which file.
        path: PathBuf,
    },
    /// Something is there already.
    #[error("{path} is there already, and stays as it is")]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// No root key lies where a backup that is not encrypted is to be restored.
    #[error("{folder} has no root.key, and {path} holds none: it is not encrypted")]
    NoRootKey {
        /// Which folder.
        folder: PathBuf,
        /// Which file.
        path: PathBuf,
    },
    /// No configuration lies where a backup that is not encrypted is to be restored. That of the backup was put beside.
    #[error("{folder} has no {CONFIG}, and nothing protects the one in {path}, which is not encrypted")]
    NoConfig {
        /// Which folder.
        folder: PathBuf,
        /// Which file.
        path: PathBuf,
    },
    /// The configuration in an encrypted backup names a checkpoint outside of the new folder, and there is one.
    #[error("{checkpoint} is there already, and a broker may live by it: restoring would begin another one there")]
    CheckpointThere {
        /// Which checkpoint.
        checkpoint: PathBuf,
    },
    /// The root key that lies there opens it not.
    #[error("{path} does not open with the root key of {folder}: it was made under another one, or was changed")]
    OtherRootKey {
        /// Which folder.
        folder: PathBuf,
        /// Which file.
        path: PathBuf,
    },
    /// It is encrypted, and no key was given, or the other way round.
    #[error("{path} is {found}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// `encrypted` or `not encrypted`.
        found: &'static str,
    },
}

impl BackupError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { source, .. } => {
                let sealed = source.get_ref().and_then(|inner| inner.downcast_ref::<SealedFileError>());
                sealed.map_or("check the path, free space and permissions", SealedFileError::hint)
            }
            Self::Place { .. } => "name a file outside the state folder",
            Self::State(error) => error.hint(),
            Self::Damaged(_) => {
                "`coffer-kbs state verify --state DIR` lists it; mend it first, or keep an earlier backup"
            }
            Self::NotOurs { .. } => "name a file that `coffer-kbs backup` wrote",
            Self::Cut { .. } | Self::Longer { .. } => "use a copy that is as `coffer-kbs backup` wrote it",
            Self::Exists { .. } => "name another file, or say --replace-existing-backup",
            Self::NoRootKey { .. } => {
                "put the root.key of its time there, with server.pem and admin-server.pem; or restore a backup that was made with --recovery-key"
            }
            Self::NoConfig { .. } => {
                "put the configuration of its time there; or read config.toml.from-backup, which whoever could write to the backup may have changed (operators, anchors, floors, checkpoint), and give it the name config.toml"
            }
            Self::CheckpointThere { .. } => {
                "stop the broker that was there for good and say --replace-checkpoint; to try a restore, do it on another machine"
            }
            Self::OtherRootKey { .. } => {
                "put the root.key of its time there, which was kept elsewhere (rotate-root makes another one); or restore a backup that was made with --recovery-key"
            }
            Self::Key { found: "encrypted", .. } => "give --recovery-key FILE, the secret half",
            Self::Key { .. } => "leave --recovery-key out, and restore into a folder that has its root.key",
        }
    }
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BackupSummary {
    /// Epoch.
    pub epoch: u64,
    /// Lines of the audit trail.
    pub lines: u64,
    /// Changes so far.
    pub changes: u64,
    /// Rows, each checked.
    pub rows: u64,
    /// Whether root key and identities are in it, and all of it is encrypted.
    pub encrypted: bool,
}

/// What becomes of a file that is there where a backup is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfThere {
    /// It stays, and there is no new backup.
    Stays,
    /// A backup is replaced by a whole one; what is no backup stays.
    BackupIsReplaced,
}

/// What becomes of a checkpoint that the configuration in an encrypted backup names outside of the new folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointElsewhere {
    /// It stays, and nothing is restored.
    Stays,
    /// The restored broker begins its own there.
    IsReplaced,
}

/// Name of a configuration that nothing protected, until somebody has read it.
const CONFIG_TO_READ: &str = "config.toml.from-backup";

/// Writes a backup of a state folder, also while its server runs.
///
/// # Errors
/// [`BackupError`]; then what was there is there, whole.
pub async fn backup(
    folder: &Path,
    out: &Path,
    key: Option<&RecoveryKey>,
    there: IfThere,
) -> Result<BackupSummary, BackupError> {
    // Asked once more when it gets its name; nobody waits for a backup that cannot have one.
    match (fs::symlink_metadata(out), there) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {}
        (Err(error), _) => return Err(at(out)(error)),
        (Ok(_), IfThere::Stays) => return Err(BackupError::Exists { path: out.into() }),
        (Ok(_), IfThere::BackupIsReplaced) => drop(form(out)?),
    }
    if let Some(why) = checkpoint_place::objection(folder, out, []) {
        return Err(BackupError::Place { path: out.into(), why });
    }
    let beside = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Before the copy is made: a server moves it forwards alone, and a copy that ends before it is an older database.
    let mut seen = noted(folder).await?;
    loop {
        let scratch = Scratch::make(".coffer-kbs-backup-", beside).map_err(at(beside))?;
        let moment = match Moment::of(folder, scratch.path().join(DATABASE), key.is_some(), &seen).await {
            // The root key changed meanwhile, or lines were archived: the copy is of after that.
            Err(error @ BackupError::State(StateError::Store(StoreError::Checkpoint(_)))) => {
                let now = noted(folder).await?;
                if now == seen {
                    return Err(error);
                }
                seen = now;
                continue;
            }
            moment => moment?,
        };
        moment.write(out, key, there)?;
        return Ok(moment.summary);
    }
}

async fn noted(folder: &Path) -> Result<NotedCheckpoint, BackupError> {
    let keeper = keeper(folder, &checkpoint_path(folder))?;
    Ok(NotedCheckpoint::of(&*keeper).await.map_err(|error| StateError::Store(error.into()))?)
}

/// A state folder as of one moment, checked.
struct Moment {
    files: Vec<(&'static str, Zeroizing<Vec<u8>>)>,
    copy: PathBuf,
    summary: BackupSummary,
}

impl Moment {
    /// Copies the database, and reads whatever else belongs to it once: what was checked is what is written.
    async fn of(folder: &Path, copy: PathBuf, whole: bool, seen: &NotedCheckpoint) -> Result<Self, BackupError> {
        let read = |name| {
            let path = folder.join(name);
            Ok::<_, BackupError>((name, Zeroizing::new(regular::read(&path, SMALL).map_err(at(&path))?)))
        };
        // The root key may change before the copy is made, or after.
        let mut keys = root_keys(folder)?;
        SqliteRows::snapshot(&folder.join(DATABASE), &copy).await.map_err(|error| match error {
            // That of the copy: the folder's is only read.
            RowsError::Full => at(&copy)(io::ErrorKind::StorageFull.into()),
            error => StateError::Store(error.into()).into(),
        })?;
        keys.extend(root_keys(folder)?);
        let (text, root) = opening(&copy, keys).await?;
        let mut files = vec![read(CONFIG)?];
        if whole {
            files.extend([(ROOT_KEY, Zeroizing::new(text.as_bytes().to_vec())), read(SERVER)?, read(ADMIN_SERVER)?]);
            // Guests may pin them already.
            for next in [NEXT_SERVER, NEXT_ADMIN_SERVER] {
                if folder.join(next).exists() {
                    files.push(read(next)?);
                }
            }
        }
        let summary = checked(&copy, root, whole, Witness::Kept(Arc::new(seen.clone()))).await?;
        Ok(Self { files, copy, summary })
    }

    fn write(&self, out: &Path, key: Option<&RecoveryKey>, there: IfThere) -> Result<(), BackupError> {
        let writer = match there {
            IfThere::Stays => Writer::private().new_only(),
            IfThere::BackupIsReplaced => Writer::private(),
        };
        let written = writer.write_with(out, |file| {
            let mut to = BufWriter::new(file);
            match key {
                Some(key) => {
                    let mut sealer = Sealer::new(&mut to, key)?;
                    entries(&mut sealer, &self.files, &self.copy)?;
                    sealer.finish()?;
                }
                None => entries(&mut to, &self.files, &self.copy)?,
            }
            to.flush()
        });
        written.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists { path: out.into() },
            _ => at(out)(error),
        })
    }
}

/// The key that opens a copy; the first, which is then refused, where none does.
async fn opening(
    copy: &Path,
    mut keys: Vec<(Zeroizing<String>, RootKey)>,
) -> Result<(Zeroizing<String>, RootKey), BackupError> {
    let found = match which_opens(copy, &keys).await? {
        Opening::By(at) => at,
        Opening::ByNone | Opening::OlderForm => 0,
    };
    Ok(keys.swap_remove(found))
}

/// Which of some keys opens a copy.
enum Opening {
    By(usize),
    ByNone,
    /// Nobody can say before it is brought up to date.
    OlderForm,
}

async fn which_opens(copy: &Path, keys: &[(Zeroizing<String>, RootKey)]) -> Result<Opening, BackupError> {
    let opened = SqliteRows::open(copy, Upgrade::Refused).await.map_err(|error| StateError::Store(error.into()))?;
    let Opened::Current(rows) = opened else { return Ok(Opening::OlderForm) };
    for (at, (_, key)) in keys.iter().enumerate() {
        if opens(&rows, key).await.map_err(StateError::Store)? {
            return Ok(Opening::By(at));
        }
    }
    Ok(Opening::ByNone)
}

/// Restores a backup, and accepts its state by name: what was done after it was made is forgotten. An encrypted one makes a new
/// folder; another one takes the place of the database of a folder that has its root key, if there is one.
///
/// # Errors
/// [`BackupError`]; then nothing has changed.
pub async fn restore(
    file: &Path,
    folder: &Path,
    secret: Option<&RecoverySecret>,
    elsewhere: CheckpointElsewhere,
) -> Result<Accepted, BackupError> {
    let encrypted = form(file)? == Form::Encrypted;
    let mut from = BufReader::new(File::open(file).map_err(at(file))?);
    match secret {
        None if encrypted => return Err(BackupError::Key { path: file.into(), found: "encrypted" }),
        Some(_) if !encrypted => return Err(BackupError::Key { path: file.into(), found: "not encrypted" }),
        None => {}
        Some(secret) => {
            refuse_used(folder)?;
            let building = building(folder)?;
            let mut opener = Opener::new(&mut from, secret).map_err(read(file))?;
            unpack(&mut opener, building.path(), file)?;
            checked(
                &building.path().join(DATABASE),
                root_key(building.path()).await?,
                true,
                Witness::OlderDatabaseIsNotNoticed,
            )
            .await?;
            let checkpoint = checkpoint_path(building.path());
            let outside = !checkpoint.starts_with(building.path());
            if outside && elsewhere == CheckpointElsewhere::Stays && fs::symlink_metadata(&checkpoint).is_ok() {
                return Err(BackupError::CheckpointThere { checkpoint });
            }
            // Before it has its name: a checkpoint elsewhere may not be had here.
            let accepted = mend::accept_rollback(building.path()).await?;
            sync_folder(building.path()).map_err(at(folder))?;
            publish(building, folder, &|_| Ok(()))?;
            return Ok(accepted);
        }
    }
    let _kept = kept_its_owners(folder);
    let held = lock_where(folder, ROOT_KEY).map_err(|error| match error {
        StateError::Missing { .. } => BackupError::NoRootKey { folder: folder.into(), path: file.into() },
        error => error.into(),
    })?;
    let building = Scratch::make(RESTORING, folder).map_err(at(folder))?;
    unpack(&mut from, building.path(), file)?;
    // Rows prove themselves under the root key; the configuration, which says who is an operator, has nothing that would.
    if !folder.join(CONFIG).exists() {
        let to_read = folder.join(CONFIG_TO_READ);
        fs::rename(building.path().join(CONFIG), &to_read).map_err(at(&to_read))?;
        return Err(BackupError::NoConfig { folder: folder.into(), path: file.into() });
    }
    let (new, keys) = (building.path().join(DATABASE), root_keys(folder)?);
    if matches!(which_opens(&new, &keys).await?, Opening::ByNone) {
        return Err(BackupError::OtherRootKey { folder: folder.into(), path: file.into() });
    }
    checked(&new, opening(&new, keys).await?.1, false, Witness::OlderDatabaseIsNotNoticed).await?;
    // Before anything has another name.
    mend::checkpoint_is_ready(folder).await?;
    let now = crate::clock::Clock::system().now();
    for name in [DATABASE, "kbs.db-wal", "kbs.db-shm"] {
        let (place, aside) = (folder.join(name), folder.join(format!("replaced-{now}-{name}")));
        match fs::rename(&place, aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&place)(error)),
            _ => {}
        }
    }
    fs::rename(&new, folder.join(DATABASE)).and_then(|()| sync_folder(folder)).map_err(at(folder))?;
    drop(held);
    Ok(mend::accept_rollback(folder).await?)
}

/// Checks every row and line of a copy under a root key.
async fn checked(copy: &Path, root: RootKey, encrypted: bool, witness: Witness) -> Result<BackupSummary, BackupError> {
    let store = Store::open_file(copy, root, Upgrade::Refused, witness).await;
    let summary = async { store?.verify_state().await }.await.map_err(|error: StoreError| StateError::Store(error))?;
    if !summary.faults.is_empty() {
        return Err(BackupError::Damaged(summary.faults.into_iter().map(|fault| fault.what).collect()));
    }
    let crate::store::StateSummary { epoch, lines, changes, rows, .. } = summary;
    Ok(BackupSummary { epoch, lines, changes, rows, encrypted })
}

fn entries(to: &mut impl Write, files: &[(&str, Zeroizing<Vec<u8>>)], copy: &Path) -> io::Result<()> {
    to.write_all(MAGIC)?;
    for (name, bytes) in files {
        entry(to, name, bytes.len() as u64, &mut bytes.as_slice())?;
    }
    let mut database = File::open(copy)?;
    let length = database.metadata()?.len();
    entry(to, DATABASE, length, &mut database)
}

fn entry(to: &mut impl Write, name: &str, length: u64, content: &mut impl Read) -> io::Result<()> {
    to.write_all(&[u8::try_from(name.len()).unwrap_or(0)])?;
    to.write_all(name.as_bytes())?;
    to.write_all(&length.to_be_bytes())?;
    if io::copy(&mut content.take(length), to)? == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Writes the files of a backup into a private folder; the end must be where the database ends.
fn unpack(from: &mut impl Read, folder: &Path, file: &Path) -> Result<(), BackupError> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(read(file))?;
    if magic != *MAGIC {
        return Err(BackupError::NotOurs { path: file.into() });
    }
    loop {
        let mut length = [0];
        if from.read(&mut length).map_err(read(file))? == 0 {
            break;
        }
        let mut name = vec![0; usize::from(length[0])];
        from.read_exact(&mut name).map_err(read(file))?;
        let known = [CONFIG, ROOT_KEY, SERVER, ADMIN_SERVER, NEXT_SERVER, NEXT_ADMIN_SERVER, DATABASE];
        let Some(name) = known.into_iter().find(|known| known.as_bytes() == name) else {
            return Err(BackupError::NotOurs { path: file.into() });
        };
        let mut length = [0; 8];
        from.read_exact(&mut length).map_err(read(file))?;
        let (length, place) = (u64::from_be_bytes(length), folder.join(name));
        if name == DATABASE {
            let written = Writer::private().new_only().write_with(&place, |to| copied(from, length, to));
            written.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => BackupError::Cut { path: file.into() },
                // Of the backup: what was encrypted is not as it was.
                io::ErrorKind::InvalidData => read(file)(error),
                _ => at(&place)(error),
            })?;
            // The last of it.
            return match from.read(&mut [0]).map_err(read(file))? {
                0 => Ok(()),
                _ => Err(BackupError::Longer { path: file.into() }),
            };
        }
        let mut bytes = Zeroizing::new(Vec::new());
        copied(from, length.min(SMALL), &mut *bytes).map_err(read(file))?;
        write_private(&place, &bytes)?;
    }
    Err(BackupError::NotOurs { path: file.into() })
}

fn copied(from: &mut impl Read, length: u64, to: &mut impl Write) -> io::Result<()> {
    if io::copy(&mut from.take(length), to)? == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// What lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Encrypted,
    Plain,
}

fn form(file: &Path) -> Result<Form, BackupError> {
    let mut beginning = Vec::new();
    let opened = File::open(file).map_err(at(file))?;
    opened.take(32).read_to_end(&mut beginning).map_err(at(file))?;
    if is_sealed(&beginning) {
        Ok(Form::Encrypted)
    } else if beginning.starts_with(MAGIC) {
        Ok(Form::Plain)
    } else {
        Err(BackupError::NotOurs { path: file.into() })
    }
}

/// Of a backup that is read.
fn read(file: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let file = file.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Cut { path: file.clone() },
        _ => at(&file)(error),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::File { path: path.clone(), source }
}

const MAGIC: &[u8; 20] = b"coffer-kbs backup 1\n";
/// Keys and configuration are small.
const SMALL: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{init, recovery_pair, rotate_root};

    #[tokio::test]
    async fn a_root_key_that_changes_meanwhile_leaves_a_backup_with_the_key_of_its_database() {
        let folder = tempfile::tempdir().unwrap();
        let (state, out) = (folder.path().join("state"), folder.path().join("out"));
        init(&state, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let (key, secret) = recovery_pair().unwrap();
        // Before the copy is made: the key that was read first opens nothing any more.
        let mut keys = root_keys(&state).unwrap();
        rotate_root(&state).await.unwrap();
        keys.extend(root_keys(&state).unwrap());
        let (text, _) = opening(&state.join(DATABASE), keys).await.unwrap();
        assert_eq!(*text, fs::read_to_string(state.join(ROOT_KEY)).unwrap());
        // After it: the key that lies there now is none of the copy's.
        let moment = Moment::of(&state, folder.path().join("copy"), true, &noted(&state).await.unwrap()).await.unwrap();
        rotate_root(&state).await.unwrap();
        assert_ne!(*text, fs::read_to_string(state.join(ROOT_KEY)).unwrap());
        moment.write(&out, Some(&key), IfThere::Stays).unwrap();
        let again = folder.path().join("again");
        restore(&out, &again, Some(&secret), CheckpointElsewhere::Stays).await.unwrap();
        assert_eq!(*text, fs::read_to_string(again.join(ROOT_KEY)).unwrap());
    }

    #[tokio::test]
    async fn a_database_that_is_older_than_its_checkpoint_takes_no_backups_place() {
        let folder = tempfile::tempdir().unwrap();
        let (state, out) = (folder.path().join("state"), folder.path().join("out"));
        init(&state, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        backup(&state, &out, None, IfThere::Stays).await.unwrap();
        let good = fs::read(&out).unwrap();
        let older = folder.path().join("older");
        SqliteRows::snapshot(&state.join(DATABASE), &older).await.unwrap();
        mend::accept_rollback(&state).await.unwrap();
        fs::copy(&older, state.join(DATABASE)).unwrap();
        for gone in ["kbs.db-wal", "kbs.db-shm"] {
            let _ = fs::remove_file(state.join(gone));
        }
        let refused = backup(&state, &out, None, IfThere::BackupIsReplaced).await;
        let Err(BackupError::State(StateError::Store(StoreError::Checkpoint(error)))) = refused else {
            panic!("{refused:?}")
        };
        assert!(error.to_string().contains("the database is older than its checkpoint"), "{error}");
        assert_eq!(fs::read(&out).unwrap(), good, "the good one stays");
        // One whose checkpoint is gone is not taken for the newest either.
        fs::remove_file(checkpoint_path(&state)).unwrap();
        assert!(backup(&state, &out, None, IfThere::BackupIsReplaced).await.is_err());
        assert_eq!(fs::read(&out).unwrap(), good);
    }
}
