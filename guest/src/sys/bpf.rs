//! Programs of the kernel's own machine (eBPF): maps, loading, and links that hold a program to a network card.
//!
//! What is made here lives as long as its descriptor: a map, a program, and a link, which nobody takes away while it is held (tcx links are
//! not replaced through netlink, and detached through their descriptor alone).
//!
//! Source: bpf(2); Linux include/uapi/linux/bpf.h, `union bpf_attr`, of 6.6 and later.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::card::{Direction, Instruction};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_LRU_HASH: u32 = 9;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// Of `union bpf_attr`, what `BPF_MAP_CREATE` reads.
#[repr(C)]
struct map_create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}
const _: () = assert!(size_of::<map_create>() == 44);

/// What `BPF_MAP_*_ELEM` read.
#[repr(C)]
struct map_elem {
    map_fd: u32,
    key: u64,
    value: u64,
    flags: u64,
}
const _: () = assert!(size_of::<map_elem>() == 32);

/// What `BPF_PROG_LOAD` reads.
#[repr(C)]
struct prog_load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}
const _: () = assert!(size_of::<prog_load>() == 72);

/// What `BPF_LINK_CREATE` reads.
#[repr(C)]
struct link_create {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    /// Before or after which other; none.
    relative_fd: u32,
    padding: u32,
    expected_revision: u64,
}
const _: () = assert!(size_of::<link_create>() == 32);

/// One call.
///
/// # Safety
/// Addresses in `attributes` lead to live memory of the lengths that they say, which the kernel may write to where the command does.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` lives through the call and has the size that is given; what it points to is the caller's word.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = libc::c_int::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel gave it a moment ago, closed on exec, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: &impl AsRawFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A map that programs share.
#[derive(Debug)]
pub struct Map(OwnedFd);

impl Map {
    /// Numbers of 64 bits, each 0 at first, found by their index of 32.
    ///
    /// # Errors
    /// The kernel's.
    pub fn counters(count: u32) -> io::Result<Self> {
        Self::new(BPF_MAP_TYPE_ARRAY, 4, count)
    }

    /// Numbers of 64 bits by keys of `key` bytes; who was not looked at for longest goes where there are too many.
    ///
    /// # Errors
    /// The kernel's.
    pub fn recent(key: u32, most: u32) -> io::Result<Self> {
        Self::new(BPF_MAP_TYPE_LRU_HASH, key, most)
    }

    fn new(map_type: u32, key_size: u32, max_entries: u32) -> io::Result<Self> {
        let (map_flags, inner_map_fd, numa_node, map_name) = (0, 0, 0, *b"coffer_card\0\0\0\0\0");
        let value_size = 8;
        let attributes =
            map_create { map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name };
        // SAFETY: there is no address among them.
        descriptor(unsafe { bpf(BPF_MAP_CREATE, &attributes) }?).map(Self)
    }

    /// As programs name it.
    pub fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// A counter.
    ///
    /// # Errors
    /// The kernel's, `ENOENT` for one that is none.
    pub fn counter(&self, index: u32) -> io::Result<u64> {
        let mut value = 0_u64;
        let attributes = map_elem {
            map_fd: number(&self.0),
            key: (&raw const index) as u64,
            value: (&raw mut value) as u64,
            flags: 0,
        };
        // SAFETY: a map of counters has keys of 4 bytes and values of 8, which is what the two are; they live through the call.
        unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &attributes) }?;
        Ok(value)
    }
}

/// A program that the kernel has judged and taken, for frames at a card.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Loads one for a direction. Needs CAP_BPF and CAP_NET_ADMIN.
    ///
    /// # Errors
    /// The kernel's: `EACCES` or `EINVAL` for one that its verifier refuses.
    pub fn load(instructions: &[Instruction], direction: Direction) -> io::Result<Self> {
        let attributes = prog_load {
            prog_type: BPF_PROG_TYPE_SCHED_CLS,
            insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
            insns: instructions.as_ptr() as u64,
            // No function that asks for another one is called.
            license: c"Apache-2.0".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
            prog_name: *b"coffer_card\0\0\0\0\0",
            prog_ifindex: 0,
            expected_attach_type: attach_type(direction),
        };
        // SAFETY: `insns` leads to `insn_cnt` instructions of the kernel's own form and `license` to a terminated text; the kernel reads
        // both and writes to neither.
        descriptor(unsafe { bpf(BPF_PROG_LOAD, &attributes) }?).map(Self)
    }

    /// Holds every frame of that direction at a card to the program, for as long as the link is held.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(&self, card: u32, direction: Direction) -> io::Result<Link> {
        let attributes = link_create {
            prog_fd: number(&self.0),
            target_ifindex: card,
            attach_type: attach_type(direction),
            flags: 0,
            relative_fd: 0,
            padding: 0,
            expected_revision: 0,
        };
        // SAFETY: there is no address among them.
        descriptor(unsafe { bpf(BPF_LINK_CREATE, &attributes) }?).map(Link)
    }
}

/// A program at a card. Dropped, it is there no more.
#[derive(Debug)]
pub struct Link(#[allow(dead_code, reason = "what the kernel holds the program by")] OwnedFd);

const fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::In => BPF_TCX_INGRESS,
        Direction::Out => BPF_TCX_EGRESS,
    }
}

/// What the kernel's own trial of programs needs beside.
#[cfg(test)]
pub(crate) mod trial {
    use super::{Map, Program, bpf, map_elem, number};
    use std::io;

    const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
    const BPF_PROG_TEST_RUN: libc::c_int = 10;

    /// What `BPF_PROG_TEST_RUN` reads.
    #[repr(C)]
    struct test_run {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        padding: u32,
    }
    const _: () = assert!(size_of::<test_run>() == 80);

    /// Puts the calling thread into a network that is nobody else's.
    pub fn network_of_its_own() -> io::Result<()> {
        // SAFETY: a network is a thread's own to leave; no descriptor of this process means another thing in the new one.
        Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?)
    }

    impl Program {
        /// What it gives for a frame.
        pub fn try_on(&self, frame: &[u8]) -> io::Result<u32> {
            let mut attributes = test_run {
                prog_fd: number(&self.0),
                retval: 0,
                data_size_in: frame.len() as u32,
                data_size_out: 0,
                data_in: frame.as_ptr() as u64,
                data_out: 0,
                repeat: 1,
                duration: 0,
                ctx_size_in: 0,
                ctx_size_out: 0,
                ctx_in: 0,
                ctx_out: 0,
                flags: 0,
                cpu: 0,
                batch_size: 0,
                padding: 0,
            };
            let at = &raw mut attributes;
            // SAFETY: `data_in` leads to `data_size_in` bytes, which the kernel copies; it writes to `attributes` itself, which is read
            // only after the call.
            unsafe {
                let size = size_of::<test_run>();
                if libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, at, size) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(attributes.retval)
        }
    }

    impl Map {
        /// Writes a number under a key of eight bytes.
        pub fn put(&self, key: &[u8; 8], value: u64) -> io::Result<()> {
            let attributes = map_elem {
                map_fd: number(&self.0),
                key: key.as_ptr() as u64,
                value: (&raw const value) as u64,
                flags: 0,
            };
            // SAFETY: the maps that are written to here have keys and values of 8 bytes, which live through the call.
            unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attributes) }.map(drop)
        }
    }
}
