//! Guest memory: ours to map, KVM's to use.
//!
//! Source: KVM API §4.35, §4.140 (KVM_SET_USER_MEMORY_REGION2), §4.142 (KVM_CREATE_GUEST_MEMFD); madvise(2).

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use kvm_bindings::{
    KVM_MEM_GUEST_MEMFD, kvm_create_guest_memfd, kvm_userspace_memory_region, kvm_userspace_memory_region2,
};
use kvm_ioctls::VmFd;
use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _};

use crate::Memory;

/// Memory of zeros from address 0, taken from the host where it is touched, in large pages where it has them, and in no
/// core dump.
///
/// # Errors
/// If there is none.
pub fn allocate(bytes: usize) -> Result<Memory, vm_memory::mmap::FromRangesError> {
    let memory = Memory::from_ranges(&[(GuestAddress(0), bytes)])?;
    advise(&memory, libc::MADV_HUGEPAGE);
    advise(&memory, libc::MADV_DONTDUMP);
    Ok(memory)
}

/// From here on no page is larger than it has to be: what one access touches is all that is held.
pub fn in_small_pages(memory: &Memory) {
    advise(memory, libc::MADV_NOHUGEPAGE);
}

fn advise(memory: &Memory, advice: libc::c_int) {
    for region in memory.iter() {
        // SAFETY: the range is one mapping, which `memory` owns; advice of these kinds changes none of its contents. That a
        // kernel knows no such advice is no error.
        unsafe { libc::madvise(region.as_ptr().cast(), region.len() as usize, advice) };
    }
}

/// Gives all of it to a machine. The memory has to live as long as the machine does.
///
/// # Errors
/// If KVM does not take it.
pub fn give(vm: &VmFd, memory: &'static Memory) -> Result<(), kvm_ioctls::Error> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the range is mapped for as long as the process lives, by the lifetime of the reference, and is used by
        // nobody but through volatile accesses.
        unsafe { vm.set_user_memory_region(region)? };
    }
    Ok(())
}

/// Memory that only a guest of this machine maps.
///
/// # Errors
/// If KVM has none.
pub fn create_private(vm: &VmFd, size: u64, flags: u64) -> Result<OwnedFd, kvm_ioctls::Error> {
    let made = vm.create_guest_memfd(kvm_create_guest_memfd { size, flags, ..Default::default() })?;
    // SAFETY: a descriptor that the kernel has just made for us, and nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Gives a slot (number, address, bytes, offset in private memory) its shared pages from `shared` and its private ones from
/// `private`. The shared memory has to live as long as the machine does.
///
/// # Errors
/// If KVM does not take it, or there is not as much shared memory.
pub fn give_both(
    vm: &VmFd,
    shared: &'static Memory,
    private: &OwnedFd,
    (slot, guest_phys_addr, memory_size, guest_memfd_offset): (u32, u64, u64, u64),
) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_userspace_memory_region2 {
        slot,
        flags: KVM_MEM_GUEST_MEMFD,
        guest_phys_addr,
        memory_size,
        userspace_addr: host_address(shared, guest_phys_addr, memory_size)
            .ok_or(kvm_ioctls::Error::new(libc::EFAULT))?,
        guest_memfd_offset,
        guest_memfd: private.as_raw_fd().cast_unsigned(),
        ..Default::default()
    };
    // SAFETY: the range is mapped for as long as the process lives, by the lifetime of the reference, and is used by nobody
    // but through volatile accesses.
    unsafe { vm.set_user_memory_region2(region) }
}

/// Gives pages back to the host; what is read there later is zeros.
///
/// # Errors
/// If they are not all guest memory, or as the kernel's.
pub fn give_back(memory: &Memory, start: u64, bytes: u64) -> io::Result<()> {
    let address = host_address(memory, start, bytes).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: the range lies in one private anonymous mapping, which `memory` owns; Rust holds no reference into it, and who
    // reads it through a volatile access reads zeros from then on.
    let done = unsafe { libc::madvise(address as *mut libc::c_void, bytes as usize, libc::MADV_DONTNEED) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where a range of guest memory is mapped; `None` if it is not all one region's.
fn host_address(memory: &Memory, start: u64, bytes: u64) -> Option<u64> {
    let region = memory.find_region(GuestAddress(start))?;
    let offset = start - region.start_addr().0;
    let fits = bytes <= region.len() - offset;
    fits.then(|| region.as_ptr() as u64 + offset)
}
