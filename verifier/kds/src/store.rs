//! The folder: one file for each item, under its issuer. A file is what its name says only after [`crate::check`] said so.
//!
//! `ISSUER/vcek/Milan/cert_chain.pem`, `crl.der`, `crl.number` (the highest number seen), `chips/HWID/TCB-KEY.der`; a VLEK, which
//! names no chip, under `providers/TCB-KEY.der`. ISSUER is the SHA-256 of the root's public key, KEY that of the leaf's, TCB the
//! field. Any file may go at any time, but with `crl.number` goes the memory of what was seen. Several programs may have one folder: who
//! writes a list holds the lock beside it (flock of `.crl.lock`), and looks at that number once more.
//!
//! Never: a file in place; more leaves than it may hold; a longer file than an item has. Opens nothing there but regular files: a
//! pipe or device in a file's place is no file, and is not waited for.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use coffer_rim::file::Writer;
use coffer_rim::regular;
use coffer_verifier::abi::SpkiDigest;

use crate::address::Item;
use crate::check::{Entry, Unfit};

#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    max_leaves: usize,
    /// How many are there; held while one is added.
    leaves: Mutex<usize>,
}

/// A file that may be an item.
pub(crate) struct Found {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub written: SystemTime,
}

/// Why an item was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The file system.
    #[error(transparent)]
    File(#[from] io::Error),
    /// A newer list was written meanwhile, by another program.
    #[error(transparent)]
    Older(Unfit),
}

/// Beside a list.
const LOCK: &str = ".crl.lock";
/// How long another program may hold the lock of a list.
const LOCKED: Duration = Duration::from_secs(5);

/// Files of one chip, one for each TCB it ever reported; more are not looked at.
const MAX_OF_CHIP: usize = 64;

impl Store {
    pub(crate) fn open(folder: &Path, max_leaves: usize) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let store = Self { folder: folder.to_owned(), max_leaves, leaves: Mutex::new(0) };
        *store.leaves.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = leaves_in(folder).len();
        Ok(store)
    }

    fn place(&self, root: &SpkiDigest, item: &Item) -> PathBuf {
        self.folder.join(root.to_string()).join(item.kind()).join(item.product().name())
    }

    /// Folder of a leaf and how its file's name begins.
    fn leaf_place(&self, root: &SpkiDigest, item: &Item) -> Option<(PathBuf, String)> {
        let place = self.place(root, item);
        match item {
            Item::Vcek { product, chip, tcb } => {
                Some((place.join("chips").join(Item::hwid(*product, chip)), format!("{:016x}-", tcb.to_raw())))
            }
            Item::Vlek { tcb, .. } => Some((place.join("providers"), format!("{:016x}-", tcb.to_raw()))),
            Item::Chain { .. } | Item::Crl { .. } => None,
        }
    }

    /// True if any leaf of this item's chip is there.
    pub(crate) fn knows_chip(&self, roots: &[SpkiDigest], item: &Item) -> bool {
        roots.iter().any(|root| {
            let Some((folder, _)) = self.leaf_place(root, item) else { return false };
            fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some())
        })
    }

    /// What is there under the item's name.
    pub(crate) fn read(&self, roots: &[SpkiDigest], item: &Item) -> Vec<Found> {
        roots.iter().flat_map(|root| self.paths(root, item)).filter_map(|path| read(path, item.limit())).collect()
    }

    fn paths(&self, root: &SpkiDigest, item: &Item) -> Vec<PathBuf> {
        let place = self.place(root, item);
        match item {
            Item::Chain { .. } => vec![place.join("cert_chain.pem")],
            Item::Crl { .. } => vec![place.join("crl.der")],
            Item::Vcek { .. } | Item::Vlek { .. } => {
                let Some((folder, begin)) = self.leaf_place(root, item) else { return Vec::new() };
                let files = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_OF_CHIP);
                let named = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&begin);
                files.filter(named).map(|entry| entry.path()).collect()
            }
        }
    }

    /// Highest number of this list that was ever kept.
    pub(crate) fn floor(&self, root: &SpkiDigest, item: &Item) -> u64 {
        let path = self.place(root, item).join("crl.number");
        let found = read(path, 32).and_then(|found| String::from_utf8(found.bytes).ok());
        found.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Keeps it. A re-issued certificate of the same key and TCB takes the place of the old one.
    ///
    /// # Errors
    /// [`WriteError`]; a newer list stays.
    pub(crate) fn write(&self, item: &Item, entry: &Entry) -> Result<(), WriteError> {
        let place = self.place(&entry.root, item);
        let (folder, name) = match (self.leaf_place(&entry.root, item), item) {
            (Some((folder, begin)), _) => (folder, format!("{begin}{}.der", entry.spki)),
            (None, Item::Crl { .. }) => (place, "crl.der".to_owned()),
            (None, _) => (place, "cert_chain.pem".to_owned()),
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let path = folder.join(name);
        // Held until the list is written too.
        let mut lock = None;
        if let Item::Crl { .. } = item {
            lock = Some(locked(&folder)?);
            entry.at_least(self.floor(&entry.root, item)).map_err(WriteError::Older)?;
            Writer::private().write(&folder.join("crl.number"), entry.number.to_string().as_bytes())?;
        }
        if !item.is_leaf() || path.exists() {
            Writer::private().write(&path, &entry.bytes)?;
            drop(lock);
            return Ok(());
        }
        let mut leaves = self.leaves.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *leaves >= self.max_leaves {
            *leaves = self.make_room();
        }
        Writer::private().write(&path, &entry.bytes)?;
        *leaves += 1;
        Ok(())
    }

    /// A leaf was of use: it is not among the oldest any more.
    pub(crate) fn touch(&self, item: &Item, entry: &Entry) {
        let Some((folder, begin)) = self.leaf_place(&entry.root, item) else { return };
        let path = folder.join(format!("{begin}{}.der", entry.spki));
        // What is gone, or cannot be touched, is got again at worst.
        let _ = opened(&path).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Removes the eighth whose last use is longest ago, by the times of the files; gives how many are left.
    fn make_room(&self) -> usize {
        let mut all: Vec<_> = leaves_in(&self.folder)
            .into_iter()
            .map(|path| (fs::metadata(&path).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH), path))
            .collect();
        all.sort();
        let keep = self.max_leaves - (self.max_leaves / 8).max(1).min(self.max_leaves);
        let go = all.len().saturating_sub(keep);
        for (_, path) in &all[..go] {
            let _ = fs::remove_file(path);
            // Of a chip without files nothing is known.
            let _ = path.parent().map(fs::remove_dir);
        }
        all.len() - go
    }

    /// Visits every file under these roots that may be an item.
    pub(crate) fn each(&self, roots: &[SpkiDigest], visit: &mut dyn FnMut(Found)) {
        for root in roots {
            walk(&self.folder.join(root.to_string()), DEPTH, &mut |path| {
                let name = path.extension().is_some_and(|end| end == "der" || end == "pem");
                if name && let Some(one) = read(path.to_owned(), LONGEST) {
                    visit(one);
                }
            });
        }
    }
}

/// The lock of a folder's list, which goes with what is given. A file for it: some file systems of networks lock no folder.
fn locked(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(folder.join(LOCK))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("{LOCK} is no regular file")));
    }
    let until = Instant::now() + LOCKED;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::WouldBlock) => {
                let words = format!("another program holds the lock of {}", folder.display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, words));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Folders below the first.
const DEPTH: usize = 6;
/// Of any item.
pub(crate) const LONGEST: usize = 96 << 10;
/// Files looked at below one folder.
const MAX_FILES: usize = 65_536;

fn leaves_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(folder, DEPTH, &mut |path| {
        let in_one = |name: &str| path.ancestors().skip(1).any(|above| above.ends_with(name));
        if path.extension().is_some_and(|end| end == "der") && (in_one("chips") || in_one("providers")) {
            found.push(path.to_owned());
        }
    });
    found
}

/// Visits regular files, hidden ones and links apart.
pub(crate) fn walk(folder: &Path, depth: usize, visit: &mut dyn FnMut(&Path)) {
    let mut left = MAX_FILES;
    walk_within(folder, depth, &mut left, visit);
}

fn walk_within(folder: &Path, depth: usize, left: &mut usize, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().take(*left).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Some(less) = left.checked_sub(1) else { return };
        *left = less;
        let Ok(kind) = entry.file_type() else { continue };
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() && depth > 0 {
            walk_within(&entry.path(), depth - 1, left, visit);
        } else if kind.is_file() {
            visit(&entry.path());
        }
    }
}

/// A whole regular file of a folder, no link; none if it is longer than `limit`.
pub(crate) fn read(path: PathBuf, limit: usize) -> Option<Found> {
    let file = opened(&path).ok()?;
    whole(file, path, limit)
}

/// The same of one that a person named, who may mean a link.
pub(crate) fn read_named(path: PathBuf, limit: usize) -> Option<Found> {
    let file = regular::open(OpenOptions::new().read(true), &path).ok()?;
    whole(file, path, limit)
}

/// Looked at before it is opened, for a device may act on being opened; and after, for it may have changed meanwhile.
fn opened(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("is no regular file"));
    }
    regular::open(OpenOptions::new().read(true), path)
}

fn whole(file: File, path: PathBuf, limit: usize) -> Option<Found> {
    let written = file.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= limit).then_some(Found { path, bytes, written })
}

#[cfg(test)]
mod tests {
    use coffer_verifier::abi::{ProductLine, SigningKey};
    use coffer_verifier::{Endorsements, UnixTime};

    use super::*;

    const LIST: Item = Item::Crl { product: ProductLine::Milan, key: SigningKey::Vcek };

    fn list(number: u64, bytes: &[u8]) -> Entry {
        let (root, spki) = (SpkiDigest::new([1; 32]), SpkiDigest::new([1; 32]));
        let (from, to) = (UnixTime::from_secs(0), UnixTime::from_secs(1));
        Entry { bag: Endorsements::new(), bytes: bytes.to_vec(), root, spki, from, to, number }
    }

    /// Two programs that have one folder looked at the number before either wrote.
    #[test]
    fn of_two_programs_the_one_with_the_older_list_does_not_write_over_the_newer() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| Store::open(dir.path(), 8).unwrap());
        one.write(&LIST, &list(5, b"five")).unwrap();
        let older = other.write(&LIST, &list(4, b"four")).unwrap_err();
        assert!(matches!(older, WriteError::Older(Unfit::Older { found: 4, least: 5 })), "{older:?}");
        let root = list(5, b"").root;
        assert_eq!(other.floor(&root, &LIST), 5);
        assert_eq!(other.read(&[root], &LIST)[0].bytes, b"five");
        other.write(&LIST, &list(6, b"six")).unwrap();
        assert_eq!((one.floor(&root, &LIST), &*one.read(&[root], &LIST)[0].bytes), (6, &b"six"[..]));
    }

    #[test]
    fn a_list_is_written_by_who_holds_its_lock_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 8).unwrap();
        store.write(&LIST, &list(5, b"five")).unwrap();
        let root = list(5, b"").root;
        let held = locked(&store.place(&root, &LIST)).unwrap();
        let until = Instant::now() + Duration::from_millis(200);
        std::thread::scope(|scope| {
            let writes = scope.spawn(|| store.write(&LIST, &list(7, b"seven")));
            while Instant::now() < until {
                assert_eq!(store.floor(&root, &LIST), 5);
                std::thread::sleep(Duration::from_millis(20));
            }
            drop(held);
            writes.join().unwrap().unwrap();
        });
        assert_eq!(store.floor(&root, &LIST), 7);
    }

    #[test]
    fn a_lock_goes_through_no_link_and_a_pipe_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 8).unwrap();
        let entry = list(5, b"five");
        let place = store.place(&entry.root, &LIST);
        fs::create_dir_all(&place).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, place.join(LOCK)).unwrap();
        assert!(matches!(store.write(&LIST, &entry), Err(WriteError::File(_))));
        assert!(!elsewhere.exists());
        fs::remove_file(place.join(LOCK)).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(place.join(LOCK)).status().unwrap().success());
        assert!(matches!(store.write(&LIST, &entry), Err(WriteError::File(_))));
        assert_eq!(store.floor(&entry.root, &LIST), 0, "what is not locked is not written");
    }
}
