//! From a process of the host's root to init in a root of its own, with the ids of nobody.
//!
//! Order matters. While it is root of the host it makes the new root and lets go of the host's; then it gives up every id and
//! right of the host's; only then does a program run that others have to do with.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use coffer_machine::{initrd, namespaces};
use coffer_rim::{Class, Classify as _, Failure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode};
use rustix::io::FdFlags;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, mount_remount,
    move_mount, open_tree, unmount,
};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{Gid, LinkNameSpaceType, Uid, UnshareFlags, move_into_link_name_space};

use super::order::Order;
use crate::sys::namespaces::{close_on_exec, read_once, unshare};

/// What the holder made, and its child takes along.
pub struct Made {
    /// The box.
    pub order: Order,
    /// Its init, to be read.
    pub init: File,
    /// Where the host reaches it.
    pub listener: UnixListener,
    /// Sockets of the host by their port, as mounts.
    pub lines: Vec<(String, OwnedFd)>,
    /// Its user namespace.
    pub users: OwnedFd,
    /// Its network namespace.
    pub network: OwnedFd,
    /// Serial, file and mount of each image.
    pub images: Vec<(String, File, OwnedFd)>,
    /// Serial and mount of each folder that outlives it.
    pub folders: Vec<(String, OwnedFd)>,
    /// A socket whose other end the holder has.
    pub parent: UnixStream,
}

/// A file as a mount that stands in no folder.
///
/// # Errors
/// The kernel's.
pub fn detached(name: &OsStr) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, name, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

/// Becomes init.
///
/// # Errors
/// Class `platform`, naming the step the kernel refused.
pub fn enter_and_become_init(made: Made) -> Result<Infallible, Failure> {
    let Made { order, mut init, listener, lines, users, network, images, folders, parent } = made;
    let read = |path: &Path| fs::read(path).class_while(Class::Config, format!("cannot read {}", path.display()));
    let command_line = read(&order.command_line)?;
    let spec = read(&order.spec)?;
    let secrets = order.secrets.as_deref().map(|path| read(path).and_then(|page| Ok(read_once(&page)?))).transpose()?;

    end_with_the_holder(&parent)?;
    let what = "cannot make a root for the box";
    // First, so that `/sys` shows this network and not the host's.
    enter_network(&network).class_while(Class::Platform, what)?;
    drop(network);
    begin_root().class_while(Class::Platform, what)?;
    let of_images = images.iter().map(|(serial, _, mounted)| (serial.as_str(), mounted));
    let mounts =
        of_images.chain(folders.iter().map(|(serial, mounted)| (serial.as_str(), mounted))).collect::<Vec<_>>();
    put_program(initrd::INIT, &mut init).class_while(Class::Platform, what)?;
    finish_root(&command_line, &spec, &lines, &mounts).class_while(Class::Platform, what)?;
    drop((init, lines, folders, order));
    let what = "cannot give up the rights of the host's root";
    give_up_the_host(&users).class_while(Class::Platform, what)?;
    drop(users);
    end_with_the_holder(&parent)?;

    let null = File::options().read(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).map_err(io::Error::from)?;
    // Whoever called us may have left something open that is the host's.
    close_on_exec()?;
    let mut words = vec![namespaces::STAGE.to_owned(), keep(&listener)?];
    words.push(secrets.as_ref().map_or_else(|| Ok(namespaces::NOTHING.to_owned()), keep)?);
    for (_, file, _) in &images {
        words.push(keep(file)?);
    }
    wait_for_the_holder(&parent)?;
    let error = Command::new(Path::new("/").join(initrd::INIT)).args(words).env_clear().exec();
    Err(Failure::caused(Class::Platform, &error).while_doing("cannot start init"))
}

/// Leaves a descriptor to init, and says its number.
fn keep(fd: impl std::os::fd::AsFd) -> io::Result<String> {
    rustix::io::fcntl_setfd(&fd, FdFlags::empty())?;
    Ok(fd.as_fd().as_raw_fd().to_string())
}

/// The kernel ends the box with its holder. To be said again when ids changed, which makes it forget.
fn end_with_the_holder(parent: &UnixStream) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The holder may have died before the line above: then nobody would ever send the signal.
    let mut gone = [PollFd::new(parent, PollFlags::empty())];
    poll(&mut gone, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if gone[0].revents().is_empty() { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// Until the box may run.
fn wait_for_the_holder(mut parent: &UnixStream) -> io::Result<()> {
    if parent.read(&mut [0])? == 1 { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

fn enter_network(network: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Begins a root in memory, and goes there.
fn begin_root() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    // On the box's own folder, which nobody in this namespace needs any more.
    let folder = std::env::current_dir()?;
    mount("init", &folder, "tmpfs", MountFlags::NOSUID, c"mode=755")?;
    std::env::set_current_dir(&folder)
}

/// Puts into the root what init needs and nothing else, and lets go of the host's.
fn finish_root(
    command_line: &[u8],
    spec: &[u8],
    lines: &[(String, OwnedFd)],
    mounts: &[(&str, &OwnedFd)],
) -> io::Result<()> {
    for name in ["proc", "sys", "dev", "run"] {
        fs::create_dir(name)?;
    }
    let inside = |path: &str| path.trim_start_matches('/').to_owned();
    for path in [namespaces::LINES, namespaces::IMAGES] {
        fs::create_dir_all(inside(path))?;
    }
    put(&inside(namespaces::COMMAND_LINE), command_line.strip_suffix(b"\0").unwrap_or(command_line), 0o444)?;
    put(&inside(namespaces::SPEC), spec, 0o444)?;
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let (path, mode) = (format!("dev/{name}"), Mode::from_raw_mode(0o666));
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, rustix::fs::makedev(major, minor))?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    }
    for (port, socket) in lines {
        let at = format!("{}/{port}", inside(namespaces::LINES));
        put(&at, b"", 0o444)?;
        attach(socket, &at)?;
    }
    for (serial, mounted) in mounts {
        let at = format!("{}/{serial}", inside(namespaces::IMAGES));
        fs::create_dir(&at)?;
        attach(mounted, &at)?;
    }
    mount("proc", "proc", "proc", QUIET, None::<&std::ffi::CStr>)?;
    mount("sysfs", "sys", "sysfs", QUIET | MountFlags::RDONLY, None::<&std::ffi::CStr>)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    mount_remount("/", MountFlags::RDONLY | MountFlags::NOSUID, "")?;
    Ok(())
}

fn put(path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    create(path, mode)?.write_all(bytes)
}

/// A copy of its own: a file that others have too would be a way to them. It is closed then: open for writing, it could not be run.
fn put_program(path: &str, from: &mut File) -> io::Result<()> {
    io::copy(from, &mut create(path, 0o755)?).map(drop)
}

fn create(path: &str, mode: u32) -> io::Result<File> {
    let file = File::create_new(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

fn attach(mounted: &OwnedFd, at: &str) -> io::Result<()> {
    Ok(move_mount(mounted.as_fd(), "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Into the box's user namespace, as its root, and into namespaces that are its own. What was mounted before stays as it is: its
/// root can take nothing of it away.
fn give_up_the_host(users: &OwnedFd) -> io::Result<()> {
    rustix::process::setsid()?;
    move_into_link_name_space(users.as_fd(), Some(LinkNameSpaceType::User))?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    let all = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC | UnshareFlags::NEWCGROUP;
    unshare(all)
}
