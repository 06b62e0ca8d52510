//! Guest memory: ours to map, KVM's to use.
//!
//! Source: KVM API §4.35; madvise(2).

use kvm_bindings::kvm_userspace_memory_region;
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
    for region in memory.iter() {
        for advice in [libc::MADV_HUGEPAGE, libc::MADV_DONTDUMP] {
            // SAFETY: the range is one mapping, which `memory` owns; advice changes none of its contents. That a kernel
            // knows no such advice is no error.
            unsafe { libc::madvise(region.as_ptr().cast(), region.len() as usize, advice) };
        }
    }
    Ok(memory)
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
