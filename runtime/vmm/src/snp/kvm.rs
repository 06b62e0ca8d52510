//! A launch on KVM.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use coffer_machine::memory::Ram;
use kvm_bindings::{
    CpuId, KVM_CAP_EXIT_HYPERCALL, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap, kvm_memory_attributes, kvm_pit_config,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use super::PrivateMemory;
use super::host::{Finish, Host, Page, PageKind, Refused, kvm_cpuid_entry2, kvm_regs, kvm_sregs};
use crate::{Memory, sys};

/// KVM, and what is made with it step by step.
#[derive(Debug)]
pub struct KvmHost {
    system: Kvm,
    shared: &'static Memory,
    vm: Option<VmFd>,
    pub(super) secure_processor: Option<File>,
    memory: Option<OwnedFd>,
    processors: Vec<VcpuFd>,
}

impl KvmHost {
    /// With this memory for what is shared.
    pub const fn new(system: Kvm, shared: &'static Memory) -> Self {
        Self { system, shared, vm: None, secure_processor: None, memory: None, processors: Vec::new() }
    }

    /// What a finished launch leaves; `None` before.
    pub fn made(self, ram: Ram) -> Option<(VmFd, Vec<VcpuFd>, PrivateMemory)> {
        let (memory, secure_processor) = (self.memory?, self.secure_processor?);
        Some((self.vm?, self.processors, PrivateMemory { ram, memory, secure_processor, changing: Mutex::default() }))
    }

    fn vm(&self) -> Result<&VmFd, Refused> {
        self.vm.as_ref().ok_or(UNMADE)
    }

    fn processor(&self, id: u32) -> Result<&VcpuFd, Refused> {
        self.processors.get(id as usize).ok_or(UNMADE)
    }

    /// The machine, and the descriptor of the secure processor.
    fn both(&self) -> Result<(&VmFd, &File), Refused> {
        Ok((self.vm()?, self.secure_processor.as_ref().ok_or(UNMADE)?))
    }
}

/// What is asked for was not made yet: a defect of the order.
const UNMADE: Refused = Refused::by_kernel(libc::EBADF);

fn kernel<T>(done: Result<T, kvm_ioctls::Error>) -> Result<T, Refused> {
    done.map_err(|error| Refused::by_kernel(error.errno()))
}

impl Host for KvmHost {
    fn capability(&self, which: u32) -> i32 {
        self.system.check_extension_raw(which.into())
    }

    fn attribute(&self, group: u32, which: u64) -> Option<u64> {
        sys::sev::attribute(&self.system, group, which)
    }

    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Refused> {
        kernel(self.system.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)).map(|all| all.as_slice().to_vec())
    }

    fn create_machine(&mut self, kind: u64) -> Result<(), Refused> {
        self.vm = Some(kernel(self.system.create_vm_with_type(kind))?);
        Ok(())
    }

    fn exit_on_hypercalls(&mut self, which: u64) -> Result<(), Refused> {
        let cap = KVM_CAP_EXIT_HYPERCALL;
        kernel(self.vm()?.enable_cap(&kvm_enable_cap { cap, args: [which, 0, 0, 0], ..Default::default() }))
    }

    fn open_secure_processor(&mut self) -> Result<(), Refused> {
        let opened = File::options().read(true).write(true).open("/dev/sev");
        let errno = |error: std::io::Error| Refused::by_kernel(error.raw_os_error().unwrap_or(libc::EIO));
        self.secure_processor = Some(opened.map_err(errno)?);
        Ok(())
    }

    fn initialise(&mut self, vmsa_features: u64, ghcb_version: u16) -> Result<(), Refused> {
        let (vm, firmware) = self.both()?;
        sys::sev::initialise(vm, firmware, vmsa_features, ghcb_version)
    }

    fn create_interrupt_controllers(&mut self) -> Result<(), Refused> {
        kernel(self.vm()?.create_irq_chip())
    }

    fn create_timer(&mut self) -> Result<(), Refused> {
        kernel(self.vm()?.create_pit2(kvm_pit_config::default()))
    }

    fn create_guest_memory(&mut self, bytes: u64, flags: u64) -> Result<(), Refused> {
        self.memory = Some(kernel(sys::memory::create_private(self.vm()?, bytes, flags))?);
        Ok(())
    }

    fn set_slot(&mut self, slot: u32, gpa: u64, bytes: u64, offset: u64) -> Result<(), Refused> {
        let memory = self.memory.as_ref().ok_or(UNMADE)?;
        kernel(sys::memory::give_both(self.vm()?, self.shared, memory, (slot, gpa, bytes, offset)))
    }

    fn set_attributes(&mut self, address: u64, size: u64, attributes: u64) -> Result<(), Refused> {
        kernel(self.vm()?.set_memory_attributes(kvm_memory_attributes { address, size, attributes, flags: 0 }))
    }

    fn create_processor(&mut self, id: u32) -> Result<(), Refused> {
        let processor = kernel(self.vm()?.create_vcpu(id.into()))?;
        self.processors.push(processor);
        Ok(())
    }

    fn set_cpuid(&mut self, id: u32, entries: &[kvm_cpuid_entry2]) -> Result<(), Refused> {
        let entries = CpuId::from_entries(entries).map_err(|_| Refused::by_kernel(libc::E2BIG))?;
        kernel(self.processor(id)?.set_cpuid2(&entries))
    }

    fn system_registers(&self, id: u32) -> Result<kvm_sregs, Refused> {
        kernel(self.processor(id)?.get_sregs())
    }

    fn set_system_registers(&mut self, id: u32, registers: &kvm_sregs) -> Result<(), Refused> {
        kernel(self.processor(id)?.set_sregs(registers))
    }

    fn set_registers(&mut self, id: u32, registers: &kvm_regs) -> Result<(), Refused> {
        kernel(self.processor(id)?.set_regs(registers))
    }

    fn start(&mut self, policy: u64) -> Result<(), Refused> {
        let (vm, firmware) = self.both()?;
        sys::sev::start(vm, firmware, policy)
    }

    fn update(&mut self, gpa: u64, kind: PageKind, pages: &mut [Page]) -> Result<u64, Refused> {
        let (vm, firmware) = self.both()?;
        sys::sev::update(vm, firmware, gpa, kind, pages)
    }

    fn finish(&mut self, finish: &Finish) -> Result<(), Refused> {
        let (vm, firmware) = self.both()?;
        sys::sev::finish(vm, firmware, finish)
    }
}

#[cfg(test)]
mod tests {
    use coffer_machine::memory::Range;
    use kvm_bindings::{KVM_CAP_GUEST_MEMFD, KVM_CAP_VM_TYPES, KVM_X86_SW_PROTECTED_VM};
    use vm_memory::{Bytes as _, GuestAddress};

    use super::super::page_state::{Change, State};
    use super::*;

    const BYTES: u64 = 4 << 20;

    /// On the KVM of this machine, as far as it goes: none of it is SEV-SNP. A kernel with KVM_SW_PROTECTED_VM does all but
    /// the commands of the secure processor.
    #[test]
    fn private_memory_is_made_given_and_changed_where_kvm_has_some() {
        let Ok(system) = Kvm::new() else { return eprintln!("skipped: there is no /dev/kvm") };
        if system.check_extension_raw(KVM_CAP_GUEST_MEMFD.into()) <= 0 {
            return eprintln!("skipped: KVM has no guest_memfd");
        }
        let protected = system.check_extension_raw(KVM_CAP_VM_TYPES.into()) >> KVM_X86_SW_PROTECTED_VM & 1 == 1;
        let shared: &'static Memory = Box::leak(Box::new(sys::memory::allocate(BYTES as usize).unwrap()));
        let mut host = KvmHost::new(system, shared);
        assert_eq!(host.create_guest_memory(BYTES, 0), Err(UNMADE), "there is no machine yet");
        host.create_machine(u64::from(protected) * u64::from(KVM_X86_SW_PROTECTED_VM)).unwrap();
        assert_eq!(host.set_slot(0, 0, BYTES, 0), Err(UNMADE), "there is no private memory yet");
        host.create_guest_memory(BYTES, 0).unwrap();
        assert_eq!(host.set_slot(0, 0, 2 * BYTES, 0), Err(Refused::by_kernel(libc::EFAULT)), "more than there is");
        let given = host.set_slot(0, 0, BYTES, 0);
        let set = host.set_attributes(0, BYTES, 8);
        assert_eq!(host.start(0x3_0000), Err(UNMADE), "the secure processor is not open");
        host.secure_processor = Some(File::open("/dev/null").unwrap());
        for refused in
            [host.initialise(0, 0), host.start(0x3_0000), host.update(0, PageKind::Zero, &mut [Page::ZERO]).map(drop)]
        {
            let refused = refused.unwrap_err();
            assert!(refused.errno != 0 && refused.firmware.is_none(), "{refused:?}");
        }
        if !protected {
            assert!(set.is_err(), "{set:?}");
            return eprintln!("as far as this KVM goes: {given:?} {set:?}");
        }
        given.unwrap();
        set.unwrap();
        let (vm, _, private) = host.made(Ram { end: BYTES }).unwrap();
        shared.write_slice(&[7; 0x2000], GuestAddress(0x1000)).unwrap();
        let change = |to| private.change(&vm, shared, Change { range: Range { start: 0x1000, end: 0x2000 }, to });
        change(State::Shared).unwrap();
        let mut bytes = [0; 0x2000];
        shared.read_slice(&mut bytes, GuestAddress(0x1000)).unwrap();
        assert_eq!(bytes, [7; 0x2000], "what is shared stays");
        change(State::Private).unwrap();
        shared.read_slice(&mut bytes, GuestAddress(0x1000)).unwrap();
        assert!(bytes[..0x1000].iter().all(|byte| *byte == 0) && bytes[0x1000..].iter().all(|byte| *byte == 7));
    }
}
