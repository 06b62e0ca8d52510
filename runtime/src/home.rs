//! Where everything of one installation is kept: `$COFFER_HOME`.
//!
//! One folder, mode 0700, owned by whoever runs `coffer`: `state.db`, `images/`, `boxes/<id>/`, `volumes/<name>/`, `networks/<name>/`, `trail/`, `owner/`, `sim/`.
//! Trusts: the file system's owner and modes. Never: follows a home that others may write to.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::id::BoxId;

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// Not there and not to be made, or unreadable.
    #[error("cannot use {path}", path = path.display())]
    Unusable {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else could change what we trust.
    #[error("{path} has mode {mode:04o} and owner {owner}, expected mode 0700 and owner {expected}", path = path.display())]
    Open {
        /// Which folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        owner: u32,
        /// Who we are.
        expected: u32,
    },
}

impl HomeError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unusable { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free space on that file system, or choose another with --home".into())
            }
            Self::Unusable { .. } => Some("choose a folder you may write to with --home or COFFER_HOME".into()),
            Self::Open { path, .. } => {
                Some(format!("chmod 700 {}, or choose another folder with --home", path.display()))
            }
        }
    }
}

/// One installation's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// Opens a home and makes what is missing.
    ///
    /// # Errors
    /// [`HomeError`] if it cannot be made, or if others may write to it.
    pub fn open(root: &Path) -> Result<Self, HomeError> {
        let unusable = |source| HomeError::Unusable { path: root.to_path_buf(), source };
        let root = std::path::absolute(root).map_err(unusable)?;
        let home = Self { root };
        private_folder(&home.root)?;
        for folder in [home.images(), home.boxes(), home.owner(), home.simulator()] {
            private_folder(&folder)?;
        }
        Ok(home)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Image store.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Parent of all boxes.
    pub fn boxes(&self) -> PathBuf {
        self.root.join("boxes")
    }

    /// One box.
    pub fn box_folder(&self, id: &BoxId) -> PathBuf {
        self.boxes().join(id.as_str())
    }

    /// Parent of all volumes; made with the first of them.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Parent of the sockets between the boxes of a network; made with the first network.
    pub fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }

    /// The local owner's key.
    pub fn owner(&self) -> PathBuf {
        self.root.join("owner")
    }

    /// The local simulator installation.
    pub fn simulator(&self) -> PathBuf {
        self.root.join("sim")
    }

    /// The certificates of this host's chip, as guests hand them on.
    pub fn host_certificates(&self) -> PathBuf {
        host_certificates(&self.root)
    }

    /// What was done here; made with its first line.
    pub fn trail(&self) -> PathBuf {
        self.root.join("trail")
    }

    /// Box database.
    pub fn database(&self) -> PathBuf {
        self.root.join("state.db")
    }
}

/// Where a home keeps the certificates of its host's chip, opened or not.
pub fn host_certificates(home: &Path) -> PathBuf {
    home.join("host").join("certificates.bin")
}

/// Makes a folder with mode 0700, or checks that nobody else may change the one there.
///
/// # Errors
/// [`HomeError`].
pub fn private_folder(path: &Path) -> Result<(), HomeError> {
    let unusable = |source| HomeError::Unusable { path: path.to_path_buf(), source };
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        }
        Err(error) => return Err(unusable(error)),
    }
    let found = fs::metadata(path).map_err(unusable)?;
    let (mode, owner) = (found.permissions().mode() & 0o7777, found.uid());
    let expected = rustix::process::geteuid().as_raw();
    if !found.is_dir() {
        return Err(unusable(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    if owner != expected || mode & 0o022 != 0 {
        return Err(HomeError::Open { path: path.to_path_buf(), mode, owner, expected });
    }
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(unusable)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_private_folders_and_tightens_readable_ones() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deep/home");
        let home = Home::open(&root).unwrap();
        for folder in [root.clone(), home.images(), home.boxes(), home.owner(), home.simulator()] {
            assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "{folder:?}");
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        Home::open(&root).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn refuses_a_home_others_may_write_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Home::open(dir.path()).unwrap_err();
        assert!(matches!(error, HomeError::Open { mode: 0o777, .. }), "{error}");
        assert!(error.hint().unwrap().starts_with("chmod 700"));
    }

    #[test]
    fn refuses_a_file_in_place_of_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("home");
        fs::write(&file, b"").unwrap();
        assert!(matches!(Home::open(&file), Err(HomeError::Unusable { .. })));
    }
}
