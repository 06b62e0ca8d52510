//! A host that records every call, for the tests of the launch here and for the one beside `coffer measure` in tests/tests.

use std::cell::RefCell;

use coffer_vmm::snp::firmware::Status;
use coffer_vmm::snp::host::{Finish, Host, Page, PageKind, Refused, kvm_cpuid_entry2, kvm_regs, kvm_sregs};

/// A call with all that it was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    CheckExtension(u32),
    GetDeviceAttr { group: u32, which: u64 },
    GetSupportedCpuid,
    CreateVm(u64),
    ExitHypercall(u64),
    OpenSev,
    Init2 { vmsa_features: u64, ghcb_version: u16 },
    CreateIrqchip,
    CreatePit2,
    CreateGuestMemfd { bytes: u64, flags: u64 },
    SetUserMemoryRegion2 { slot: u32, gpa: u64, bytes: u64, offset: u64 },
    SetMemoryAttributes { gpa: u64, bytes: u64, attributes: u64 },
    CreateVcpu(u32),
    SetCpuid2 { id: u32, entries: Vec<kvm_cpuid_entry2> },
    GetSregs(u32),
    SetSregs { id: u32, registers: Box<kvm_sregs> },
    SetRegs { id: u32, registers: Box<kvm_regs> },
    LaunchStart { policy: u64 },
    LaunchUpdate { gpa: u64, kind: PageKind, pages: Vec<Page>, aligned: bool },
    LaunchFinish(Box<Finish>),
}

impl Call {
    /// KVM's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CheckExtension(_) => "KVM_CHECK_EXTENSION",
            Self::GetDeviceAttr { .. } => "KVM_GET_DEVICE_ATTR",
            Self::GetSupportedCpuid => "KVM_GET_SUPPORTED_CPUID",
            Self::CreateVm(_) => "KVM_CREATE_VM",
            Self::ExitHypercall(_) => "KVM_ENABLE_CAP",
            Self::OpenSev => "open",
            Self::Init2 { .. } => "KVM_SEV_INIT2",
            Self::CreateIrqchip => "KVM_CREATE_IRQCHIP",
            Self::CreatePit2 => "KVM_CREATE_PIT2",
            Self::CreateGuestMemfd { .. } => "KVM_CREATE_GUEST_MEMFD",
            Self::SetUserMemoryRegion2 { .. } => "KVM_SET_USER_MEMORY_REGION2",
            Self::SetMemoryAttributes { .. } => "KVM_SET_MEMORY_ATTRIBUTES",
            Self::CreateVcpu(_) => "KVM_CREATE_VCPU",
            Self::SetCpuid2 { .. } => "KVM_SET_CPUID2",
            Self::GetSregs(_) => "KVM_GET_SREGS",
            Self::SetSregs { .. } => "KVM_SET_SREGS",
            Self::SetRegs { .. } => "KVM_SET_REGS",
            Self::LaunchStart { .. } => "KVM_SEV_SNP_LAUNCH_START",
            Self::LaunchUpdate { .. } => "KVM_SEV_SNP_LAUNCH_UPDATE",
            Self::LaunchFinish(_) => "KVM_SEV_SNP_LAUNCH_FINISH",
        }
    }
}

/// How an update goes.
#[derive(Clone, Debug)]
pub enum Update {
    /// As far as this many pages.
    Pages(usize),
    /// Not at all.
    Refused(Refused),
    /// The firmware does not take the CPUID page, and answers with this register of the first entry.
    Corrected(u32),
    /// With a number of bytes left that cannot be.
    Left(u64),
}

/// A KVM with SEV-SNP that does what it is told.
pub struct Recorder {
    pub calls: RefCell<Vec<Call>>,
    /// What `KVM_CHECK_EXTENSION` answers.
    pub capability: fn(u32) -> i32,
    /// Bits of POLICY it passes on, if it says.
    pub policy_bits: Option<u64>,
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// How the next updates go, the last first; all at once where there is none.
    pub updates: Vec<Update>,
    /// The call that is refused, by KVM's name.
    pub refused: Option<(&'static str, Refused)>,
}

/// Everything that is needed.
pub fn everything(_: u32) -> i32 {
    i32::MAX
}

pub fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, flags: 1, eax, ebx, ecx, edx, ..Default::default() }
}

impl Default for Recorder {
    fn default() -> Self {
        let cpuid = vec![
            leaf(0, 0, [0x10, 0x6874_7541, 0x444D_4163, 0x6974_6E65]),
            leaf(1, 0, [0x00A0_0F11, 0x0800, u32::MAX, 0x178B_FBFF]),
            leaf(7, 0, [1, u32::MAX, 0x40, u32::MAX]),
            leaf(0xD, 0, [7, 0x988, 0x988, 0]),
            leaf(0x8000_001F, 0, [0x1A, 51, 0, 0]),
        ];
        let (calls, capability) = (RefCell::default(), everything as fn(u32) -> i32);
        Self { calls, capability, policy_bits: None, cpuid, updates: Vec::new(), refused: None }
    }
}

impl Recorder {
    fn record(&self, call: Call) -> Result<(), Refused> {
        let name = call.name();
        self.calls.borrow_mut().push(call);
        self.refused.filter(|(which, _)| *which == name).map_or(Ok(()), |(_, refused)| Err(refused))
    }

    /// The names, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.calls.borrow().iter().map(Call::name).collect()
    }
}

impl Host for Recorder {
    fn capability(&self, which: u32) -> i32 {
        let _ = self.record(Call::CheckExtension(which));
        (self.capability)(which)
    }

    fn attribute(&self, group: u32, which: u64) -> Option<u64> {
        let _ = self.record(Call::GetDeviceAttr { group, which });
        self.policy_bits
    }

    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Refused> {
        self.record(Call::GetSupportedCpuid).map(|()| self.cpuid.clone())
    }

    fn create_machine(&mut self, kind: u64) -> Result<(), Refused> {
        self.record(Call::CreateVm(kind))
    }

    fn exit_on_hypercalls(&mut self, which: u64) -> Result<(), Refused> {
        self.record(Call::ExitHypercall(which))
    }

    fn open_secure_processor(&mut self) -> Result<(), Refused> {
        self.record(Call::OpenSev)
    }

    fn initialise(&mut self, vmsa_features: u64, ghcb_version: u16) -> Result<(), Refused> {
        self.record(Call::Init2 { vmsa_features, ghcb_version })
    }

    fn create_interrupt_controllers(&mut self) -> Result<(), Refused> {
        self.record(Call::CreateIrqchip)
    }

    fn create_timer(&mut self) -> Result<(), Refused> {
        self.record(Call::CreatePit2)
    }

    fn create_guest_memory(&mut self, bytes: u64, flags: u64) -> Result<(), Refused> {
        self.record(Call::CreateGuestMemfd { bytes, flags })
    }

    fn set_slot(&mut self, slot: u32, gpa: u64, bytes: u64, offset: u64) -> Result<(), Refused> {
        self.record(Call::SetUserMemoryRegion2 { slot, gpa, bytes, offset })
    }

    fn set_attributes(&mut self, gpa: u64, bytes: u64, attributes: u64) -> Result<(), Refused> {
        self.record(Call::SetMemoryAttributes { gpa, bytes, attributes })
    }

    fn create_processor(&mut self, id: u32) -> Result<(), Refused> {
        self.record(Call::CreateVcpu(id))
    }

    fn set_cpuid(&mut self, id: u32, entries: &[kvm_cpuid_entry2]) -> Result<(), Refused> {
        self.record(Call::SetCpuid2 { id, entries: entries.to_vec() })
    }

    fn system_registers(&self, id: u32) -> Result<kvm_sregs, Refused> {
        // What KVM has at reset and nobody sets, to be seen again.
        let at_reset = kvm_sregs { apic_base: 0xFEE0_0900, cr8: 0, ..Default::default() };
        self.record(Call::GetSregs(id)).map(|()| at_reset)
    }

    fn set_system_registers(&mut self, id: u32, registers: &kvm_sregs) -> Result<(), Refused> {
        self.record(Call::SetSregs { id, registers: Box::new(*registers) })
    }

    fn set_registers(&mut self, id: u32, registers: &kvm_regs) -> Result<(), Refused> {
        self.record(Call::SetRegs { id, registers: Box::new(*registers) })
    }

    fn start(&mut self, policy: u64) -> Result<(), Refused> {
        self.record(Call::LaunchStart { policy })
    }

    fn update(&mut self, gpa: u64, kind: PageKind, pages: &mut [Page]) -> Result<u64, Refused> {
        let aligned = (pages.as_ptr() as u64).is_multiple_of(4096) && gpa.is_multiple_of(4096);
        self.record(Call::LaunchUpdate { gpa, kind, pages: pages.to_vec(), aligned })?;
        let scripted = kind == PageKind::Cpuid || !matches!(self.updates.last(), Some(Update::Corrected(_)));
        match self.updates.pop_if(|_| scripted) {
            None => Ok(0),
            Some(Update::Pages(done)) => Ok(((pages.len() - done) * 4096) as u64),
            Some(Update::Refused(refused)) => Err(refused),
            Some(Update::Left(left)) => Ok(left),
            Some(Update::Corrected(eax)) => {
                pages[0].0[40..44].copy_from_slice(&eax.to_le_bytes());
                Err(Refused { errno: 5, firmware: Some(Status::INVALID_PARAM) })
            }
        }
    }

    fn finish(&mut self, finish: &Finish) -> Result<(), Refused> {
        self.record(Call::LaunchFinish(Box::new(finish.clone())))
    }
}
