//! The workload's mounts: its root, `/proc`, `/sys`, a small `/dev`, `/run/secrets`.
//!
//! Everything is mounted after the old root is gone, so no link in the image can lead out of it. Where a link of the image
//! leads to a folder of the guest's own, nothing is mounted there: what counts is where a path ends.

use std::{
    ffi::CString,
    fs::{self, Permissions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use coffer_spec::{Domain, Network, ResolverOption};
use rustix::{
    fs::{CWD, FileType, Mode},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_bind, mount_bind_recursive,
        mount_change, mount_remount, move_mount, open_tree, unmount,
    },
    thread::{ThreadNameSpaceType, move_into_thread_name_spaces},
};

use super::{Bind, Cause, Place, Users};
use crate::sys::process_id::ProcessId;

type Step<T> = Result<T, (Cause, String, io::Error)>;

/// A step that fails by our fault.
fn step<T, E: Into<io::Error>>(what: &str, result: Result<T, E>) -> Step<T> {
    result.map_err(|error| (Cause::Ours, what.to_string(), error.into()))
}

/// A step that fails where the image has no place for it.
fn on_image<T, E: Into<io::Error>>(what: &str, result: Result<T, E>) -> Step<T> {
    result.map_err(|error| (Cause::Place, what.to_string(), error.into()))
}

/// The workload's namespaces, found by its process.
pub(super) struct Namespaces {
    /// The workload's process: whatever it is in is entered, and never what another is in that has its number by now.
    workload: OwnedFd,
    users: Users,
}

impl Namespaces {
    /// Finds them, and joins the process id namespace, which holds for children.
    pub(super) fn open_and_enter_pid(workload: ProcessId, users: Users) -> io::Result<Self> {
        let workload = workload.open()?;
        move_into_thread_name_spaces(workload.as_fd(), ThreadNameSpaceType::PROCESS_ID)?;
        Ok(Self { workload, users })
    }

    /// Joins the others, but for that of users: it gives up the right to join any.
    pub(super) fn enter(&self) -> io::Result<()> {
        let others = ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::CONTROL_GROUP
            | ThreadNameSpaceType::MOUNT;
        Ok(move_into_thread_name_spaces(self.workload.as_fd(), others)?)
    }

    /// Joins that of users, if the workload has one.
    pub(super) fn enter_users(&self) -> io::Result<()> {
        match self.users {
            Users::Own => Ok(move_into_thread_name_spaces(self.workload.as_fd(), ThreadNameSpaceType::USER)?),
            Users::Machine => Ok(()),
        }
    }
}

/// Turns the fresh namespaces of this process into the workload's place.
pub(super) fn build(place: &Place, users: Users) -> Step<()> {
    let Place::New { root, secrets, agent, hostname, domainname, shm_bytes, sysctls, tmpfs, volumes, network, .. } =
        place
    else {
        return step("build a place", Err(io::Error::from(io::ErrorKind::InvalidInput)));
    };
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    step("make mounts private", mount_change("/", private))?;
    let secrets = step("open the secrets", detached(secrets))?;
    let agent = step("open the agent's folder", detached(agent))?;
    let nodes = step("open device nodes", nodes(users))?;
    // Before the old root goes: in a user namespace the kernel makes these only for whoever sees others of the kind whole.
    let proc = step("make /proc", kernel_files("proc", MountAttrFlags::empty()))?;
    let sys = step("make /sys", kernel_files("sysfs", MountAttrFlags::MOUNT_ATTR_RDONLY))?;
    let mut mounts: Vec<(&str, Mount<'_>)> =
        tmpfs.iter().map(|tmpfs| (tmpfs.path.as_str(), Mount::Tmpfs(tmpfs))).collect();
    for Bind { from, to, read_only } in volumes {
        mounts.push((to, Mount::Volume(step("open a volume", detached(from))?, from.is_dir(), *read_only)));
    }
    // What lies inside another is mounted after it.
    mounts.sort_unstable_by_key(|(path, _)| *path);
    step("pivot into the root", pivot(root))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Before the volumes: one on /etc, or on a file there, is what the owner wants to be seen.
    on_image("write files in /etc", name_files(hostname, domainname.as_deref(), network.as_deref()))?;

    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (tree, target) in [(proc, "/proc"), (sys, "/sys")] {
        let what = format!("mount {target}");
        on_image(&what, make_folder(target))?;
        step(&what, move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))?;
    }
    tree("tmpfs", "/dev", "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=755,size=64k,nr_inodes=128")?;
    step("make device nodes", device_nodes(nodes))?;
    tree(
        "devpts",
        "/dev/pts",
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620",
    )?;
    tree("shm", "/dev/shm", "tmpfs", quiet, &format!("mode=1777,size={shm_bytes}"))?;
    let own = on_image("make folders of the guest's own", own_folders())?;
    for (path, kind) in mounts {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let target = on_image(&format!("mount {path}"), spot(path, kind.is_folder(), &own))?;
        match kind {
            Mount::Tmpfs(coffer_spec::Mount { tmpfs_bytes, noexec, read_only, mode, uid, gid, .. }) => {
                let more = [(*noexec, MountFlags::NOEXEC), (*read_only, MountFlags::RDONLY)];
                let flags = more.into_iter().filter(|(set, _)| *set).fold(flags, |all, (_, flag)| all | flag);
                let options = format!("mode={mode},uid={uid},gid={gid},size={tmpfs_bytes}");
                tree("tmpfs", &target, "tmpfs", flags, &options)?;
            }
            Mount::Volume(volume, _, read_only) => {
                let flags = if read_only { flags | MountFlags::RDONLY } else { flags };
                on_image(&format!("mount {path}"), attach_at(&volume, &target, flags))?;
            }
        }
    }
    on_image("mount /run/secrets", attach(&secrets, "/run/secrets", quiet | MountFlags::RDONLY))?;
    on_image("mount /run/coffer", attach(&agent, "/run/coffer", quiet | MountFlags::RDONLY))?;
    // While they can be written to. Those of the network are the guest's, the others are of namespaces of the workload's own.
    for setting in sysctls {
        let written = fs::write(format!("/proc/sys/{}", setting.path()), &setting.value);
        written.map_err(|error| (Cause::Setting, format!("set {}", setting.name), error))?;
    }
    hide_kernel_files()?;
    step("set the host name", rustix::system::sethostname(hostname.as_bytes()))?;
    // Without a machine it would be the host's.
    let domain = domainname.as_deref().unwrap_or(NO_DOMAIN);
    step("set the domain name", rustix::system::setdomainname(domain.as_bytes()))?;
    Ok(())
}

/// One mount the spec asks for.
enum Mount<'a> {
    /// Memory.
    Tmpfs(&'a coffer_spec::Mount),
    /// A tree, whether it is a folder, and whether nothing is written to it.
    Volume(OwnedFd, bool, bool),
}

impl Mount<'_> {
    fn is_folder(&self) -> bool {
        matches!(self, Self::Tmpfs(_) | Self::Volume(_, true, _))
    }
}

/// Lets nothing be written to the root any more, where the place says so: for its programs and those beside them, not for the agent,
/// which has a mount of its own.
pub(super) fn close_root(place: &Place) -> io::Result<()> {
    match place {
        Place::New { read_only: true, .. } => {
            Ok(mount_remount("/", MountFlags::RDONLY | MountFlags::NODEV | MountFlags::BIND, "")?)
        }
        _ => Ok(()),
    }
}

fn detached(folder: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, folder, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

/// The new root over the old, then the old one away: pivot_root(2), "pivot_root(".", ".")".
fn pivot(root: &Path) -> io::Result<()> {
    mount_bind_recursive(root, root)?;
    std::env::set_current_dir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

/// What the kernel shows of itself, as a mount that stands in no folder.
fn kernel_files(kind: &str, more: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", kind)?;
    fsconfig_create(context.as_fd())?;
    let quiet =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, quiet | more)?)
}

fn tree(source: &str, target: &str, kind: &str, flags: MountFlags, data: &str) -> Step<()> {
    let what = format!("mount {target}");
    on_image(&what, make_folder(target))?;
    let data = step(&what, CString::new(data).map_err(io::Error::from))?;
    step(&what, mount(source, target, kind, flags, data.as_c_str()))
}

fn make_folder(path: &str) -> io::Result<()> {
    if Path::new(path).is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Where the folders of the guest's own are: where the image's links lead, if it has links there.
fn own_folders() -> io::Result<Vec<PathBuf>> {
    let of = |path: &&str| make_folder(path).and_then(|()| fs::canonicalize(path));
    coffer_spec::Mount::OWN.iter().map(of).collect()
}

/// Where a mount of the spec goes, made where nothing is. Links in the image lead where they lead inside it: the old root is
/// gone. What they must not lead to is `own`, or the root itself.
fn spot(path: &str, is_folder: bool, own: &[PathBuf]) -> io::Result<String> {
    let at = Path::new(path);
    if !at.exists() && !is_folder {
        make_folder(&at.parent().unwrap_or(Path::new("/")).to_string_lossy())?;
        fs::write(at, "")?;
    } else if !at.exists() {
        make_folder(path)?;
    }
    let target = fs::canonicalize(at)?;
    if own.iter().any(|own| target.starts_with(own)) || target == Path::new("/") {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    match (target.is_dir(), is_folder) {
        (false, true) => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
        (true, false) => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        _ => target.into_os_string().into_string().map_err(|_| io::Error::from_raw_os_error(libc::EILSEQ)),
    }
}

fn attach(tree: &OwnedFd, target: &str, flags: MountFlags) -> io::Result<()> {
    make_folder(target)?;
    attach_at(tree, target, flags)
}

fn attach_at(tree: &OwnedFd, target: &str, flags: MountFlags) -> io::Result<()> {
    move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    mount_remount(target, flags | MountFlags::BIND, "")?;
    Ok(())
}

/// Device nodes of the workload: name, major and minor number.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The guest's own nodes, where none can be made: in a user namespace the kernel lets nobody.
fn nodes(users: Users) -> io::Result<Option<Vec<OwnedFd>>> {
    let of = |(name, _, _)| detached(Path::new(&format!("/dev/{name}")));
    (users == Users::Own).then(|| NODES.into_iter().map(of).collect()).transpose()
}

fn device_nodes(nodes: Option<Vec<OwnedFd>>) -> io::Result<()> {
    let mut nodes = nodes.map(Vec::into_iter);
    for (name, major, minor) in NODES {
        let path = format!("/dev/{name}");
        if let Some(node) = nodes.as_mut().and_then(Iterator::next) {
            fs::write(&path, "")?;
            move_mount(&node, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            continue;
        }
        let (mode, device) = (Mode::from_raw_mode(0o666), rustix::fs::makedev(major, minor));
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, device)?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(to, format!("/dev/{name}"))?;
    }
    Ok(())
}

/// What Docker hides or makes read-only in `/proc` and `/sys`.
fn hide_kernel_files() -> Step<()> {
    let read_only = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
        if Path::new(path).exists() {
            let result = mount_bind(path, path).and_then(|()| mount_remount(path, read_only | MountFlags::BIND, ""));
            step(&format!("make {path} read-only"), result)?;
        }
    }
    for path in [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/sys/firmware",
    ] {
        let path_ = Path::new(path);
        let result = if path_.is_dir() {
            mount("tmpfs", path, "tmpfs", read_only, Some(c"mode=555,size=0"))
        } else if path_.exists() {
            mount_bind("/dev/null", path)
        } else {
            Ok(())
        };
        step(&format!("hide {path}"), result)?;
    }
    Ok(())
}

/// What Linux calls a domain that nobody named.
const NO_DOMAIN: &str = "(none)";

fn name_files(hostname: &str, domainname: Option<&str>, network: Option<&Network>) -> io::Result<()> {
    make_folder("/etc")?;
    let own = domainname.map_or_else(|| hostname.to_owned(), |domain| format!("{hostname}.{domain} {hostname}"));
    let mut hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{own}\n");
    if let Some(network) = network {
        let lines = network.hosts.iter().map(|entry| format!("{}\t{}\n", entry.address, entry.name));
        hosts.extend(lines);
        replace("/etc/resolv.conf", &resolver(network))?;
    }
    for (path, text) in [("/etc/hostname", format!("{hostname}\n")), ("/etc/hosts", hosts)] {
        replace(path, &text)?;
    }
    // Without a card there is nobody to ask.
    if !Path::new("/etc/resolv.conf").exists() {
        replace("/etc/resolv.conf", "")?;
    }
    Ok(())
}

/// What a workload's resolver reads: resolv.conf(5).
fn resolver(network: &Network) -> String {
    let line = |word: &str, all: Vec<&str>| {
        if all.is_empty() { String::new() } else { format!("{word} {}\n", all.join(" ")) }
    };
    let search = line("search", network.search.iter().map(Domain::as_str).collect());
    let options = line("options", network.options.iter().map(ResolverOption::as_str).collect());
    let servers = network.dns.iter().map(|server| format!("nameserver {server}\n"));
    servers.chain([search, options]).collect::<Vec<_>>().concat()
}

/// A fresh file, whatever stood there; a link would lead elsewhere.
fn replace(path: &str, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}
