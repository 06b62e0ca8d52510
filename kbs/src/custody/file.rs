//! The root key in a file: 64 hex digits, mode 0600. Whoever reads the folder has it; for development and small set-ups.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use coffer_rim::{file::Writer, regular};
use zeroize::Zeroizing;

use super::{Custody, CustodyError};
use crate::keys::RootKey;

/// Keeps the key in one file.
#[derive(Clone, Debug)]
pub struct FileCustody {
    path: PathBuf,
}

impl FileCustody {
    /// In this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The key as it is written, for a backup that nobody else opens.
    ///
    /// # Errors
    /// As [`Custody::open`].
    pub fn text(&self) -> Result<Zeroizing<String>, CustodyError> {
        let path = || self.path.clone();
        private_text(&self.path).map_err(|error| match error {
            // What is no text is no key in hex.
            NotPrivate::File(source) if source.kind() == io::ErrorKind::InvalidData => {
                CustodyError::Malformed { path: path() }
            }
            NotPrivate::File(source) => CustodyError::File { path: path(), source },
            NotPrivate::Mode(mode) => CustodyError::Mode { path: path(), mode },
        })
    }

    /// The key of a text that lies here.
    ///
    /// # Errors
    /// [`CustodyError::Malformed`].
    pub fn parse(&self, text: &str) -> Result<RootKey, CustodyError> {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim_end(), key.as_mut_slice())
            .map_err(|_| CustodyError::Malformed { path: self.path.clone() })?;
        Ok(RootKey::new(&key))
    }
}

#[tonic::async_trait]
impl Custody for FileCustody {
    async fn create(&self) -> Result<RootKey, CustodyError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut_slice()).map_err(|_| CustodyError::Random)?;
        let text = Zeroizing::new(format!("{}\n", Zeroizing::new(hex::encode(key.as_slice())).as_str()));
        let written = Writer::private().new_only().write(&self.path, text.as_bytes());
        written.map_err(|source| CustodyError::File { path: self.path.clone(), source })?;
        Ok(RootKey::new(&key))
    }

    async fn open(&self) -> Result<RootKey, CustodyError> {
        self.parse(&self.text()?)
    }
}

/// Why a private file is not read.
pub enum NotPrivate {
    /// The file system's answer.
    File(io::Error),
    /// Group or others may read it.
    Mode(u32),
}

/// Text of a file that only its owner may read.
pub fn private_text(path: &Path) -> Result<Zeroizing<String>, NotPrivate> {
    let mut file = regular::open(OpenOptions::new().read(true), path).map_err(NotPrivate::File)?;
    let mode = file.metadata().map_err(NotPrivate::File)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(NotPrivate::Mode(mode));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(NotPrivate::File)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::keys::RowKind;

    fn mark(key: &RootKey) -> [u8; 32] {
        key.mac(RowKind::Row, &[b"same key?"])
    }

    #[tokio::test]
    async fn gives_back_the_key_it_made_and_makes_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let custody = FileCustody::new(folder.path().join("root.key"));
        assert!(matches!(custody.open().await, Err(CustodyError::File { .. })));
        let made = custody.create().await.unwrap();
        assert_eq!(mark(&custody.open().await.unwrap()), mark(&made));
        assert!(matches!(custody.create().await, Err(CustodyError::File { .. })));
        assert_eq!(mark(&custody.open().await.unwrap()), mark(&made));
    }

    #[tokio::test]
    async fn refuses_a_key_that_others_may_read_and_what_is_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.key");
        let custody = FileCustody::new(&path);
        custody.create().await.unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(custody.open().await, Err(CustodyError::Mode { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for bad in ["", "12", &"0".repeat(63), &"g".repeat(64)] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(custody.open().await, Err(CustodyError::Malformed { .. })), "{bad}");
        }
        fs::write(&path, [0xff; 64]).unwrap();
        assert!(matches!(custody.open().await, Err(CustodyError::Malformed { .. })), "no text");
    }
}
