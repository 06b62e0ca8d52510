//! The programs a box needs, where they are, and whether this machine's KVM can run a guest.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use coffer_rim::{Class, Failure};

/// Where to look. Filled from the environment in `main`, so that nothing below reads it.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// `COFFER_QEMU`.
    pub qemu: Option<PathBuf>,
    /// `COFFER_VHOST_VSOCK`.
    pub vhost_vsock: Option<PathBuf>,
    /// `COFFER_PLATFORM`.
    pub platform: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// Folder of our own executable.
    pub exe_folder: Option<PathBuf>,
    /// `HOME`.
    pub user_home: Option<PathBuf>,
}

/// Programs found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// `vhost-device-vsock`.
    pub vhost_vsock: PathBuf,
}

const QEMU: &str = "qemu-system-x86_64";
const VHOST_VSOCK: &str = "vhost-device-vsock";

impl Search {
    /// Finds both programs.
    ///
    /// # Errors
    /// Class `platform`, naming the first that is missing and how to get it.
    pub fn tools(&self) -> Result<Tools, Failure> {
        Ok(Tools { qemu: self.find_qemu()?, vhost_vsock: self.find_vhost_vsock()? })
    }

    /// Finds QEMU.
    ///
    /// # Errors
    /// Class `platform`.
    pub fn find_qemu(&self) -> Result<PathBuf, Failure> {
        let found = self.explicit(self.qemu.as_ref(), "COFFER_QEMU")?;
        found.or_else(|| self.in_path(QEMU)).ok_or_else(|| {
            Failure::new(Class::Platform, format!("{QEMU} was not found"))
                .hint("install it (Debian: apt-get install qemu-system-x86), or name it in COFFER_QEMU")
        })
    }

    /// Finds the vsock device.
    ///
    /// # Errors
    /// Class `platform`.
    pub fn find_vhost_vsock(&self) -> Result<PathBuf, Failure> {
        if let Some(found) = self.explicit(self.vhost_vsock.as_ref(), "COFFER_VHOST_VSOCK")? {
            return Ok(found);
        }
        let beside = self.exe_folder.as_ref().map(|folder| folder.join(VHOST_VSOCK));
        let cached = self.user_home.as_ref().map(|home| home.join(".cache/coffer/tools/bin").join(VHOST_VSOCK));
        let found = [beside, cached].into_iter().flatten().find(|path| path.is_file());
        found.or_else(|| self.in_path(VHOST_VSOCK)).ok_or_else(|| {
            Failure::new(Class::Platform, format!("{VHOST_VSOCK} was not found"))
                .hint("run `make setup`, or name it in COFFER_VHOST_VSOCK")
        })
    }

    /// The folder of platform files: the one asked for, `COFFER_PLATFORM`, or `platform` beside our executable.
    ///
    /// # Errors
    /// Class `config` if none is there.
    pub fn platform_folder(&self, asked: Option<&Path>) -> Result<PathBuf, Failure> {
        let beside = self.exe_folder.as_ref().map(|folder| folder.join("platform"));
        let folder = asked.map(Path::to_path_buf).or_else(|| self.platform.clone()).or(beside).unwrap_or_default();
        if folder.join("platform.json").is_file() {
            std::path::absolute(&folder).map_err(Failure::from)
        } else if asked.and_then(Path::to_str).is_some_and(is_docker_platform) {
            let message = "--platform names the folder a guest boots from, not the platform of an image";
            Err(Failure::new(Class::Usage, message).hint(
                "leave it out: guests are linux/amd64, and that is what is taken of an image for several platforms",
            ))
        } else {
            Err(Failure::new(Class::Config, format!("no platform files in {}", folder.display()))
                .hint("run `make platform`, or name a folder with kernel, initrd and platform.json in --platform or COFFER_PLATFORM"))
        }
    }

    #[allow(clippy::unused_self, reason = "belongs to the search")]
    fn explicit(&self, path: Option<&PathBuf>, variable: &str) -> Result<Option<PathBuf>, Failure> {
        match path {
            Some(path) if !path.is_file() => {
                let message = format!("{variable} names {}, which is no file", path.display());
                Err(Failure::new(Class::Platform, message).hint(format!("unset {variable} or name the program")))
            }
            Some(path) => Ok(Some(path.clone())),
            None => Ok(None),
        }
    }

    fn in_path(&self, name: &str) -> Option<PathBuf> {
        let path = self.path.as_ref()?;
        std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file())
    }
}

/// Whether somebody means what Docker's `--platform` means: `linux/amd64`, `linux/arm64/v8`.
fn is_docker_platform(text: &str) -> bool {
    let mut words = text.split('/');
    let (os, architecture) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let known = ["amd64", "x86_64", "arm64", "aarch64", "arm", "386", "ppc64le", "s390x", "riscv64"];
    matches!(os, "linux" | "windows" | "darwin" | "freebsd") && known.contains(&architecture)
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// The accelerator to use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceleration {
    /// Which.
    pub accelerator: Accelerator,
    /// One sentence for `coffer doctor`.
    pub why: String,
}

/// Decides between KVM and software emulation; in doubt software, which always works.
///
/// A `/dev/kvm` alone says little: software-virtualised KVM runs no Linux. The processor must show VMX or SVM, which
/// such machines hide.
pub fn acceleration() -> Acceleration {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").map(drop);
    judge(&flags, device.map_err(|error| error.kind()))
}

fn judge(cpuinfo: &str, device: Result<(), std::io::ErrorKind>) -> Acceleration {
    let tcg = |why: &str| Acceleration { accelerator: Accelerator::Tcg, why: why.into() };
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let virtualises = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    match device {
        Err(std::io::ErrorKind::NotFound) => tcg("there is no /dev/kvm: guests run in software emulation"),
        Err(std::io::ErrorKind::PermissionDenied) => {
            tcg("/dev/kvm may not be opened by this user: guests run in software emulation; join the kvm group")
        }
        Err(_) => tcg("/dev/kvm does not open: guests run in software emulation"),
        Ok(()) if virtualises => Acceleration {
            accelerator: Accelerator::Kvm,
            why: "/dev/kvm is usable: guests run on the processor".into(),
        },
        Ok(()) => tcg(
            "/dev/kvm is there, but the processor shows neither vmx nor svm: software-virtualised KVM runs no Linux guest, so guests run in software emulation",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn dockers_platform_is_told_from_a_folder() {
        let refused = |asked: &str| Search::default().platform_folder(Some(Path::new(asked))).unwrap_err();
        for word in ["linux/amd64", "linux/arm64/v8", "windows/amd64"] {
            assert_eq!(refused(word).class, Class::Usage, "{word}");
            assert!(refused(word).hint.unwrap().contains("linux/amd64"), "{word}");
        }
        for folder in ["linux/platform", "/srv/amd64", "target/release/platform", ""] {
            assert_eq!(refused(folder).class, Class::Config, "{folder}");
            assert!(!refused(folder).hint.unwrap().contains("amd64"), "{folder}");
        }
    }

    #[test]
    fn kvm_is_used_only_where_the_processor_virtualises() {
        assert_eq!(judge("flags\t: fpu svm sse", Ok(())).accelerator, Accelerator::Kvm);
        assert_eq!(judge("flags\t\t: vmx", Ok(())).accelerator, Accelerator::Kvm);
        assert_eq!(judge("flags\t: fpu sse hypervisor", Ok(())).accelerator, Accelerator::Tcg);
        for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::Other] {
            assert_eq!(judge("flags\t: svm", Err(kind)).accelerator, Accelerator::Tcg);
        }
    }

    #[test]
    fn what_is_missing_is_named_with_a_way_to_get_it() {
        let nothing = Search::default();
        let error = nothing.tools().unwrap_err();
        assert_eq!((error.class, error.message.as_str()), (Class::Platform, "qemu-system-x86_64 was not found"));
        assert!(error.hint.unwrap().contains("apt-get install"));
        assert!(nothing.find_vhost_vsock().unwrap_err().hint.unwrap().contains("make setup"));
        let error = nothing.platform_folder(Some(Path::new("/nowhere"))).unwrap_err();
        assert_eq!(error.message, "no platform files in /nowhere");
    }

    #[test]
    fn programs_beside_ours_come_before_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let (exe, path) = (dir.path().join("exe"), dir.path().join("path"));
        for folder in [&exe, &path] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join(VHOST_VSOCK), b"").unwrap();
        }
        let search = Search { exe_folder: Some(exe.clone()), path: Some(path.clone().into()), ..Search::default() };
        assert_eq!(search.find_vhost_vsock().unwrap(), exe.join(VHOST_VSOCK));
        let wrong = Search { vhost_vsock: Some("/nowhere".into()), ..search };
        assert!(wrong.find_vhost_vsock().unwrap_err().message.contains("COFFER_VHOST_VSOCK"));
    }
}
