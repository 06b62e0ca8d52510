//! The platform folder: `stage0.bin`, `kernel`, `initrd` and `platform.json`, which names each component's SHA-256.
//!
//! The digests find damage and confusion of versions; what protects the owner is the measurement.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use coffer_verifier::measure::{CpuSignature, LaunchForm};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    initrd::{NETWORK, SCRATCH},
    plan::{LaunchFile, LaunchInputs},
};

/// What `platform.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file; 2.
    pub version: u32,
    /// SHA-256 of `stage0.bin`, hex.
    pub stage0: String,
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
    /// stage0's ROM image.
    pub stage0: Vec<u8>,
    /// bzImage.
    pub kernel: Vec<u8>,
    /// cpio archive.
    pub initrd: Vec<u8>,
}

/// A platform folder whose manifest was read; its files are read where they are asked for.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

/// What a platform folder is built from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// stage0's ROM image.
    pub stage0: &'a Path,
    /// Kernel package and version, for people.
    pub kernel_package: &'a str,
    /// bzImage.
    pub kernel: &'a Path,
    /// Static init.
    pub init: &'a Path,
    /// Modules in load order.
    pub modules: &'a [PathBuf],
}

const STAGE0: &str = "stage0.bin";
const KERNEL: &str = "kernel";
const INITRD: &str = "initrd";
const MANIFEST: &str = "platform.json";
const VERSION: u32 = 2;

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
        "run `make platform`, or point COFFER_PLATFORM at a folder with stage0.bin, kernel, initrd and platform.json"
    }
}

impl Installed {
    /// Reads a folder's manifest.
    ///
    /// # Errors
    /// [`PlatformError`] names the file.
    pub fn open(folder: &Path) -> Result<Self, PlatformError> {
        let path = folder.join(MANIFEST);
        let manifest: Manifest = serde_json::from_slice(&read(&path)?)
            .map_err(|e| PlatformError::Manifest { path: path.clone(), message: e.to_string() })?;
        if manifest.version != VERSION {
            let message = format!("version {}, expected {VERSION}", manifest.version);
            return Err(PlatformError::Manifest { path, message });
        }
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// Path of the initrd, of which nothing was read.
    pub fn initrd_path(&self) -> PathBuf {
        self.folder.join(INITRD)
    }

    /// stage0's ROM image, checked.
    ///
    /// # Errors
    /// [`PlatformError`] names the file.
    pub fn stage0(&self) -> Result<Vec<u8>, PlatformError> {
        checked(&self.folder.join(STAGE0), &self.manifest.stage0)
    }

    /// The initrd by what the manifest says it hashes to, for whoever compares when it is read.
    ///
    /// # Errors
    /// [`PlatformError::Manifest`] if that is no hash.
    pub fn initrd_unread(&self) -> Result<LaunchFile<'static>, PlatformError> {
        let mut digest = [0; 32];
        hex::decode_to_slice(&self.manifest.initrd, &mut digest).map_err(|error| PlatformError::Manifest {
            path: self.folder.join(MANIFEST),
            message: format!("SHA-256 of the initrd: {error}"),
        })?;
        Ok(LaunchFile::Sha256(digest))
    }

    /// The initrd, checked.
    ///
    /// # Errors
    /// [`PlatformError`] names the file.
    fn initrd(&self) -> Result<Vec<u8>, PlatformError> {
        checked(&self.initrd_path(), &self.manifest.initrd)
    }

    /// All of it, checked.
    ///
    /// # Errors
    /// [`PlatformError`] names the file.
    pub fn load(self) -> Result<Platform, PlatformError> {
        let (stage0, initrd) = (self.stage0()?, self.initrd()?);
        let kernel = checked(&self.folder.join(KERNEL), &self.manifest.kernel)?;
        let Self { folder, manifest } = self;
        Ok(Platform { folder, manifest, stage0, kernel, initrd })
    }
}

/// Copies init out of the initrd of a platform folder, if that has the SHA-256 that the folder's manifest gave it. After an error
/// what was copied is not init.
///
/// # Errors
/// [`PlatformError`] names the file.
pub fn copy_init(initrd: &Path, expected: &str, to: &mut impl Write) -> Result<(), PlatformError> {
    let of_file = |source| PlatformError::File { path: initrd.into(), source };
    let mut file = fs::File::open(initrd).map_err(of_file)?;
    let found = hex::encode(crate::initrd::copy_init(&mut file, to).map_err(of_file)?);
    if found == expected {
        Ok(())
    } else {
        Err(PlatformError::Digest { path: initrd.into(), found, expected: expected.into() })
    }
}

/// A file of a platform folder, if it has the SHA-256 that the folder's manifest gave it.
fn checked(path: &Path, expected: &str) -> Result<Vec<u8>, PlatformError> {
    let bytes = read(path)?;
    let found = sha256(&bytes);
    if found == expected {
        Ok(bytes)
    } else {
        Err(PlatformError::Digest { path: path.into(), found, expected: expected.into() })
    }
}

impl Platform {
    /// Path of stage0's ROM image.
    pub fn stage0_path(&self) -> PathBuf {
        self.folder.join(STAGE0)
    }

    /// Path of the kernel.
    pub fn kernel_path(&self) -> PathBuf {
        self.folder.join(KERNEL)
    }

    /// Path of the initrd.
    pub fn initrd_path(&self) -> PathBuf {
        self.folder.join(INITRD)
    }

    /// What a guest of this platform is launched from.
    pub fn launch_inputs<'a>(
        &'a self,
        form: LaunchForm,
        command_line: &'a str,
        vcpus: u32,
        signature: CpuSignature,
    ) -> LaunchInputs<'a> {
        let Self { stage0, kernel, initrd, .. } = self;
        let (kernel, initrd) = (LaunchFile::Bytes(kernel), LaunchFile::Bytes(initrd));
        LaunchInputs { form, firmware: stage0, kernel, initrd, command_line, vcpus, signature }
    }

    /// Loads a folder and checks each file against the manifest.
    ///
    /// # Errors
    /// [`PlatformError`] names the file.
    pub fn load(folder: &Path) -> Result<Self, PlatformError> {
        Installed::open(folder)?.load()
    }

    /// Builds a platform folder. Modules from a folder named `scratch` or `network` are those that only a guest with
    /// a scratch disk or a network card loads.
    ///
    /// # Errors
    /// [`PlatformError`]; files already there are replaced one by one, never half written.
    pub fn build(folder: &Path, sources: &Sources<'_>) -> Result<Self, PlatformError> {
        let stage0 = read(sources.stage0)?;
        let kernel = read(sources.kernel)?;
        let init = read(sources.init)?;
        let mut loaded = Vec::new();
        for path in sources.modules {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let lies_in = |folder: &&str| path.parent().is_some_and(|parent| parent.ends_with(folder));
            let prefix = [SCRATCH, NETWORK].into_iter().find(lies_in).unwrap_or_default();
            loaded.push(crate::initrd::Module { name: format!("{prefix}{name}"), object: read(path)? });
        }
        let initrd = crate::initrd::build(&init, &loaded);
        let manifest = Manifest {
            version: VERSION,
            stage0: String::new(),
            kernel_package: sources.kernel_package.into(),
            kernel: String::new(),
            initrd: String::new(),
            init: sha256(&init),
            modules: loaded.iter().map(|module| (module.name.clone(), sha256(&module.object))).collect(),
        };
        let mut platform = Self { folder: folder.to_owned(), manifest, stage0, kernel, initrd };
        platform.save()?;
        Ok(platform)
    }

    /// Writes the folder, with the digests the components have now.
    ///
    /// # Errors
    /// [`PlatformError::File`]; files already there are replaced one by one, never half written.
    pub fn save(&mut self) -> Result<(), PlatformError> {
        let Self { folder, manifest, stage0, kernel, initrd } = self;
        fs::create_dir_all(&*folder).map_err(|source| PlatformError::File { path: folder.clone(), source })?;
        for (name, bytes, digest) in [
            (STAGE0, stage0, &mut manifest.stage0),
            (KERNEL, kernel, &mut manifest.kernel),
            (INITRD, initrd, &mut manifest.initrd),
        ] {
            write(&folder.join(name), bytes)?;
            *digest = sha256(bytes);
        }
        let text = serde_json::to_string_pretty(&manifest).expect("a manifest of strings is JSON");
        write(&folder.join(MANIFEST), text.as_bytes())
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
        // What a crash left there, or a link that leads elsewhere.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::File::create_new(&temporary)?;
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
    fn a_changed_component_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let (stage0, kernel) = (put("s", b"stage0"), put("k", b"kernel"));
        let (init, module) = (put("i", b"init"), put("m.ko", b"module"));
        let out = folder.path().join("platform");
        let sources =
            Sources { stage0: &stage0, kernel_package: "test 1", kernel: &kernel, init: &init, modules: &[module] };
        let built = Platform::build(&out, &sources).unwrap();
        assert_eq!(Platform::load(&out).unwrap().manifest, built.manifest);

        for name in [STAGE0, KERNEL, INITRD] {
            let good = fs::read(out.join(name)).unwrap();
            fs::write(out.join(name), b"other").unwrap();
            assert!(matches!(Platform::load(&out), Err(PlatformError::Digest { .. })), "{name}");
            fs::write(out.join(name), good).unwrap();
        }
        fs::remove_file(out.join("initrd")).unwrap();
        assert!(matches!(Platform::load(&out), Err(PlatformError::File { .. })));
    }

    #[test]
    fn an_initrd_that_is_planned_with_unread_is_compared_when_init_is_taken_out_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(INITRD);
        let initrd = crate::initrd::build(b"init", &[]);
        fs::write(&path, &initrd).unwrap();
        let (version, none) = (VERSION, String::new);
        let honest = Manifest {
            version,
            stage0: none(),
            kernel_package: none(),
            kernel: none(),
            initrd: sha256(&initrd),
            init: none(),
            modules: Vec::new(),
        };
        let planned = |manifest: &Manifest| {
            Installed { folder: folder.path().to_owned(), manifest: manifest.clone() }.initrd_unread()
        };
        assert_eq!(planned(&honest).unwrap(), LaunchFile::Sha256(Sha256::digest(&initrd).into()));
        for digest in [none(), "00".to_owned(), "zz".repeat(32), "0".repeat(66)] {
            let manifest = Manifest { initrd: digest, ..honest.clone() };
            assert!(matches!(planned(&manifest), Err(PlatformError::Manifest { .. })), "{}", manifest.initrd);
        }
        copy_init(&path, &honest.initrd, &mut Vec::new()).unwrap();
        fs::write(&path, [&initrd[..], &[0; 512]].concat()).unwrap();
        assert!(matches!(copy_init(&path, &honest.initrd, &mut Vec::new()), Err(PlatformError::Digest { .. })));
    }
}
