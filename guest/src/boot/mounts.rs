//! The guest's own mounts, and the step from the initrd to a root that can be pivoted away from.

use std::{ffi::CString, fs, io, path::Path};

use coffer_machine::initrd;
use rustix::mount::{MountFlags, mount, mount_move, mount_remount};

use crate::failure::{Code, Failure, OrFail};

/// The agent's own folder; the workload never sees it.
pub const OWN: &str = "/run/coffer";
/// Where secrets are written; the workload sees it read-only as `/run/secrets`.
pub const SECRETS: &str = "/run/coffer/secrets";
/// What the workload sees as its `/run/coffer`.
pub const SOCKETS: &str = "/run/coffer/sockets";

const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// `/proc`, `/sys`, `/dev`, `/run`.
///
/// # Errors
/// `internal`.
pub fn early() -> Result<(), Failure> {
    at("proc", "/proc", "proc", QUIET, "")?;
    at("sysfs", "/sys", "sysfs", QUIET, "")?;
    at("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=755")?;
    at("tmpfs", "/run", "tmpfs", QUIET, "mode=755")
}

/// Moves onto a tmpfs: pivot_root(2) refuses to leave the initial root, and the workload must leave it. The initrd
/// stays behind, read-only, and without its modules: they are loaded or not needed, and their files are memory.
///
/// # Errors
/// `internal`.
pub fn leave_initrd() -> Result<(), Failure> {
    const ROOT: &str = "/coffer-root";
    at("tmpfs", ROOT, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, "mode=755,size=1m")?;
    for name in ["proc", "sys", "dev", "run"] {
        let to = format!("{ROOT}/{name}");
        fs::create_dir(&to).or_fail(Code::Internal, &to)?;
        mount_move(format!("/{name}"), &to).or_fail(Code::Internal, &to)?;
    }
    let modules = Path::new("/").join(initrd::MODULES);
    match fs::remove_dir_all(&modules) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).or_fail(Code::Internal, "remove the modules from the initrd");
        }
        _ => {}
    }
    // What this program was started from is not changed any more, by whatever road somebody comes to it.
    mount_remount("/", MountFlags::RDONLY, "").or_fail(Code::Internal, "make the initrd read-only")?;
    std::env::set_current_dir(ROOT).or_fail(Code::Internal, "enter the new root")?;
    mount_move(".", "/").or_fail(Code::Internal, "move the new root")?;
    rustix::process::chroot(".").or_fail(Code::Internal, "change root")?;
    std::env::set_current_dir("/").or_fail(Code::Internal, "enter the new root")
}

/// The agent's folders.
///
/// # Errors
/// `internal`.
pub fn own_folders() -> Result<(), Failure> {
    fs::create_dir_all(OWN).or_fail(Code::Internal, OWN)?;
    at("secrets", SECRETS, "tmpfs", QUIET, "mode=755,size=16m")?;
    fs::create_dir_all(SOCKETS).or_fail(Code::Internal, SOCKETS)
}

/// Mounts, making the folder first.
///
/// # Errors
/// `internal`, naming the folder.
pub fn at(source: &str, target: &str, kind: &str, flags: MountFlags, data: &str) -> Result<(), Failure> {
    let what = format!("mount {target}");
    if !Path::new(target).is_dir() {
        fs::create_dir_all(target).or_fail(Code::Internal, &what)?;
    }
    let data = CString::new(data).or_fail(Code::Internal, &what)?;
    mount(source, target, kind, flags, data.as_c_str()).or_fail(Code::Internal, &what)
}
