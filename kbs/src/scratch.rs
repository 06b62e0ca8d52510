//! Private folders in which something is made before it has its name. Gone when dropped; and what a killed process left of one, which
//! may hold a root key, goes when the next one is made at the same place.
//!
//! Trusts: that nobody else may write where it is made. Never: removes one that somebody still works in.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;
use tempfile::TempDir;

/// Before the name of a folder in which a restore is prepared, in the state folder.
pub(crate) const RESTORING: &str = ".coffer-kbs-restore-";

/// A folder, locked for as long as it is worked in.
pub(crate) struct Scratch {
    folder: TempDir,
    _held: File,
}

impl Scratch {
    /// A new one in `place`, its name behind `prefix`.
    ///
    /// # Errors
    /// The file system's.
    pub fn make(prefix: &str, place: &Path) -> io::Result<Self> {
        clear(prefix, place);
        // Whoever clears at this moment may take it for one that was left.
        for _ in 0..TRIES {
            let private = fs::Permissions::from_mode(0o700);
            let folder = tempfile::Builder::new().prefix(prefix).permissions(private).tempdir_in(place)?;
            if let Ok(Some(held)) = lock(folder.path()) {
                return Ok(Self { folder, _held: held });
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// It has another name now, and stays.
    pub fn keep(self) {
        let _ = self.folder.keep();
    }
}

/// Removes those that nobody works in any more; what cannot be removed stays.
pub(crate) fn clear(prefix: &str, place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        if let Ok(Some(_held)) = lock(&entry.path()) {
            let folder = entry.path();
            if let Err(error) = fs::remove_dir_all(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "a process that was killed left it, and it cannot be removed: do it");
            }
        }
    }
}

/// The folder of that name, if nobody else holds it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed())
        .open(path)?;
    if folder.try_lock().is_err() {
        return Ok(None);
    }
    let (held, named) = (folder.metadata()?, fs::symlink_metadata(path)?);
    Ok(((held.dev(), held.ino()) == (named.dev(), named.ino())).then_some(folder))
}

const TRIES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_goes_and_what_is_worked_in_stays() {
        let place = tempfile::tempdir().unwrap();
        let left = place.path().join(".made-left");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("root.key"), "secret").unwrap();
        let elsewhere = place.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, place.path().join(".made-link")).unwrap();
        fs::write(place.path().join(".made-file"), "").unwrap();
        let first = Scratch::make(".made-", place.path()).unwrap();
        assert!(!left.exists(), "a root key stayed behind");
        fs::write(first.path().join("root.key"), "secret").unwrap();
        let second = Scratch::make(".made-", place.path()).unwrap();
        assert!(first.path().join("root.key").exists() && second.path().exists());
        assert!(
            elsewhere.exists() && place.path().join(".made-link").exists() && place.path().join(".made-file").exists()
        );
        let (gone, kept) = (first.path().to_owned(), second.path().to_owned());
        drop(first);
        second.keep();
        assert!(!gone.exists() && kept.exists());
    }
}
