//! Pages that change hands while the guest runs.
//!
//! Attributes first, then the copy that is no longer anybody's: a private page's in guest memory is punched out, a shared
//! one's in the host's memory is given back. Otherwise a guest that changes pages to and fro holds both. One change
//! after the other, whichever processors ask.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use coffer_machine::memory::{Ram, Range};
use kvm_bindings::{KVM_MEMORY_ATTRIBUTE_PRIVATE, kvm_memory_attributes};
use kvm_ioctls::VmFd;
use rustix::fs::{FallocateFlags, fallocate};

use super::page_state::{Change, State};
use crate::{Memory, sys};

/// What an SEV-SNP guest has beside other guests: memory of its own, and the way to the firmware.
#[derive(Debug)]
pub struct PrivateMemory {
    /// Where it ends.
    pub ram: Ram,
    /// Guest memory, from address 0.
    pub memory: OwnedFd,
    /// KVM asks the firmware through it, for reports and keys; closed, the guest gets none.
    pub secure_processor: File,
    /// Held by whoever changes pages: between its two steps another processor's change of the same pages would lose one.
    pub changing: Mutex<()>,
}

impl PrivateMemory {
    /// Does a change.
    ///
    /// # Errors
    /// As the kernel's; the guest's memory is in an unknown state then.
    pub fn change(&self, vm: &VmFd, shared: &Memory, change: Change) -> io::Result<()> {
        let Change { range: Range { start, end }, to } = change;
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let size = end - start;
        let private = to == State::Private;
        let attributes = u64::from(private) * u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE);
        vm.set_memory_attributes(kvm_memory_attributes { address: start, size, attributes, flags: 0 })?;
        if private { sys::memory::give_back(shared, start, size) } else { punch(&self.memory, start, size) }
    }
}

/// Frees a range of guest memory; what is read there later is zeros.
///
/// # Errors
/// As the kernel's.
pub fn punch(memory: &OwnedFd, start: u64, size: u64) -> io::Result<()> {
    Ok(fallocate(memory, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, size)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use vm_memory::{Bytes as _, GuestAddress};

    use super::*;

    #[test]
    fn a_hole_frees_what_was_there_and_the_rest_stays() {
        let memory: OwnedFd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(memory.try_clone().unwrap());
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 0x4000], 0).unwrap();
        let before = file.metadata().unwrap().blocks();
        punch(&memory, 0x1000, 0x2000).unwrap();
        let after = file.metadata().unwrap();
        assert_eq!((after.len(), before - after.blocks()), (0x4000, 16));
        let mut bytes = [9; 0x4000];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert!(bytes[..0x1000].iter().chain(&bytes[0x3000..]).all(|byte| *byte == 7));
        assert!(bytes[0x1000..0x3000].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn memory_that_is_given_back_is_zero_and_the_rest_stays() {
        let memory = sys::memory::allocate(1 << 20).unwrap();
        memory.write_slice(&[7; 0x4000], GuestAddress(0x1_0000)).unwrap();
        sys::memory::give_back(&memory, 0x1_1000, 0x2000).unwrap();
        let mut bytes = [9; 0x4000];
        memory.read_slice(&mut bytes, GuestAddress(0x1_0000)).unwrap();
        assert!(bytes[..0x1000].iter().chain(&bytes[0x3000..]).all(|byte| *byte == 7));
        assert!(bytes[0x1000..0x3000].iter().all(|byte| *byte == 0));
        assert!(sys::memory::give_back(&memory, 1 << 20, 0x1000).is_err(), "not its memory");
        assert!(sys::memory::give_back(&memory, (1 << 20) - 0x1000, 0x2000).is_err(), "not all of it its memory");
    }
}
