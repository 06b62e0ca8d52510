//! What each kind of thread may ask the kernel. Anything else ends the process.
//!
//! Every thread installs its own filter before it looks at anything the guest wrote. Source: seccomp(2).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// A kind of thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// Runs a virtual processor.
    Processor,
    /// Runs one of an SEV-SNP guest, whose pages change hands.
    SnpProcessor,
    /// Serves a disk.
    Disk,
    /// Serves the vsock.
    Vsock,
    /// Serves the network card.
    Net,
    /// Serves the source of random numbers.
    Rng,
    /// Listens to the supervisor, and ends the process.
    Main,
}

impl Thread {
    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("thread", |(name, _)| name)
    }

    /// Every kind, with its name.
    pub const ALL: &[(&str, Self)] = &[
        ("processor", Self::Processor),
        ("snp", Self::SnpProcessor),
        ("disk", Self::Disk),
        ("vsock", Self::Vsock),
        ("net", Self::Net),
        ("rng", Self::Rng),
        ("main", Self::Main),
    ];
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The filter cannot be made: a defect of ours.
    #[error("cannot make the system call filter")]
    Make(#[source] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error("the kernel takes no system call filter")]
    Apply(#[source] seccompiler::Error),
}

/// Limits the calling thread, for good.
///
/// # Errors
/// [`FilterError`].
pub fn limit(thread: Thread) -> Result<(), FilterError> {
    seccompiler::apply_filter(&program(thread)?).map_err(FilterError::Apply)
}

fn program(thread: Thread) -> Result<BpfProgram, FilterError> {
    let make = || {
        let mut rules = BTreeMap::new();
        for call in EVERY_THREAD.iter().chain(of(thread)) {
            rules.insert(*call, Vec::new());
        }
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            rules.insert(call, vec![not_executable()?]);
        }
        // Whether a descriptor is open: a build with assertions asks before it closes one.
        rules.insert(libc::SYS_fcntl, vec![second(libc::F_GETFD as u64)?]);
        if matches!(thread, Thread::SnpProcessor | Thread::Disk) {
            rules.insert(libc::SYS_fallocate, vec![second(PUNCH_HOLE)?]);
        }
        let requests = ioctls(thread).iter().map(|request| second(*request)).collect::<Result<Vec<_>, _>>()?;
        if !requests.is_empty() {
            rules.insert(libc::SYS_ioctl, requests);
        }
        let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?;
        filter.try_into()
    };
    make().map_err(FilterError::Make)
}

fn not_executable() -> Result<SeccompRule, seccompiler::BackendError> {
    let executable = libc::PROT_EXEC as u64;
    SeccompRule::new(vec![SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0)?])
}

/// The second argument is this.
fn second(value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?])
}

/// Allocator, locks, clocks, and how a thread or the process ends.
const EVERY_THREAD: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
];

const fn of(thread: Thread) -> &'static [i64] {
    match thread {
        Thread::Processor | Thread::SnpProcessor | Thread::Rng => &[],
        Thread::Disk => &[libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_fdatasync],
        Thread::Vsock => &[
            libc::SYS_accept4,
            libc::SYS_connect,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_wait,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_recvfrom,
            libc::SYS_sendto,
            libc::SYS_shutdown,
            libc::SYS_socket,
        ],
        Thread::Net => &[libc::SYS_recvfrom, libc::SYS_sendto, libc::SYS_shutdown],
        // Signals to threads of its own: that is how processors are made to pause.
        Thread::Main => {
            &[libc::SYS_getpid, libc::SYS_tgkill, libc::SYS_clock_nanosleep, libc::SYS_recvfrom, libc::SYS_sendto]
        }
    }
}

const fn ioctls(thread: Thread) -> &'static [u64] {
    match thread {
        // KVM_RUN, KVM_SET_GSI_ROUTING, KVM_KVMCLOCK_CTRL.
        Thread::Processor => &[0xAE80, 0x4008_AE6A, 0xAEAD],
        // And KVM_SET_MEMORY_ATTRIBUTES.
        Thread::SnpProcessor => &[0xAE80, 0x4008_AE6A, 0xAEAD, 0x4020_AED2],
        Thread::Vsock => &[libc::FIONBIO],
        Thread::Disk | Thread::Net | Thread::Rng | Thread::Main => &[],
    }
}

/// FALLOC_FL_PUNCH_HOLE with FALLOC_FL_KEEP_SIZE: frees, and makes no file longer.
const PUNCH_HOLE: u64 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_snp_guests_processors_change_whose_pages_are() {
        let size = size_of::<kvm_bindings::kvm_memory_attributes>() as u64;
        let request = 1 << 30 | size << 16 | 0xAE << 8 | 0xD2;
        for &(_, thread) in Thread::ALL {
            assert_eq!(ioctls(thread).contains(&request), thread == Thread::SnpProcessor, "{thread:?}");
        }
        assert_eq!(ioctls(Thread::SnpProcessor).len(), ioctls(Thread::Processor).len() + 1);
    }

    #[test]
    fn every_kind_of_thread_has_a_filter_within_the_kernels_limit() {
        for &(_, thread) in Thread::ALL {
            assert!(program(thread).unwrap().len() < 4096, "{thread:?}");
        }
    }
}
