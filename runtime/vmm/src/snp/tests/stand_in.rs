//! KVM, with a machine of type KVM_X86_SW_PROTECTED_VM in an SEV-SNP machine's place: all of a launch is done but what only a
//! secure processor can do.
//!
//! Private memory there is nobody's but the guest's, and no firmware writes the first of it. So what a launch puts in place
//! goes to the shared copy, and what the guest is to run has to be shared.

use std::fs::File;

use coffer_machine::map::{PAGE, PAGE_TABLES_GPA};
use coffer_machine::page_tables::page_tables;
use kvm_bindings::{KVM_CAP_VM_TYPES, KVM_X86_SNP_VM, KVM_X86_SW_PROTECTED_VM};
use kvm_ioctls::Kvm;
use vm_memory::{Bytes as _, GuestAddress};

use super::super::host::{Finish, Host, Page, PageKind, Refused, kvm_cpuid_entry2, kvm_regs, kvm_sregs};
use super::super::kvm::KvmHost;
use crate::Memory;

/// The host.
pub struct StandIn {
    /// KVM, which does all that is not said otherwise here.
    pub kvm: KvmHost,
    shared: &'static Memory,
    /// Pages it was given to measure.
    pub measured: usize,
}

impl StandIn {
    /// With this memory for what is shared; `None` where KVM has no such machines.
    pub fn new(shared: &'static Memory) -> Option<Self> {
        let system = Kvm::new().ok()?;
        let types = system.check_extension_raw(KVM_CAP_VM_TYPES.into());
        (types >> KVM_X86_SW_PROTECTED_VM & 1 == 1).then(|| Self {
            kvm: KvmHost::new(system, shared),
            shared,
            measured: 0,
        })
    }
}

impl Host for StandIn {
    fn capability(&self, which: u32) -> i32 {
        let stands_in = if which == KVM_CAP_VM_TYPES { 1 << KVM_X86_SNP_VM } else { 0 };
        self.kvm.capability(which) | stands_in
    }

    fn attribute(&self, group: u32, which: u64) -> Option<u64> {
        self.kvm.attribute(group, which)
    }

    /// And what an SEV-SNP processor says of itself: the page for the guest is not made without.
    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Refused> {
        let mut all = self.kvm.supported_cpuid()?;
        all.retain(|entry| entry.function != SEV);
        all.push(kvm_cpuid_entry2 { function: SEV, eax: 0x1A, ebx: 51, ..Default::default() });
        Ok(all)
    }

    fn create_machine(&mut self, kind: u64) -> Result<(), Refused> {
        assert_eq!(kind, u64::from(KVM_X86_SNP_VM));
        self.kvm.create_machine(KVM_X86_SW_PROTECTED_VM.into())
    }

    fn exit_on_hypercalls(&mut self, which: u64) -> Result<(), Refused> {
        self.kvm.exit_on_hypercalls(which)
    }

    fn open_secure_processor(&mut self) -> Result<(), Refused> {
        self.kvm.secure_processor = Some(File::open("/dev/null").map_err(|_| Refused::by_kernel(libc::ENOENT))?);
        Ok(())
    }

    fn initialise(&mut self, _: u64, _: u16) -> Result<(), Refused> {
        Ok(())
    }

    fn create_interrupt_controllers(&mut self) -> Result<(), Refused> {
        self.kvm.create_interrupt_controllers()
    }

    fn create_timer(&mut self) -> Result<(), Refused> {
        self.kvm.create_timer()
    }

    fn create_guest_memory(&mut self, bytes: u64, flags: u64) -> Result<(), Refused> {
        self.kvm.create_guest_memory(bytes, flags)
    }

    /// But for the last page, which is memory by its address and is in no slot.
    fn set_slot(&mut self, slot: u32, gpa: u64, bytes: u64, offset: u64) -> Result<(), Refused> {
        self.kvm.set_slot(slot, gpa, bytes - PAGE as u64, offset)
    }

    fn set_attributes(&mut self, address: u64, size: u64, attributes: u64) -> Result<(), Refused> {
        self.kvm.set_attributes(address, size, attributes)
    }

    fn create_processor(&mut self, id: u32) -> Result<(), Refused> {
        self.kvm.create_processor(id)
    }

    fn set_cpuid(&mut self, id: u32, entries: &[kvm_cpuid_entry2]) -> Result<(), Refused> {
        self.kvm.set_cpuid(id, entries)
    }

    fn system_registers(&self, id: u32) -> Result<kvm_sregs, Refused> {
        self.kvm.system_registers(id)
    }

    /// Without the C-bit, which is an address bit that no other processor has.
    fn set_system_registers(&mut self, id: u32, registers: &kvm_sregs) -> Result<(), Refused> {
        self.kvm.set_system_registers(id, &kvm_sregs { cr3: PAGE_TABLES_GPA, ..*registers })
    }

    fn set_registers(&mut self, id: u32, registers: &kvm_regs) -> Result<(), Refused> {
        self.kvm.set_registers(id, registers)
    }

    fn start(&mut self, _: u64) -> Result<(), Refused> {
        Ok(())
    }

    fn update(&mut self, gpa: u64, _: PageKind, pages: &mut [Page]) -> Result<u64, Refused> {
        let mut bytes = pages.iter().flat_map(|page| page.0).collect::<Vec<_>>();
        if gpa == PAGE_TABLES_GPA {
            bytes = page_tables(false).to_vec();
        }
        self.shared.write_slice(&bytes, GuestAddress(gpa)).map_err(|_| Refused::by_kernel(libc::EFAULT))?;
        self.measured += pages.len();
        Ok(0)
    }

    fn finish(&mut self, _: &Finish) -> Result<(), Refused> {
        Ok(())
    }
}

/// Leaf of what encrypts memory.
const SEV: u32 = 0x8000_001F;
