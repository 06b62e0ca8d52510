//! The platform folder: `kernel`, `initrd` and `platform.json`, which names each component's SHA-256.
//!
//! The digests find damage and confusion of versions; what protects the owner is the measurement.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What `platform.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file; 1.
    pub version: u32,
    /// Kernel package and version, for people.
    pub kernel_package: String,
    /// SHA-256 of `kernel`, hex.
    pub kernel: String,
    /// SHA-256 of `initrd`, hex.
    pub initrd: String,
    /// SHA-256 of the static init inside the initrd, hex.
    pub init: String,
    /// Modules in load order with their SHA-256.
    pub modules: Vec<(String, String)>,
}

/// A platform folder whose files are what its manifest says.
#[derive(Clone, Debug)]
pub struct Platform {
    /// The folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// bzImage.
    pub kernel: Vec<u8>,
    /// cpio archive.
    pub initrd: Vec<u8>,
}

/// Why a platform folder is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// A file cannot be read or written.
    #[error("platform file {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `platform.json` is not what it should be.
    #[error("platform manifest {path}: {message}")]
    Manifest {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A file is not the one the manifest names.
    #[error("platform file {path} has SHA-256 {found}, its manifest says {expected}")]
    Digest {
        /// Which.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        expected: String,
    },
}

impl PlatformError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "run `make platform`, or point COFFER_PLATFORM at a folder with kernel, initrd and platform.json"
    }
}

impl Platform {
    /// Path of the kernel.
    pub fn kernel_path(&self) -> PathBuf {
        self.folder.join("kernel")
    }

    /// Path of the initrd.
    pub fn initrd_path(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    /// Loads a folder and checks each file against the manifest.
    ///
    /// # Errors
    /// [`PlatformError`] names the file.
    pub fn load(folder: &Path) -> Result<Self, PlatformError> {
        let path = folder.join("platform.json");
        let manifest: Manifest = serde_json::from_slice(&read(&path)?)
            .map_err(|e| PlatformError::Manifest { path: path.clone(), message: e.to_string() })?;
        if manifest.version != 1 {
            let message = format!("version {}, expected 1", manifest.version);
            return Err(PlatformError::Manifest { path, message });
        }
        let checked = |name: &str, expected: &str| {
            let path = folder.join(name);
            let bytes = read(&path)?;
            let found = sha256(&bytes);
            if found == expected {
                Ok(bytes)
            } else {
                Err(PlatformError::Digest { path, found, expected: expected.into() })
            }
        };
        let kernel = checked("kernel", &manifest.kernel)?;
        let initrd = checked("initrd", &manifest.initrd)?;
        Ok(Self { folder: folder.to_owned(), manifest, kernel, initrd })
    }

    /// Builds a platform folder from a kernel, a static init and modules named in load order.
    ///
    /// # Errors
    /// [`PlatformError`]; files already there are replaced one by one, never half written.
    pub fn build(
        folder: &Path,
        kernel_package: &str,
        kernel: &Path,
        init: &Path,
        modules: &[PathBuf],
    ) -> Result<Self, PlatformError> {
        let kernel = read(kernel)?;
        let init = read(init)?;
        let mut loaded = Vec::new();
        for path in modules {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            loaded.push(crate::initrd::Module { name, object: read(path)? });
        }
        let initrd = crate::initrd::build(&init, &loaded);
        let manifest = Manifest {
            version: 1,
            kernel_package: kernel_package.into(),
            kernel: sha256(&kernel),
            initrd: sha256(&initrd),
            init: sha256(&init),
            modules: loaded.iter().map(|module| (module.name.clone(), sha256(&module.object))).collect(),
        };
        fs::create_dir_all(folder).map_err(|source| PlatformError::File { path: folder.into(), source })?;
        write(&folder.join("kernel"), &kernel)?;
        write(&folder.join("initrd"), &initrd)?;
        let text = serde_json::to_string_pretty(&manifest).expect("a manifest of strings is JSON");
        write(&folder.join("platform.json"), text.as_bytes())?;
        Ok(Self { folder: folder.to_owned(), manifest, kernel, initrd })
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn read(path: &Path) -> Result<Vec<u8>, PlatformError> {
    fs::read(path).map_err(|source| PlatformError::File { path: path.into(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PlatformError> {
    let temporary = path.with_extension("new");
    let attempt = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    attempt().map_err(|source| PlatformError::File { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_initrd_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let (kernel, init, module) = (put("k", b"kernel"), put("i", b"init"), put("m.ko", b"module"));
        let out = folder.path().join("platform");
        let built = Platform::build(&out, "test 1", &kernel, &init, &[module]).unwrap();
        assert_eq!(Platform::load(&out).unwrap().manifest, built.manifest);

        fs::write(out.join("initrd"), b"other").unwrap();
        assert!(matches!(Platform::load(&out), Err(PlatformError::Digest { .. })));
        fs::remove_file(out.join("initrd")).unwrap();
        assert!(matches!(Platform::load(&out), Err(PlatformError::File { .. })));
    }
}
