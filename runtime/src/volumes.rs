//! Volumes: what boxes keep beyond their lives, each in a folder of its name below `$COFFER_HOME/volumes`.
//!
//! `volume.json` says what was asked for; `disk.img` is the file system of boxes with a machine, `files` the folder of those
//! without one, `sealed.img` what boxes with a TEE encrypt, whichever came first; `lock` is held by who mounts it.
//! Trusts: the home, which is the operator's alone. Never: reads a file system that a box wrote, or follows a link in one.

mod make;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use coffer_rim::file::{sync_folder, write_private};
use coffer_rim::input;
use coffer_spec::{DataVolume, Name, SealedVolume};
use serde::{Deserialize, Serialize};

use crate::home::{HomeError, private_folder};
use crate::id::BoxId;
use crate::removal::remove_folder;
use crate::{Class, Failure};

pub use make::MKE2FS;

/// A volume of a box, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxVolume {
    /// Which.
    pub name: Name,
    /// The box writes nothing to it.
    #[serde(default)]
    pub read_only: bool,
    /// Nobody named it: it goes with its box, where that is asked for.
    #[serde(default)]
    pub anonymous: bool,
}

/// What was asked for when a volume was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    version: u32,
    /// Unix milliseconds.
    pub created: i64,
    /// Most bytes of its file system, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Nobody named it.
    #[serde(default)]
    pub anonymous: bool,
    /// What it is found by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl VolumeRecord {
    /// Of a volume made at this moment, Unix milliseconds.
    pub fn new(created: i64, bytes: Option<u64>, anonymous: bool, labels: BTreeMap<String, String>) -> Self {
        Self { version: VERSION, created, bytes, anonymous, labels }
    }
}

/// What a volume is made of, from the first box that has it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file system of its own, on a disk of a machine.
    Disk,
    /// A folder of the host's, for boxes without a machine.
    Folder,
    /// A disk that boxes with a TEE encrypt and authenticate themselves.
    Sealed,
}

impl Kind {
    const fn file(self) -> &'static str {
        match self {
            Self::Disk => "disk.img",
            Self::Folder => "files",
            Self::Sealed => "sealed.img",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Disk => "a disk, of boxes with a machine",
            Self::Folder => "a folder, of boxes without a machine",
            Self::Sealed => "sealed, of boxes with a TEE",
        }
    }
}

/// One volume.
#[derive(Clone, Debug)]
pub struct KeptVolume {
    /// Its name.
    pub name: Name,
    /// What was asked for.
    pub record: VolumeRecord,
    /// Where it is.
    pub folder: PathBuf,
}

impl KeptVolume {
    /// What it is made of, if a box had it already.
    pub fn kind(&self) -> Option<Kind> {
        [Kind::Disk, Kind::Folder, Kind::Sealed]
            .into_iter()
            .find(|kind| self.folder.join(kind.file()).symlink_metadata().is_ok())
    }

    /// Where what is in it can be seen: the files, of a folder; of a disk the folder that its image is in.
    pub fn mountpoint(&self) -> PathBuf {
        match self.kind() {
            Some(Kind::Folder) => self.folder.join(Kind::Folder.file()).join(DataVolume::CONTENTS),
            Some(Kind::Disk | Kind::Sealed) | None => self.folder.clone(),
        }
    }

    /// Most bytes of its file system; a folder has no limit.
    pub fn limit(&self) -> Option<u64> {
        match self.kind() {
            Some(Kind::Disk) => self.folder.join(Kind::Disk.file()).metadata().ok().map(|found| found.len()),
            Some(Kind::Folder) => None,
            Some(Kind::Sealed) => Some(self.sealed_bytes()),
            None => self.record.bytes,
        }
    }

    /// Bytes of its file system in a box with a TEE.
    pub fn sealed_bytes(&self) -> u64 {
        self.record.bytes.unwrap_or(SealedVolume::USUAL) / SealedVolume::BLOCK * SealedVolume::BLOCK
    }

    /// Bytes of the host's disk that it takes; of very many files only the first.
    pub fn disk_bytes(&self) -> u64 {
        let (mut bytes, mut left, mut folders) = (0, MOST_COUNTED, vec![self.folder.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(left) {
                left -= 1;
                let Ok(found) = entry.metadata() else { continue };
                bytes += found.blocks() * 512;
                if found.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        bytes
    }
}

const VERSION: u32 = 1;
const RECORD: &str = "volume.json";
const LOCK: &str = "lock";
/// What is being made or taken away begins so; no name does.
const UNFINISHED: &str = ".";
const MOST_COUNTED: usize = 1_000_000;

/// Bytes of a disk of which nobody says how large it may be. It takes what is written.
pub const USUAL: u64 = 10 << 30;
/// Least bytes of a disk.
pub const LEAST: u64 = 16 << 20;
/// Most bytes of a disk.
pub const MOST: u64 = 16 << 40;

/// Why something with a volume cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeStoreError {
    /// The home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// There is none of that name.
    #[error("no such volume: {0}")]
    Unknown(Name),
    /// A box has it.
    #[error("volume is in use: {name} is a volume of {}", .boxes.join(", "))]
    InUse {
        /// Which.
        name: Name,
        /// Names of the boxes.
        boxes: Vec<String>,
    },
    /// Another box runs with it.
    #[error("volume {name} is in use by a box that runs, and one that writes it has it alone")]
    Busy {
        /// Which.
        name: Name,
    },
    /// It is there, and is not what was asked for.
    #[error("volume {name} is there already, and has {found}")]
    Other {
        /// Which.
        name: Name,
        /// What it has.
        found: String,
    },
    /// Another kind of box had it first.
    #[error("volume {name} is {}", .found.words())]
    OtherKind {
        /// Which.
        name: Name,
        /// What it is.
        found: Kind,
    },
    /// One disk cannot be two of a machine.
    #[error("volume {0} stands there twice, and a box with a machine mounts it once")]
    Twice(Name),
    /// A folder of the host's cannot be bounded.
    #[error("volume {name} has a size limit, which nothing would hold in a box without a machine")]
    NoLimit {
        /// Which.
        name: Name,
    },
    /// No disk has so many bytes.
    #[error("a volume of {0} bytes: 16m to 16t fit")]
    Size(u64),
    /// Its tags would not fit a guest's memory.
    #[error("a sealed volume of {0} bytes: 16m to 64g fit")]
    SealedSize(u64),
    /// Its record is not ours.
    #[error("{} is no record of a volume", .path.display())]
    Record {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// The file system of the host.
    #[error("cannot use {}", .path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has no name any more, and is not gone.
    #[error("volume {name} is no more, and what is left of it stays in {}", .path.display())]
    Left {
        /// Which it was.
        name: Name,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No file system was made on it.
    #[error(transparent)]
    Make(Failure),
}

impl VolumeStoreError {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Home(_)
            | Self::Record { .. }
            | Self::File { .. }
            | Self::Left { .. }
            | Self::InUse { .. }
            | Self::Busy { .. }
            | Self::Other { .. }
            | Self::OtherKind { .. } => Class::Config,
            Self::Unknown(_) => Class::NotFound,
            Self::Twice(_) | Self::NoLimit { .. } | Self::Size(_) | Self::SealedSize(_) => Class::Usage,
            Self::Make(failure) => failure.class,
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::InUse { .. } => Some("remove the boxes first".into()),
            Self::Busy { .. } => Some("stop that box, or let both only read it".into()),
            Self::Other { .. } => Some("ask for no size, or for another name".into()),
            Self::OtherKind { .. } => Some("name another volume".into()),
            Self::Left { .. } => Some("mend that; whatever changes the set of volumes next removes it".into()),
            Self::NoLimit { .. } => Some("make it without a size, or use a box with a machine".into()),
            Self::Make(failure) => failure.hint.clone(),
            Self::Unknown(_)
            | Self::Twice(_)
            | Self::Size(_)
            | Self::SealedSize(_)
            | Self::Record { .. }
            | Self::File { .. } => None,
        }
    }
}

impl From<VolumeStoreError> for Failure {
    fn from(error: VolumeStoreError) -> Self {
        let failure = Self::caused(error.class(), &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Volumes {
    root: PathBuf,
}

/// While it is held nobody else makes or takes away a volume, or records a box that has one.
#[derive(Debug)]
pub struct Guard(#[allow(dead_code, reason = "the kernel lets go of the lock with it")] File);

impl Volumes {
    /// Those below a folder.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    fn of_file(path: &Path) -> impl FnOnce(io::Error) -> VolumeStoreError + '_ {
        |source| VolumeStoreError::File { path: path.into(), source }
    }

    /// Waits for whoever else changes the set of volumes, and takes away what was left half made or half removed; warns of what stays.
    ///
    /// # Errors
    /// [`VolumeStoreError`].
    pub fn guard(&self) -> Result<Guard, VolumeStoreError> {
        private_folder(&self.root)?;
        let lock = open_lock(&self.root.join(".lock")).and_then(|file| file.lock().map(|()| file));
        let guard = Guard(lock.map_err(Self::of_file(&self.root))?);
        for entry in fs::read_dir(&self.root).map_err(Self::of_file(&self.root))?.flatten() {
            let unfinished = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
            let folder = entry.path();
            if unfinished
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Err(error) = remove_folder(&folder)
            {
                tracing::warn!(%error, folder = %folder.display(), "what is left of a removed volume stays; hint: remove it");
            }
        }
        Ok(guard)
    }

    fn folder(&self, name: &Name) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// Where the files of a volume of this kind are.
    pub fn path(&self, name: &Name, kind: Kind) -> PathBuf {
        self.folder(name).join(kind.file())
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// [`VolumeStoreError::Unknown`] in particular.
    pub fn find(&self, name: &Name) -> Result<KeptVolume, VolumeStoreError> {
        let folder = self.folder(name);
        let path = folder.join(RECORD);
        let bytes = match input::read(&path, input::DOCUMENT) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeStoreError::Unknown(name.clone()));
            }
            Err(source) => return Err(VolumeStoreError::File { path, source }),
        };
        let record = serde_json::from_slice::<VolumeRecord>(&bytes).map_err(io::Error::from).and_then(|record| {
            let known = record.version == VERSION;
            known.then_some(record).ok_or_else(|| io::Error::other("it is of another release"))
        });
        let record = record.map_err(|source| VolumeStoreError::Record { path, source })?;
        Ok(KeptVolume { name: name.clone(), record, folder })
    }

    /// Every volume, by name.
    ///
    /// # Errors
    /// [`VolumeStoreError`].
    pub fn all(&self) -> Result<Vec<KeptVolume>, VolumeStoreError> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Self::of_file(&self.root))?,
        };
        let mut all = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_str().and_then(|name| name.parse::<Name>().ok());
            match name.map(|name| self.find(&name)) {
                // One that goes at this moment, or is none.
                None | Some(Err(VolumeStoreError::Unknown(_))) => {}
                Some(found) => all.push(found?),
            }
        }
        all.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        Ok(all)
    }

    /// Makes a volume, whole under its name or not at all. One that is there is given as it is, unless it has another size than
    /// was asked for.
    ///
    /// # Errors
    /// [`VolumeStoreError`].
    pub fn make(&self, _: &Guard, name: &Name, record: &VolumeRecord) -> Result<KeptVolume, VolumeStoreError> {
        if let Some(bytes) = record.bytes.filter(|bytes| !(LEAST..=MOST).contains(bytes)) {
            return Err(VolumeStoreError::Size(bytes));
        }
        match self.find(name) {
            Ok(found) if record.bytes.is_none() || found.limit() == record.bytes => return Ok(found),
            Ok(found) => {
                let found = found.limit().map_or_else(|| "no size limit".into(), |bytes| format!("{bytes} bytes"));
                return Err(VolumeStoreError::Other { name: name.clone(), found });
            }
            Err(VolumeStoreError::Unknown(_)) => {}
            Err(error) => return Err(error),
        }
        let (unfinished, folder) = (self.unfinished(), self.folder(name));
        let made = || {
            fs::DirBuilder::new().mode(0o700).create(&unfinished)?;
            write_private(&unfinished.join(RECORD), &serde_json::to_vec(record)?)?;
            fs::rename(&unfinished, &folder)?;
            sync_folder(&self.root)
        };
        made().map_err(Self::of_file(&folder))?;
        self.find(name)
    }

    fn unfinished(&self) -> PathBuf {
        self.root.join(format!("{UNFINISHED}{}", BoxId::random()))
    }

    /// Makes it a volume of this kind, if it is none yet. `mke2fs`: the program that makes a file system.
    ///
    /// # Errors
    /// [`VolumeStoreError`].
    pub fn become_kind(
        &self,
        _: &Guard,
        volume: &KeptVolume,
        kind: Kind,
        mke2fs: impl FnOnce() -> Result<PathBuf, Failure>,
    ) -> Result<(), VolumeStoreError> {
        let path = volume.folder.join(kind.file());
        match (volume.kind(), kind) {
            (Some(found), kind) if found == kind => Ok(()),
            (Some(found), _) => Err(VolumeStoreError::OtherKind { name: volume.name.clone(), found }),
            (None, Kind::Folder) if volume.record.bytes.is_some() => {
                Err(VolumeStoreError::NoLimit { name: volume.name.clone() })
            }
            (None, Kind::Folder) => {
                let made = fs::DirBuilder::new().mode(0o700).create(&path).and_then(|()| sync_folder(&volume.folder));
                made.map_err(Self::of_file(&path))
            }
            (None, Kind::Sealed) => {
                let bytes = volume.sealed_bytes();
                if !(SealedVolume::LEAST..=SealedVolume::MOST_BYTES).contains(&bytes) {
                    return Err(VolumeStoreError::SealedSize(bytes));
                }
                // What is on it its box makes, which writes over nothing.
                make::holes(&path, SealedVolume::disk_for(bytes)).map_err(VolumeStoreError::Make)
            }
            (None, Kind::Disk) => {
                let program = mke2fs().map_err(VolumeStoreError::Make)?;
                make::file_system(&program, &path, volume.record.bytes.unwrap_or(USUAL)).map_err(VolumeStoreError::Make)
            }
        }
    }

    /// Takes a volume away, with all that is in it.
    ///
    /// # Errors
    /// [`VolumeStoreError`].
    pub fn remove(&self, _: &Guard, name: &Name) -> Result<(), VolumeStoreError> {
        let (folder, unfinished) = (self.folder(name), self.unfinished());
        match fs::rename(&folder, &unfinished) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeStoreError::Unknown(name.clone()));
            }
            renamed => renamed.map_err(Self::of_file(&folder))?,
        }
        let left = |source| VolumeStoreError::Left { name: name.clone(), path: unfinished.clone(), source };
        remove_folder(&unfinished).map_err(left)
    }

    /// Holds the volumes of a box that is to run: one that writes a disk has it alone, readers share one.
    ///
    /// # Errors
    /// [`VolumeStoreError::Busy`] in particular.
    pub fn hold(&self, volumes: &[BoxVolume], kind: Kind) -> Result<Vec<File>, VolumeStoreError> {
        let hold = |volume: &BoxVolume| {
            let found = self.find(&volume.name)?;
            let path = found.folder.join(LOCK);
            let file = open_lock(&path).map_err(Self::of_file(&path))?;
            // A folder is one file system's, whoever writes to it.
            let alone = kind == Kind::Sealed || kind == Kind::Disk && !volume.read_only;
            match if alone { file.try_lock() } else { file.try_lock_shared() } {
                Ok(()) => Ok(file),
                Err(TryLockError::WouldBlock) => Err(VolumeStoreError::Busy { name: volume.name.clone() }),
                Err(TryLockError::Error(source)) => Err(VolumeStoreError::File { path, source }),
            }
        };
        volumes.iter().map(hold).collect()
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests;
