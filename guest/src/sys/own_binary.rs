//! This program's own file, as a helper is started from it: on a mount of its own that is read-only and, once the helper
//! runs, not executable either.
//!
//! A workload reaches the file of the process that starts it through `/proc/self/exe`, in `#!` lines for instance. What it
//! gets there must neither be changed (`chmod 0` on it would stop every later start) nor run again.
//! Source: mount_setattr(2), open_tree(2).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Default)]
struct mount_attr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const _: () = assert!(size_of::<mount_attr>() == 32, "MOUNT_ATTR_SIZE_VER0");

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_NOEXEC: u64 = 0x8;

/// The file on a read-only mount that stands in no folder.
///
/// # Errors
/// The kernel's: EPERM without CAP_SYS_ADMIN.
pub fn read_only(path: &Path) -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    set(&tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?;
    Ok(tree)
}

/// Nothing is started from that mount any more. What runs goes on.
///
/// # Errors
/// The kernel's.
pub fn forbid_execution(tree: impl AsFd) -> io::Result<()> {
    set(tree, MOUNT_ATTR_NOEXEC)
}

fn set(tree: impl AsFd, attributes: u64) -> io::Result<()> {
    let attr = mount_attr { attr_set: attributes, ..mount_attr::default() };
    // SAFETY: the path is a NUL-terminated constant, `attr` lives through the call, and its size is given with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
