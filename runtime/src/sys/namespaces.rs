//! What a box in namespaces is made of: processes of one thread that split, namespaces, and mounts that stand in no folder.
//!
//! Source: namespaces(7), user_namespaces(7), mount_setattr(2), Linux include/uapi/linux/loop.h.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, setrlimit, waitpid};
use rustix::thread::{
    CapabilitiesSecureBits, Uid, UnshareFlags, set_capabilities_secure_bits, set_thread_res_uid, unshare_unsafe,
};

/// Which side of a fork this is.
pub enum Forked {
    /// The parent, with its child.
    Parent(Pid),
    /// The child.
    Child,
}

/// Forks a process that has one thread.
///
/// # Errors
/// The kernel's, or EINVAL where there are more threads.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the process has one thread (checked above), so the child finds every lock free.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        pid => Pid::from_raw(pid).filter(|_| pid > 0).map(Forked::Parent).ok_or_else(io::Error::last_os_error),
    }
}

/// Leaves namespaces of this process.
///
/// # Errors
/// The kernel's: EPERM without CAP_SYS_ADMIN.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: no caller passes FILES, so descriptors stay shared with whoever shares them.
    unsafe { unshare_unsafe(flags.difference(UnshareFlags::FILES)) }.map_err(io::Error::from)
}

/// Marks every descriptor but the standard ones to be closed by exec, whoever opened it.
///
/// # Errors
/// The kernel's.
pub fn close_on_exec() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: takes numbers only; nothing is closed before exec.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Users that are nobody here, and a network that is theirs.
#[derive(Debug)]
pub struct Spaces {
    /// The user namespace.
    pub users: OwnedFd,
    /// A network namespace that belongs to it, with a loopback that is down.
    pub network: OwnedFd,
}

/// A user namespace in which `count` ids from 0 on are the ids from `first` on here, and a network namespace of its own. Nobody is in
/// them, and no more than `processes` processes and threads ever are at once, whatever ids they take there.
///
/// # Errors
/// The kernel's: EPERM where these ids are not ours to give.
pub fn spaces(first: u32, count: u32, processes: u64) -> io::Result<Spaces> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let child = match fork()? {
        Forked::Child => {
            drop(ours);
            let made = own_spaces(first, processes).and_then(|()| io::Write::write_all(&mut &theirs, &[1]));
            if made.is_ok() {
                // Until the parent has opened it: a namespace that nobody is in or has open is gone.
                let _ = io::Read::read(&mut &theirs, &mut [0]);
            }
            // SAFETY: ends this copy of the process at once; nothing it shares with the parent is flushed or torn down.
            unsafe { libc::_exit(0) }
        }
        Forked::Parent(child) => child,
    };
    drop(theirs);
    let made = io::Read::read_exact(&mut &ours, &mut [0]);
    let opened = made.and_then(|()| {
        let at = |name: &str| format!("/proc/{}/{name}", child.as_raw_nonzero());
        let map = format!("0 {first} {count}\n");
        std::fs::write(at("uid_map"), &map)?;
        std::fs::write(at("gid_map"), &map)?;
        let open = |name| File::open(at(name)).map(OwnedFd::from);
        Ok(Spaces { users: open("ns/user")?, network: open("ns/net")? })
    });
    drop(ours);
    waitpid(Some(child), WaitOptions::empty())?;
    opened
}

/// Enters a user namespace that belongs to `owner`, and a network namespace in it. The kernel counts all that is in it, and in those inside it, as the owner's, and
/// bounds that by the limit its maker had: but not where the maker is root of the host.
fn own_spaces(owner: u32, processes: u64) -> io::Result<()> {
    setrlimit(Resource::Nproc, Rlimit { current: Some(processes), maximum: Some(processes) })?;
    // Keeps every capability: a host may let nobody else make one.
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    let owner = Uid::from_raw(owner);
    set_thread_res_uid(owner, owner, owner)?;
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)
}

/// Whether the kernel has a kind of file system, or a module of it that it may load.
pub fn knows(kind: &str) -> bool {
    fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).is_ok()
}

/// An EROFS image as a mount that stands in no folder, read-only; files belong to the ids of `users` that the image names.
///
/// # Errors
/// The kernel's: EPERM without CAP_SYS_ADMIN on this machine itself.
pub fn mount_image(image: &File, users: &OwnedFd) -> io::Result<OwnedFd> {
    let (device, path) = loop_device(image)?;
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", path.as_str())?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    // Not nosuid: what programs of an image may become is a matter of their own user namespace.
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mounted = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // The mount holds the device from here on.
    drop(device);
    map_ids(&mounted, users)?;
    Ok(mounted)
}

/// A folder of the host's as a mount that stands in no folder; files belong to the ids of `users` that they belong to here, and
/// nothing in it is a device or changes who one is.
///
/// # Errors
/// The kernel's: EINVAL where the file system cannot map ids.
pub fn mount_folder(folder: &Path, writes: bool, users: &OwnedFd) -> io::Result<OwnedFd> {
    let mounted = open_tree(CWD, folder, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let attributes = if writes { quiet } else { quiet | MountAttrFlags::MOUNT_ATTR_RDONLY };
    set_attributes(
        &mounted,
        &mount_attr { attr_set: attributes.bits().into(), attr_clr: 0, propagation: 0, userns_fd: 0 },
    )?;
    map_ids(&mounted, users)?;
    Ok(mounted)
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[allow(non_camel_case_types)]
struct mount_attr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const _: () = assert!(size_of::<mount_attr>() == 32, "MOUNT_ATTR_SIZE_VER0");
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Lets nothing be changed through a mount, and no program start from it.
///
/// # Errors
/// The kernel's.
pub fn read_only(mount: &OwnedFd) -> io::Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    set_attributes(mount, &mount_attr { attr_set: attributes.bits().into(), attr_clr: 0, propagation: 0, userns_fd: 0 })
}

fn map_ids(mount: &OwnedFd, users: &OwnedFd) -> io::Result<()> {
    let userns_fd = u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?;
    set_attributes(mount, &mount_attr { attr_set: MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd })
}

fn set_attributes(mount: &OwnedFd, attr: &mount_attr) -> io::Result<()> {
    // SAFETY: the path is a NUL-terminated constant, `attr` lives through the call, and its size is given with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attr),
            size_of::<mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct loop_info64`.
#[repr(C)]
#[allow(non_camel_case_types)]
struct loop_info64 {
    numbers: [u64; 5],
    lo_number: u32,
    lo_encrypt_type: u32,
    lo_encrypt_key_size: u32,
    lo_flags: u32,
    names: [u8; 64 + 64 + 32],
    lo_init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[allow(non_camel_case_types)]
struct loop_config {
    fd: u32,
    block_size: u32,
    info: loop_info64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<loop_info64>() == 232 && size_of::<loop_config>() == 304);
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Others may take a free device before we do.
const ATTEMPTS: usize = 64;

/// A read-only block device that shows a file, and goes when nobody has it open.
fn loop_device(file: &File) -> io::Result<(File, String)> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..ATTEMPTS {
        // SAFETY: takes and gives numbers only.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = format!("/dev/loop{number}");
        let device = File::open(&path)?;
        let config = loop_config {
            fd: u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?,
            block_size: 0,
            info: loop_info64 {
                numbers: [0; 5],
                lo_number: 0,
                lo_encrypt_type: 0,
                lo_encrypt_key_size: 0,
                lo_flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
                names: [0; 160],
                lo_init: [0; 2],
            },
            reserved: [0; 8],
        };
        // SAFETY: `config` has the layout of loop.h (asserted above) and lives through the call; the kernel takes a reference of
        // its own to the file.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) } == 0 {
            return Ok((device, path));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// A pipe that holds `bytes` and has ended: they can be read once.
///
/// # Errors
/// `InvalidInput` for more than a pipe takes without a reader.
pub fn read_once(bytes: &[u8]) -> io::Result<OwnedFd> {
    if bytes.len() > libc::PIPE_BUF {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::write(&write, bytes)?;
    Ok(read)
}
