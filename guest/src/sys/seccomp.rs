//! The system call filters: of the workload and everything executed beside it, and of init where there is no machine.
//!
//! The workload's closes what would reach around the agent: AF_VSOCK sockets (the host's ports and the simulated processor), ways
//! to make a socket that no filter on `socket` sees (io_uring, the 32-bit table), new user namespaces, modules, kexec; and what would
//! send past the rules of the network card: AF_XDP, and of raw sockets every option but those about what they hear, for a frame could
//! else go around the rules (PACKET_QDISC_BYPASS), be changed by its sender behind them, in memory that both have (PACKET_TX_RING), or by
//! the kernel, which writes a checksum where the sender says (PACKET_VNET_HDR).
//! init's closes those parts of the host's kernel that it has no use for: whoever takes it over has no more of them.
//! Refused calls fail with EPERM; unknown tables, calls that later kernels have, and clone3, whose flags lie in memory, with ENOSYS.
//! Source: seccomp(2), Linux include/uapi/linux/{seccomp,audit,filter}.h.

use std::io;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter,
};

const _: () = assert!(size_of::<sock_filter>() == 8);

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// The first call that nobody here has looked at (`open_tree_attr` of Linux 6.15): a program is told that there is none, as an older kernel
/// would tell it. Calls of the x32 table are above it: they have bit 30.
const UNKNOWN: u32 = 467;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARG0: u32 = 16;
const OFFSET_ARG1: u32 = 24;
const OFFSET_ARG2: u32 = 32;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// Who is filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Programs of the workload: they get no place but the one they are in.
    Workload,
    /// init where the kernel is the host's, and so all that it starts: of that kernel it gets what it needs.
    OnHostKernel,
}

/// What reaches into a kernel, refused to both whatever the arguments.
const KERNEL: &[libc::c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
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

/// What makes, enters or changes a place, refused to the workload; init makes one.
const PLACES: &[libc::c_long] = &[
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
];

/// What tells of a host, or is a part of its kernel that no box needs.
const OF_A_HOST: &[libc::c_long] = &[
    libc::SYS_syslog,
    libc::SYS_quotactl_fd,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_kcmp,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
];

/// Protocols of IPv4 and IPv6 that it has, of streams and datagrams: the kernel loads a module for each other that somebody names (SCTP,
/// DCCP, L2TP, SMC). Raw sockets it has none; the kernel takes SOCK_PACKET of IPv4 for AF_PACKET.
const OF_IP: &[libc::c_int] =
    &[libc::IPPROTO_IP, libc::IPPROTO_ICMP, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMPV6];

/// What of AF_NETLINK: addresses and routes. Others lead to parts of the kernel that no box needs (netfilter, audit), or have modules
/// loaded by name (generic, sock_diag).
const OF_NETLINK: &[libc::c_int] = &[libc::NETLINK_ROUTE];

/// Orders to a terminal or socket (`ioctl`) for which a host's kernel loads a module, whoever gives them: TIOCSETD, and those of bridges and
/// VLANs, SIOC{G,S}IFBR, SIOCBR{ADD,DEL}{BR,IF} and SIOC{G,S}IFVLAN (include/uapi/linux/sockios.h).
const LOADING: &[u32] = &[0x5423, 0x8940, 0x8941, 0x89a0, 0x89a1, 0x89a2, 0x89a3, 0x8982, 0x8983];

/// The type of a socket, without flags (`SOCK_TYPE_MASK`, include/linux/net.h).
const TYPE: u32 = 0xf;

/// Families of sockets that a workload has nowhere: the host's lines, and frames that go to a card past what holds it to its rules.
const AROUND: &[libc::c_int] = &[libc::AF_VSOCK, libc::AF_XDP];

/// Options of raw sockets (packet(7)) that a workload has: about what such a socket hears, and in which form. Whatever else there is, or
/// a later kernel adds, may be about what it sends.
const OF_WHAT_IS_HEARD: &[libc::c_int] = &[
    libc::PACKET_ADD_MEMBERSHIP,
    libc::PACKET_DROP_MEMBERSHIP,
    libc::PACKET_RX_RING,
    libc::PACKET_COPY_THRESH,
    libc::PACKET_AUXDATA,
    libc::PACKET_ORIGDEV,
    libc::PACKET_VERSION,
    libc::PACKET_RESERVE,
    libc::PACKET_TIMESTAMP,
    libc::PACKET_FANOUT,
    libc::PACKET_FANOUT_DATA,
    libc::PACKET_IGNORE_OUTGOING,
];

impl Filter {
    fn refused(self) -> impl Iterator<Item = libc::c_long> {
        let more = match self {
            Self::Workload => PLACES,
            Self::OnHostKernel => OF_A_HOST,
        };
        KERNEL.iter().chain(more).copied()
    }

    /// Calls that are refused with any of these flags. A network of its own would make its owner the administrator of one.
    const fn refused_flags(self) -> &'static [(libc::c_long, libc::c_int)] {
        match self {
            Self::Workload => &[(libc::SYS_clone, libc::CLONE_NEWUSER)],
            Self::OnHostKernel => {
                &[(libc::SYS_clone, libc::CLONE_NEWUSER | libc::CLONE_NEWNET), (libc::SYS_unshare, libc::CLONE_NEWNET)]
            }
        }
    }
}

/// Installs a filter on the calling thread, for good, and for all its children. Filters add up.
///
/// # Errors
/// The kernel's; needs CAP_SYS_ADMIN, so it comes before capabilities are dropped.
pub fn install(filter: Filter) -> io::Result<()> {
    let filter = program(filter);
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points to `length` instructions that live through the call; the kernel copies and checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Numbers of system calls and address families are small and positive.
#[allow(clippy::cast_sign_loss)]
fn program(filter: Filter) -> Vec<sock_filter> {
    let mut program = vec![
        load(OFFSET_ARCH),
        jump(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0),
        refuse(libc::ENOSYS),
        load(OFFSET_NR),
        jump(BPF_JGE, UNKNOWN, 0, 1),
        refuse(libc::ENOSYS),
        jump(BPF_JEQ, libc::SYS_clone3 as u32, 0, 1),
        refuse(libc::ENOSYS),
    ];
    for number in filter.refused() {
        program.extend([jump(BPF_JEQ, number as u32, 0, 1), refuse(libc::EPERM)]);
    }
    for number in [libc::SYS_socket, libc::SYS_socketpair] {
        let sockets = match filter {
            Filter::Workload => {
                let refused = |family: &libc::c_int| [jump(BPF_JEQ, *family as u32, 0, 1), refuse(libc::EAFNOSUPPORT)];
                let mut all = vec![load(OFFSET_ARG0)];
                all.extend(AROUND.iter().flat_map(refused));
                all.push(give(ALLOW));
                all
            }
            Filter::OnHostKernel => sockets_on_host_kernel(),
        };
        program.push(jump(BPF_JEQ, number as u32, 0, sockets.len() as u8));
        program.extend(sockets);
    }
    if filter == Filter::Workload {
        let heard = |option: &libc::c_int| [jump(BPF_JEQ, *option as u32, 0, 1), give(ALLOW)];
        let mut options = vec![load(OFFSET_ARG1), jump(BPF_JEQ, libc::SOL_PACKET as u32, 1, 0), give(ALLOW)];
        options.push(load(OFFSET_ARG2));
        options.extend(OF_WHAT_IS_HEARD.iter().flat_map(heard));
        options.push(refuse(libc::EPERM));
        program.push(jump(BPF_JEQ, libc::SYS_setsockopt as u32, 0, options.len() as u8));
        program.extend(options);
    }
    if filter == Filter::OnHostKernel {
        let refused = |order: &u32| [jump(BPF_JEQ, *order, 0, 1), refuse(libc::EPERM)];
        let mut orders = vec![load(OFFSET_ARG1)];
        orders.extend(LOADING.iter().flat_map(refused));
        orders.push(give(ALLOW));
        program.push(jump(BPF_JEQ, libc::SYS_ioctl as u32, 0, orders.len() as u8));
        program.extend(orders);
    }
    for (number, flags) in filter.refused_flags() {
        program.extend([
            jump(BPF_JEQ, *number as u32, 0, 4),
            load(OFFSET_ARG0),
            jump(BPF_JSET, *flags as u32, 0, 1),
            refuse(libc::EPERM),
            give(ALLOW),
        ]);
    }
    program.push(give(ALLOW));
    program
}

/// What of `socket` and `socketpair` is left where the kernel is the host's: four families, for others would load modules there, or are
/// not a namespace's own. Always ends.
#[allow(clippy::cast_sign_loss)]
fn sockets_on_host_kernel() -> Vec<sock_filter> {
    let protocols = |all: &[libc::c_int]| {
        let one = |protocol: &libc::c_int| [jump(BPF_JEQ, *protocol as u32, 0, 1), give(ALLOW)];
        let mut program = vec![load(OFFSET_ARG2)];
        program.extend(all.iter().flat_map(one));
        program.push(refuse(libc::EPROTONOSUPPORT));
        program
    };
    let mut ip = vec![
        load(OFFSET_ARG1),
        statement(BPF_ALU | BPF_AND | BPF_K, TYPE),
        jump(BPF_JEQ, libc::SOCK_STREAM as u32, 2, 0),
        jump(BPF_JEQ, libc::SOCK_DGRAM as u32, 1, 0),
        refuse(libc::EPERM),
    ];
    ip.extend(protocols(OF_IP));
    let netlink = protocols(OF_NETLINK);
    let mut program = vec![load(OFFSET_ARG0)];
    program.push(jump(BPF_JEQ, libc::AF_INET as u32, 1, 0));
    program.push(jump(BPF_JEQ, libc::AF_INET6 as u32, 0, ip.len() as u8));
    program.extend(ip);
    program.push(jump(BPF_JEQ, libc::AF_NETLINK as u32, 0, netlink.len() as u8));
    program.extend(netlink);
    program.extend([jump(BPF_JEQ, libc::AF_UNIX as u32, 0, 1), give(ALLOW), refuse(libc::EAFNOSUPPORT)]);
    program
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn give(action: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, action)
}

fn refuse(errno: i32) -> sock_filter {
    give(ERRNO | errno.unsigned_abs())
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

    /// Calls of the x32 table have this bit.
    const X32_BIT: u32 = 0x4000_0000;

    /// Runs a filter on one call, as the kernel would.
    fn decide_by(filter: Filter, arch: u32, nr: u32, arg0: u32) -> u32 {
        decide_by_all(filter, arch, nr, [arg0, 0, 0])
    }

    fn decide_by_all(filter: Filter, arch: u32, nr: u32, arguments: [u32; 3]) -> u32 {
        let program = program(filter);
        let (mut at, mut accumulator) = (0_usize, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            if code == BPF_LD | BPF_W | BPF_ABS {
                accumulator = match step.k {
                    OFFSET_NR => nr,
                    OFFSET_ARCH => arch,
                    OFFSET_ARG0 => arguments[0],
                    OFFSET_ARG1 => arguments[1],
                    OFFSET_ARG2 => arguments[2],
                    other => panic!("loads {other}"),
                };
            } else if code == BPF_ALU | BPF_AND | BPF_K {
                accumulator &= step.k;
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

    fn decide(arch: u32, nr: u32, arg0: u32) -> u32 {
        decide_by(Filter::Workload, arch, nr, arg0)
    }

    fn native(nr: libc::c_long, arg0: i32) -> u32 {
        decide(AUDIT_ARCH_X86_64, nr as u32, arg0 as u32)
    }

    #[test]
    fn vsock_sockets_are_refused_and_others_are_not() {
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            for around in [libc::AF_VSOCK, libc::AF_XDP] {
                assert_eq!(native(call, around), ERRNO | libc::EAFNOSUPPORT as u32);
            }
            assert_eq!(native(call, libc::AF_INET), ALLOW);
            assert_eq!(native(call, libc::AF_UNIX), ALLOW);
        }
    }

    #[test]
    fn ways_around_the_socket_filter_are_refused() {
        assert_eq!(decide(0x4000_0003, 102, 1), ERRNO | libc::ENOSYS as u32, "the 32-bit table");
        assert_eq!(decide(AUDIT_ARCH_X86_64, X32_BIT + 41, 40), ERRNO | libc::ENOSYS as u32, "the x32 table");
        for call in [UNKNOWN, UNKNOWN + 1, 1000, X32_BIT - 1, u32::MAX] {
            for filter in [Filter::Workload, Filter::OnHostKernel] {
                let decided = decide_by(filter, AUDIT_ARCH_X86_64, call, 0);
                assert_eq!(decided, ERRNO | libc::ENOSYS as u32, "{call}, of a later kernel");
            }
        }
        // mseal, of Linux 6.10, and removexattrat of 6.13.
        assert_eq!([462, 466].map(|call| decide(AUDIT_ARCH_X86_64, call, 0)), [ALLOW; 2]);
        assert_eq!(native(libc::SYS_io_uring_setup, 1), ERRNO | libc::EPERM as u32);
    }

    #[test]
    fn no_raw_socket_sends_past_the_rules_of_the_card() {
        let set = |level: i32, option: i32| {
            let arguments = [9, level as u32, option as u32];
            decide_by_all(Filter::Workload, AUDIT_ARCH_X86_64, libc::SYS_setsockopt as u32, arguments)
        };
        let (none, later, last) = (0, 25, 64);
        for option in [
            libc::PACKET_QDISC_BYPASS,
            libc::PACKET_TX_RING,
            libc::PACKET_VNET_HDR,
            libc::PACKET_TX_HAS_OFF,
            libc::PACKET_LOSS,
            // PACKET_VNET_HDR_SZ
            24,
            none,
            later,
            -1,
        ] {
            assert_eq!(set(libc::SOL_PACKET, option), ERRNO | libc::EPERM as u32, "{option}");
        }
        for option in none..last {
            let heard = if OF_WHAT_IS_HEARD.contains(&option) { ALLOW } else { ERRNO | libc::EPERM as u32 };
            assert_eq!(set(libc::SOL_PACKET, option), heard, "{option}");
            assert_eq!(set(libc::SOL_SOCKET, option), ALLOW, "{option}");
        }
        assert_eq!(set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP), ALLOW);
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

    #[test]
    fn on_a_hosts_kernel_init_makes_places_and_reaches_nothing_of_the_hosts() {
        let init =
            |nr: libc::c_long, arg0: i32| decide_by(Filter::OnHostKernel, AUDIT_ARCH_X86_64, nr as u32, arg0 as u32);
        for call in PLACES.iter().chain(&[libc::SYS_seccomp, libc::SYS_execve, libc::SYS_clone]) {
            assert_eq!(init(*call, 0), ALLOW, "{call}");
        }
        for call in KERNEL.iter().chain(OF_A_HOST) {
            assert_eq!(init(*call, 0), ERRNO | libc::EPERM as u32, "{call}");
        }
        let made = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS;
        assert_eq!(init(libc::SYS_unshare, made), ALLOW);
        assert_eq!(init(libc::SYS_unshare, made | libc::CLONE_NEWNET), ERRNO | libc::EPERM as u32);
        for flag in [libc::CLONE_NEWNET, libc::CLONE_NEWUSER] {
            assert_eq!(init(libc::SYS_clone, flag), ERRNO | libc::EPERM as u32);
        }
        for family in [libc::AF_VSOCK, libc::AF_PACKET, libc::AF_ALG, libc::AF_CAN, libc::AF_XDP, -1] {
            for call in [libc::SYS_socket, libc::SYS_socketpair] {
                assert_eq!(init(call, family), ERRNO | libc::EAFNOSUPPORT as u32, "{family}");
            }
        }
        assert_eq!(decide_by(Filter::OnHostKernel, 0x4000_0003, 102, 1), ERRNO | libc::ENOSYS as u32, "32-bit table");
        assert_eq!(decide_by(Filter::OnHostKernel, AUDIT_ARCH_X86_64, X32_BIT, 0), ERRNO | libc::ENOSYS as u32, "x32");
    }

    #[test]
    fn on_a_hosts_kernel_a_socket_loads_no_module_and_is_none_of_a_card() {
        let errno = |number: i32| ERRNO | number as u32;
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            let made = |family: i32, of_type: i32, protocol: i32| {
                let arguments = [family as u32, of_type as u32, protocol as u32];
                decide_by_all(Filter::OnHostKernel, AUDIT_ARCH_X86_64, call as u32, arguments)
            };
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            for family in [libc::AF_INET, libc::AF_INET6] {
                for of_type in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_STREAM | flags] {
                    for protocol in -1..512 {
                        let known = [0, 1, 6, 17, 58].contains(&protocol);
                        let expected = if known { ALLOW } else { errno(libc::EPROTONOSUPPORT) };
                        assert_eq!(made(family, of_type, protocol), expected, "{family} {of_type} {protocol}");
                    }
                }
                // Raw ones, and what the kernel takes for AF_PACKET.
                let (packet, last) = (0xa, 0xf);
                for of_type in [libc::SOCK_RAW, packet, packet | flags, libc::SOCK_SEQPACKET, libc::SOCK_DCCP, 0, last]
                {
                    assert_eq!(made(family, of_type, 0), errno(libc::EPERM), "{family} {of_type}");
                }
            }
            for protocol in -1..64 {
                let expected = if protocol == libc::NETLINK_ROUTE { ALLOW } else { errno(libc::EPROTONOSUPPORT) };
                assert_eq!(made(libc::AF_NETLINK, libc::SOCK_RAW | flags, protocol), expected, "{protocol}");
            }
            assert_eq!(made(libc::AF_UNIX, libc::SOCK_SEQPACKET | flags, 0), ALLOW);
            let four = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
            for family in (-1..64).filter(|family| !four.contains(family)) {
                assert_eq!(made(family, libc::SOCK_STREAM, 0), errno(libc::EAFNOSUPPORT), "{family}");
            }
        }
    }

    #[test]
    fn on_a_hosts_kernel_no_order_to_a_terminal_or_socket_loads_a_module() {
        let ordered = |order: u32| {
            let call = libc::SYS_ioctl as u32;
            decide_by_all(Filter::OnHostKernel, AUDIT_ARCH_X86_64, call, [3, order, 0])
        };
        for order in LOADING.iter().chain(&[libc::TIOCSETD as u32]) {
            assert_eq!(ordered(*order), ERRNO | libc::EPERM as u32, "{order:#x}");
        }
        for order in [libc::TIOCGWINSZ, libc::TIOCSCTTY, libc::FIONREAD, libc::SIOCGIFADDR, libc::SIOCSIFFLAGS] {
            assert_eq!(ordered(order as u32), ALLOW, "{order:#x}");
        }
    }
}
