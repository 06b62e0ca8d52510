//! One page of guest-physical memory outside System RAM, through `/dev/mem`.

use std::{io, os::fd::OwnedFd, ptr::NonNull};

use rustix::{
    fs::{Mode, OFlags},
    mm::{MapFlags, ProtFlags},
};

const PAGE: usize = 4096;

/// Copies one page out of guest-physical memory, then fills it with zeros, so that it can be read once.
///
/// `address`: guest-physical, a multiple of 4096, not System RAM (the kernel refuses that).
///
/// # Errors
/// The kernel's, where `/dev/mem` is absent or refuses the address.
pub fn take_page(address: u64) -> io::Result<Box<[u8; PAGE]>> {
    let memory: OwnedFd = rustix::fs::open("/dev/mem", OFlags::RDWR | OFlags::SYNC | OFlags::CLOEXEC, Mode::empty())?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping where the kernel chooses; nothing of ours lies there.
    let start =
        unsafe { rustix::mm::mmap(core::ptr::null_mut(), PAGE, protection, MapFlags::SHARED, &memory, address)? };
    let Some(start) = NonNull::new(start.cast::<u8>()) else { return Err(io::ErrorKind::AddrNotAvailable.into()) };
    let mut copy = Box::new([0_u8; PAGE]);
    for (offset, byte) in copy.iter_mut().enumerate() {
        // SAFETY: `offset` is below PAGE, the length of the mapping, which is live and readable and writable until the
        // munmap below; volatile, because the memory is not ours alone.
        unsafe {
            let place = start.as_ptr().add(offset);
            *byte = place.read_volatile();
            place.write_volatile(0);
        }
    }
    // SAFETY: the mapping made above, not used after this.
    unsafe { rustix::mm::munmap(start.as_ptr().cast(), PAGE)? };
    Ok(copy)
}
