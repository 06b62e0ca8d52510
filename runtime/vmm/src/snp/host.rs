//! Who does the calls of a launch: KVM, or in tests one that writes them down.

use coffer_machine::map::PAGE;
pub use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};

use super::firmware::Status;

/// A page where the kernel can read it: aligned, as Linux 7.0 demands of what SNP_LAUNCH_UPDATE reads.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(4096))]
pub struct Page(pub [u8; PAGE]);

impl Page {
    /// A page of zeros.
    pub const ZERO: Self = Self([0; PAGE]);
}

impl std::fmt::Debug for Page {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Page")
    }
}

/// What the secure processor makes of a page, PAGE_TYPE. VMSA is none of a monitor's: KVM measures one for each processor
/// when the launch is finished. Unmeasured pages are in no plan of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageKind {
    /// Contents and place are measured.
    Normal = 1,
    /// Zeros; only the place is measured.
    Zero = 3,
    /// Filled by the secure processor with the guest's keys.
    Secrets = 5,
    /// Checked by the secure processor entry by entry.
    Cpuid = 6,
}

/// What SNP_LAUNCH_FINISH is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// HOST_DATA of every report.
    pub host_data: [u8; 32],
    /// The launch an author signed for, if one did.
    pub identity: Option<Identity>,
}

/// ID block and ID authentication block, as `coffer id` made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// ID block.
    pub block: Box<[u8; 96]>,
    /// ID authentication block.
    pub auth: Box<Page>,
    /// The latter holds an author's key, which is to be checked and shown too.
    pub author_key: bool,
}

/// A call that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As Linux numbers errors.
    pub errno: i32,
    /// What the secure processor said, where it was asked.
    pub firmware: Option<Status>,
}

impl Refused {
    /// By the kernel.
    pub const fn by_kernel(errno: i32) -> Self {
        Self { errno, firmware: None }
    }
}

/// The calls, each of them one system call, in the words of KVM's interface. All have to be made for one machine.
pub trait Host {
    /// `KVM_CHECK_EXTENSION`.
    fn capability(&self, which: u32) -> i32;
    /// `KVM_GET_DEVICE_ATTR` of `/dev/kvm`; `None` where this kernel has no such attribute.
    fn attribute(&self, group: u32, which: u64) -> Option<u64>;
    /// `KVM_GET_SUPPORTED_CPUID`.
    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Refused>;

    /// `KVM_CREATE_VM`.
    fn create_machine(&mut self, kind: u64) -> Result<(), Refused>;
    /// `KVM_ENABLE_CAP(KVM_CAP_EXIT_HYPERCALL)`.
    fn exit_on_hypercalls(&mut self, which: u64) -> Result<(), Refused>;
    /// Opens `/dev/sev`, and keeps it open: KVM asks the firmware through that descriptor for as long as the guest lives.
    fn open_secure_processor(&mut self) -> Result<(), Refused>;
    /// `KVM_SEV_INIT2`.
    fn initialise(&mut self, vmsa_features: u64, ghcb_version: u16) -> Result<(), Refused>;
    /// `KVM_CREATE_IRQCHIP`.
    fn create_interrupt_controllers(&mut self) -> Result<(), Refused>;
    /// `KVM_CREATE_PIT2`.
    fn create_timer(&mut self) -> Result<(), Refused>;
    /// `KVM_CREATE_GUEST_MEMFD`.
    fn create_guest_memory(&mut self, bytes: u64, flags: u64) -> Result<(), Refused>;
    /// `KVM_SET_USER_MEMORY_REGION2`: shared pages from the host's memory, private ones from guest memory, both at `offset`.
    fn set_slot(&mut self, slot: u32, gpa: u64, bytes: u64, offset: u64) -> Result<(), Refused>;
    /// `KVM_SET_MEMORY_ATTRIBUTES`.
    fn set_attributes(&mut self, gpa: u64, bytes: u64, attributes: u64) -> Result<(), Refused>;

    /// `KVM_CREATE_VCPU`; numbers count up from 0.
    fn create_processor(&mut self, id: u32) -> Result<(), Refused>;
    /// `KVM_SET_CPUID2`.
    fn set_cpuid(&mut self, id: u32, entries: &[kvm_cpuid_entry2]) -> Result<(), Refused>;
    /// `KVM_GET_SREGS`.
    fn system_registers(&self, id: u32) -> Result<kvm_sregs, Refused>;
    /// `KVM_SET_SREGS`.
    fn set_system_registers(&mut self, id: u32, registers: &kvm_sregs) -> Result<(), Refused>;
    /// `KVM_SET_REGS`.
    fn set_registers(&mut self, id: u32, registers: &kvm_regs) -> Result<(), Refused>;

    /// `KVM_SEV_SNP_LAUNCH_START`.
    fn start(&mut self, policy: u64) -> Result<(), Refused>;
    /// `KVM_SEV_SNP_LAUNCH_UPDATE`. Gives the bytes that are still to be done, at the end of `pages`. The kernel writes into
    /// a CPUID page that the firmware does not take.
    fn update(&mut self, gpa: u64, kind: PageKind, pages: &mut [Page]) -> Result<u64, Refused>;
    /// `KVM_SEV_SNP_LAUNCH_FINISH`.
    fn finish(&mut self, finish: &Finish) -> Result<(), Refused>;
}
