//! The jail around one guest's process: what is left to it once the guest runs.
//!
//! Closed by the thread that starts all others, after every file, socket and device is open. What a guest gains that takes
//! this process over: the guest's own memory, disks and streams; listeners of this box by name; nothing else of the host.
//! Namespaces and Landlock depend on the host's kernel and are reported; the rest holds everywhere or the guest does not run.

pub mod filters;

use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Compatible as _, Ruleset, RulesetAttr as _, RulesetStatus, Scope,
};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::sys::{allocator, namespaces};

/// What of the host's own doing the jail is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The host's mounts, network, users and System V objects are out of sight.
    pub namespaces: bool,
    /// No file can be opened by name, no port be connected to, no process outside be signalled.
    pub landlock: bool,
}

/// Why the jail does not close.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct JailError {
    what: &'static str,
    #[source]
    cause: io::Error,
}

/// Closes it. `descriptors` is how many the process may have.
///
/// # Errors
/// [`JailError`].
pub fn close(descriptors: u64) -> Result<Layers, JailError> {
    let must = |what: &'static str, done: rustix::io::Result<()>| {
        done.map_err(|cause| JailError { what, cause: cause.into() })
    };
    allocator::one_arena();
    let namespaces = leave_namespaces().is_ok();
    for (resource, most) in [(Resource::Core, 0), (Resource::Nofile, descriptors), (Resource::Fsize, MOST_FILE)] {
        let now = rustix::process::getrlimit(resource);
        let most = now.maximum.map_or(most, |maximum| maximum.min(most));
        must(
            "limit resources",
            rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }),
        )?;
    }
    must(
        "keep the memory from other processes",
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable),
    )?;
    let none = CapabilitySet::empty();
    let nothing = CapabilitySets { effective: none, permitted: none, inheritable: none };
    must("give capabilities up", rustix::thread::set_capabilities(None, nothing))?;
    must("forbid new privileges", rustix::thread::set_no_new_privs(true))?;
    let landlock = close_files().is_ok_and(|status| status != RulesetStatus::NotEnforced);
    Ok(Layers { namespaces, landlock })
}

/// Longest file that is written: no disk of a guest is longer.
const MOST_FILE: u64 = 1 << 46;

/// A root that holds the box's folder and nothing else, read only: in it lie the sockets a guest's streams go to.
fn leave_namespaces() -> io::Result<()> {
    namespaces::leave(true).or_else(|_| namespaces::leave(false))?;
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let here = std::env::current_dir()?;
    rustix::mount::mount_bind_recursive(&here, &here)?;
    std::env::set_current_dir(&here)?;
    if rustix::process::pivot_root(".", ".").is_ok() {
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    } else {
        // The first root of all, which a host that runs from its initramfs still has, cannot be exchanged, only covered.
        rustix::mount::mount_move(".", "/")?;
        rustix::process::chroot(".")?;
    }
    std::env::set_current_dir("/")?;
    let locked = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount_remount("/", locked, "")?)
}

/// No file by name from here on, whatever it is opened for. Sockets are not files in this sense.
fn close_files() -> Result<RulesetStatus, landlock::RulesetError> {
    let abi = ABI::V6;
    let closed = Ruleset::default()
        .set_compatibility(landlock::CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::Signal)?
        .create()?
        .restrict_self()?;
    Ok(closed.ruleset)
}
