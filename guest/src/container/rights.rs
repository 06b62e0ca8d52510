//! What a program of the workload may not do: capabilities, system calls, resource limits, identity.

use std::io;

use coffer_spec::{Capability, ResourceLimit, Rights};
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, CapabilitySets, Gid, Uid},
};

use crate::{
    passwd::Identity,
    sys::seccomp::{self, Filter},
};

/// Docker's default set without MKNOD: Docker keeps device nodes harmless by a device control group; here a node for
/// `/dev/mem` or `/dev/sev-guest` must not come into being at all.
pub(super) const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Open files: soft and hard limit.
const OPEN_FILES: (u64, u64) = (65_536, 1_048_576);

/// Limits what a program has of the kernel: open files, no dumps, and what the spec says.
///
/// # Errors
/// The kernel's, with what was limited; the caller must not go on after one.
pub(super) fn limit(limits: &[ResourceLimit]) -> Result<(), (&'static str, io::Error)> {
    usual_limits().map_err(|error| ("of open files or dumps", error))?;
    for one in limits {
        let wanted = Rlimit { current: one.soft, maximum: one.hard };
        setrlimit(resource(one.of), wanted).map_err(|error| (one.of.word(), error.into()))?;
    }
    Ok(())
}

fn usual_limits() -> io::Result<()> {
    let limit = |soft, hard| Rlimit { current: Some(soft), maximum: Some(hard) };
    // Of 1 and not 0: so the kernel dumps nothing either to a program that its owner, or a host, names in core_pattern. A limit
    // of 0 that must not be raised stays.
    setrlimit(Resource::Core, limit(1, 1)).or_else(|_| setrlimit(Resource::Core, limit(0, 0)))?;
    if setrlimit(Resource::Nofile, limit(OPEN_FILES.0, OPEN_FILES.1)).is_err() {
        // Where the hard limit is lower and must not be raised, it stays.
        let hard = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(OPEN_FILES.1);
        setrlimit(Resource::Nofile, limit(OPEN_FILES.0.min(hard), hard))?;
    }
    Ok(())
}

fn resource(of: coffer_spec::Resource) -> Resource {
    use coffer_spec::Resource as Of;
    match of {
        Of::Cpu => Resource::Cpu,
        Of::Data => Resource::Data,
        Of::Fsize => Resource::Fsize,
        Of::Locks => Resource::Locks,
        Of::Memlock => Resource::Memlock,
        Of::Msgqueue => Resource::Msgqueue,
        Of::Nice => Resource::Nice,
        Of::Nofile => Resource::Nofile,
        Of::Nproc => Resource::Nproc,
        Of::Rss => Resource::Rss,
        Of::Rtprio => Resource::Rtprio,
        Of::Rttime => Resource::Rttime,
        Of::Sigpending => Resource::Sigpending,
        Of::Stack => Resource::Stack,
    }
}

const fn bit(capability: Capability) -> CapabilitySet {
    match capability {
        Capability::Chown => CapabilitySet::CHOWN,
        Capability::DacOverride => CapabilitySet::DAC_OVERRIDE,
        Capability::Fsetid => CapabilitySet::FSETID,
        Capability::Fowner => CapabilitySet::FOWNER,
        Capability::NetRaw => CapabilitySet::NET_RAW,
        Capability::Setgid => CapabilitySet::SETGID,
        Capability::Setuid => CapabilitySet::SETUID,
        Capability::Setfcap => CapabilitySet::SETFCAP,
        Capability::Setpcap => CapabilitySet::SETPCAP,
        Capability::NetBindService => CapabilitySet::NET_BIND_SERVICE,
        Capability::SysChroot => CapabilitySet::SYS_CHROOT,
        Capability::Kill => CapabilitySet::KILL,
        Capability::AuditWrite => CapabilitySet::AUDIT_WRITE,
    }
}

/// Gives up everything the workload does not get and becomes its user. For good.
///
/// # Errors
/// The kernel's; the caller must not go on after one.
pub(super) fn give_up(identity: &Identity, rights: &Rights) -> io::Result<()> {
    let chosen = rights.capabilities.as_ref();
    let kept = chosen.map_or(KEPT, |chosen| KEPT & chosen.iter().map(|one| bit(*one)).collect::<CapabilitySet>());
    // The filter needs CAP_SYS_ADMIN to go in, so it goes in first.
    seccomp::install(Filter::Workload)?;
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if !kept.contains(capability) {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // Above the last capability this kernel knows.
                Err(rustix::io::Errno::INVAL) if bit > 37 => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    let held = rustix::thread::capabilities(None)?.permitted;
    let kept = if identity.uid == 0 { kept & held } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    if rights.no_new_privileges {
        rustix::thread::set_no_new_privs(true)?;
    }
    Ok(())
}

/// Gives up, for this thread and all it starts, being the administrator of the network it is in: much of a kernel listens to
/// that alone.
///
/// # Errors
/// The kernel's.
pub fn give_up_the_network() -> io::Result<()> {
    rustix::thread::remove_capability_from_bounding_set(CapabilitySet::NET_ADMIN)?;
    let held = rustix::thread::capabilities(None)?;
    let kept = |set: CapabilitySet| set - CapabilitySet::NET_ADMIN;
    let sets = CapabilitySets {
        effective: kept(held.effective),
        permitted: kept(held.permitted),
        inheritable: kept(held.inheritable),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_that_a_spec_can_name_is_kept_and_no_other() {
        assert_eq!(Capability::ALL.iter().map(|one| bit(*one)).collect::<CapabilitySet>(), KEPT);
    }

    #[test]
    fn nothing_that_reaches_around_the_agent_is_kept() {
        for capability in [
            CapabilitySet::SYS_ADMIN,
            CapabilitySet::SYS_MODULE,
            CapabilitySet::SYS_RAWIO,
            CapabilitySet::SYS_PTRACE,
            CapabilitySet::SYS_BOOT,
            CapabilitySet::MKNOD,
            CapabilitySet::DAC_READ_SEARCH,
            CapabilitySet::BPF,
        ] {
            assert!(!KEPT.contains(capability), "{capability:?}");
        }
    }
}
