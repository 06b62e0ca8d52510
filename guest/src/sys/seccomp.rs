//! The system call filter of the workload and of everything executed beside it.
//!
//! It closes what would reach around the agent: AF_VSOCK sockets (the host's ports and the simulated processor), ways
//! to make a socket that no filter on `socket` sees (io_uring, the 32-bit table), new user namespaces, modules, kexec.
//! Refused calls fail with EPERM; unknown tables and clone3, whose flags lie in memory, with ENOSYS.
//! Source: seccomp(2), Linux include/uapi/linux/{seccomp,audit,filter}.h.

use std::io;

use libc::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

const _: () = assert!(size_of::<sock_filter>() == 8);

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Calls of the x32 table have this bit.
const X32_BIT: u32 = 0x4000_0000;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARG0: u32 = 16;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// Calls refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_acct,
    libc::SYS_quotactl,
];

/// Installs the filter on the calling thread, for good, and for all its children.
///
/// # Errors
/// The kernel's; needs CAP_SYS_ADMIN, so it comes before capabilities are dropped.
pub fn install() -> io::Result<()> {
    let filter = program();
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points to `length` instructions that live through the call; the kernel copies and checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Numbers of system calls and address families are small and positive.
#[allow(clippy::cast_sign_loss)]
fn program() -> Vec<sock_filter> {
    let load = |offset| statement(BPF_LD | BPF_W | BPF_ABS, offset);
    let give = |action| statement(BPF_RET | BPF_K, action);
    let refuse = |errno: i32| give(ERRNO | errno.unsigned_abs());
    let mut program = vec![
        load(OFFSET_ARCH),
        jump(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0),
        refuse(libc::ENOSYS),
        load(OFFSET_NR),
        jump(BPF_JGE, X32_BIT, 0, 1),
        refuse(libc::ENOSYS),
        jump(BPF_JEQ, libc::SYS_clone3 as u32, 0, 1),
        refuse(libc::ENOSYS),
    ];
    for number in REFUSED {
        program.extend([jump(BPF_JEQ, *number as u32, 0, 1), refuse(libc::EPERM)]);
    }
    for number in [libc::SYS_socket, libc::SYS_socketpair] {
        program.extend([
            jump(BPF_JEQ, number as u32, 0, 4),
            load(OFFSET_ARG0),
            jump(BPF_JEQ, libc::AF_VSOCK as u32, 0, 1),
            refuse(libc::EAFNOSUPPORT),
            give(ALLOW),
        ]);
    }
    program.extend([
        jump(BPF_JEQ, libc::SYS_clone as u32, 0, 4),
        load(OFFSET_ARG0),
        jump(BPF_JSET, libc::CLONE_NEWUSER as u32, 0, 1),
        refuse(libc::EPERM),
        give(ALLOW),
        give(ALLOW),
    ]);
    program
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt, jf, k }
}

#[cfg(test)]
#[allow(clippy::cast_sign_loss)]
mod tests {
    use super::*;

    /// Runs the filter on one call, as the kernel would.
    fn decide(arch: u32, nr: u32, arg0: u32) -> u32 {
        let program = program();
        let (mut at, mut accumulator) = (0_usize, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            if code == BPF_LD | BPF_W | BPF_ABS {
                accumulator = match step.k {
                    OFFSET_NR => nr,
                    OFFSET_ARCH => arch,
                    OFFSET_ARG0 => arg0,
                    other => panic!("loads {other}"),
                };
            } else if code == BPF_RET | BPF_K {
                return step.k;
            } else {
                let taken = match code & 0xf0 {
                    BPF_JEQ => accumulator == step.k,
                    BPF_JGE => accumulator >= step.k,
                    BPF_JSET => accumulator & step.k != 0,
                    other => panic!("jumps by {other}"),
                };
                at += usize::from(if taken { step.jt } else { step.jf });
            }
        }
    }

    fn native(nr: libc::c_long, arg0: i32) -> u32 {
        decide(AUDIT_ARCH_X86_64, nr as u32, arg0 as u32)
    }

    #[test]
    fn vsock_sockets_are_refused_and_others_are_not() {
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            assert_eq!(native(call, libc::AF_VSOCK), ERRNO | libc::EAFNOSUPPORT as u32);
            assert_eq!(native(call, libc::AF_INET), ALLOW);
            assert_eq!(native(call, libc::AF_UNIX), ALLOW);
        }
    }

    #[test]
    fn ways_around_the_socket_filter_are_refused() {
        assert_eq!(decide(0x4000_0003, 102, 1), ERRNO | libc::ENOSYS as u32, "the 32-bit table");
        assert_eq!(decide(AUDIT_ARCH_X86_64, X32_BIT + 41, 40), ERRNO | libc::ENOSYS as u32, "the x32 table");
        assert_eq!(native(libc::SYS_io_uring_setup, 1), ERRNO | libc::EPERM as u32);
    }

    #[test]
    fn new_user_namespaces_are_refused_and_threads_are_not() {
        assert_eq!(native(libc::SYS_clone, libc::CLONE_NEWUSER), ERRNO | libc::EPERM as u32);
        assert_eq!(native(libc::SYS_clone, libc::CLONE_VM), ALLOW);
        assert_eq!(native(libc::SYS_clone3, 0), ERRNO | libc::ENOSYS as u32);
        assert_eq!(native(libc::SYS_unshare, 0), ERRNO | libc::EPERM as u32);
    }

    #[test]
    fn ordinary_calls_pass() {
        for call in [libc::SYS_read, libc::SYS_execve, libc::SYS_openat, libc::SYS_kill, libc::SYS_ptrace] {
            assert_eq!(native(call, 0), ALLOW);
        }
    }
}
