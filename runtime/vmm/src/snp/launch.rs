//! The order of a launch: every call that makes an SEV-SNP guest, once, up to where its processors may run.
//!
//! Memory is private from the start but for what is handed over, so that the guest's first touch of a page costs no request.
//! Processors are made and set before the launch starts and touched by nobody after: KVM measures their state when the
//! launch is finished.

use std::fmt;

use coffer_machine::map::PAGE;
use coffer_machine::memory::Range;
use kvm_bindings::{KVM_MEMORY_ATTRIBUTE_PRIVATE, KVM_X86_GRP_SEV, KVM_X86_SNP_VM, kvm_cpuid_entry2};

use super::cpuid_page::{self, Correction, CpuidError};
use super::firmware::{FULL, Status};
use super::host::{Finish, Host, PageKind, Refused};
use super::page_state::MAP_GPA_RANGE;
use super::plan::Run;
use super::policy::{self, PolicyError};
use super::support::{Lacks, lacking};
use crate::{cpuid, entry};

/// A launch, complete.
#[derive(Clone, Debug)]
pub struct Launch {
    /// POLICY.
    pub policy: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// What of it is shared from the start, in the order of addresses.
    pub shared: Vec<Range>,
    /// Processors.
    pub vcpus: u32,
    /// What is measured, in order.
    pub runs: Vec<Run>,
    /// What stands at its end.
    pub finish: Finish,
}

/// Why no SEV-SNP guest runs. There is no other guest instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnpError {
    /// This host runs none.
    #[error("this host runs no SEV-SNP guest: its KVM lacks {0}")]
    Lacks(Lacks),
    /// The policy cannot be, or not here.
    #[error("no guest is launched with this policy")]
    Policy(#[from] PolicyError),
    /// What KVM says of the processor does not fit.
    #[error("the guest cannot be told what its processor is")]
    Cpuid(#[from] CpuidError),
    /// The secure processor takes no CPUID page, nor its own correction of it.
    #[error("the secure processor refuses the CPUID page{}", Listed(corrections))]
    CpuidPage {
        /// What it would have had otherwise, as far as it says.
        corrections: Vec<Correction>,
    },
    /// A call was refused.
    #[error("{call} failed: {}{}", std::io::Error::from_raw_os_error(refused.errno), Firmware(refused.firmware))]
    Call {
        /// In KVM's words.
        call: &'static str,
        /// Why.
        refused: Refused,
    },
    /// SNP_LAUNCH_UPDATE goes on without an end.
    #[error("KVM_SEV_SNP_LAUNCH_UPDATE does not get past {gpa:#x}")]
    Stalled {
        /// The page it does not get past.
        gpa: u64,
    },
    /// It says it did what cannot be.
    #[error("KVM_SEV_SNP_LAUNCH_UPDATE left {left} of {bytes} bytes, which are not whole pages of them")]
    Progress {
        /// Bytes it says are left.
        left: u64,
        /// Bytes it was given.
        bytes: u64,
    },
}

/// What the firmware said, if it was asked.
struct Firmware(Option<Status>);

impl fmt::Display for Firmware {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |status| write!(out, "; the secure processor says {status}"))
    }
}

struct Listed<'a>(&'a [Correction]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, it)| write!(out, "{} {it}", if index == 0 { ":" } else { "," }))
    }
}

impl SnpError {
    /// The description is to blame, not this host.
    pub const fn is_of_description(&self) -> bool {
        matches!(self, Self::Policy(PolicyError::Reserved(_) | PolicyError::Open { .. }))
    }

    /// What whoever runs the host can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Lacks(_) => Some("`coffer doctor` goes through what an SEV-SNP host needs"),
            Self::Policy(PolicyError::NotPassed(_)) => {
                Some("leave these bits out of the policy, or update the host's kernel and firmware")
            }
            Self::CpuidPage { .. } => {
                Some("update the host's firmware, and report these values: the page is made of what KVM offers")
            }
            Self::Call { call: START, refused: Refused { errno: libc::EINVAL, firmware: None } } => {
                Some(policy::KERNEL_REFUSES)
            }
            Self::Call { call: OPEN, refused: Refused { errno: libc::EACCES, .. } } => Some(
                "/dev/sev has to be readable and writable for whoever runs guests: give the group of /dev/kvm access to it",
            ),
            Self::Call { call: OPEN, .. } => {
                Some("the kernel module ccp gives /dev/sev: `coffer doctor` says what it lacks")
            }
            // KVM found no free ASID, before it asked the firmware.
            Self::Call { call: INIT, refused: Refused { errno: libc::EBUSY, firmware: None } } => Some(FULL),
            Self::Call { refused, .. } => refused.firmware.and_then(Status::hint),
            _ => None,
        }
    }
}

const OPEN: &str = "opening /dev/sev";
const INIT: &str = "KVM_SEV_INIT2";
const START: &str = "KVM_SEV_SNP_LAUNCH_START";
const UPDATE: &str = "KVM_SEV_SNP_LAUNCH_UPDATE";
/// Attribute of /dev/kvm: the bits of POLICY it passes on. Not in `kvm_bindings` yet.
pub const POLICY_BITS: u64 = 1;
/// How often in a row SNP_LAUNCH_UPDATE may be told to come again.
const PATIENCE: u32 = 1000;

fn call<T>(call: &'static str, done: Result<T, Refused>) -> Result<T, SnpError> {
    done.map_err(|refused| SnpError::Call { call, refused })
}

/// Launches. Gives what the secure processor corrected in the CPUID page, to be shown.
///
/// # Errors
/// [`SnpError`]. The machine is of no use then.
pub fn launch(host: &mut impl Host, launch: &mut Launch) -> Result<Vec<Correction>, SnpError> {
    let lacks = lacking(|which| host.capability(which));
    if !lacks.is_empty() {
        return Err(SnpError::Lacks(Lacks(lacks)));
    }
    policy::judge(launch.policy, host.attribute(KVM_X86_GRP_SEV, POLICY_BITS))?;
    let mut offered = call("KVM_GET_SUPPORTED_CPUID", host.supported_cpuid())?;
    cpuid_page::clear_refused(&mut offered);
    let first = adapted(&offered, 0, launch.vcpus);
    let page = cpuid_page::page(&first)?;
    for run in launch.runs.iter_mut().filter(|run| run.kind == PageKind::Cpuid) {
        run.pages.fill(page.clone());
    }

    call("KVM_CREATE_VM", host.create_machine(KVM_X86_SNP_VM.into()))?;
    call("KVM_ENABLE_CAP(KVM_CAP_EXIT_HYPERCALL)", host.exit_on_hypercalls(1 << MAP_GPA_RANGE))?;
    call(OPEN, host.open_secure_processor())?;
    // No feature but SNP itself, which KVM adds: that is what is measured. Version 0 of the GHCB protocol is KVM's own choice.
    call(INIT, host.initialise(0, 0))?;
    call("KVM_CREATE_IRQCHIP", host.create_interrupt_controllers())?;
    call("KVM_CREATE_PIT2", host.create_timer())?;
    call("KVM_CREATE_GUEST_MEMFD", host.create_guest_memory(launch.memory_bytes, 0))?;
    call("KVM_SET_USER_MEMORY_REGION2", host.set_slot(0, 0, launch.memory_bytes, 0))?;
    for range in between(&launch.shared, launch.memory_bytes) {
        let bytes = range.end - range.start;
        let private = u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE);
        call("KVM_SET_MEMORY_ATTRIBUTES", host.set_attributes(range.start, bytes, private))?;
    }
    for id in 0..launch.vcpus {
        call("KVM_CREATE_VCPU", host.create_processor(id))?;
        // Before CR3 with the C-bit: the leaf of SEV says that such an address is one.
        call("KVM_SET_CPUID2", host.set_cpuid(id, &adapted(&offered, id, launch.vcpus)))?;
        let at_reset = call("KVM_GET_SREGS", host.system_registers(id))?;
        call("KVM_SET_SREGS", host.set_system_registers(id, &entry::system_registers(&at_reset, true)))?;
        call("KVM_SET_REGS", host.set_registers(id, &entry::registers(id == 0)))?;
    }

    call(START, host.start(launch.policy))?;
    let mut corrections = Vec::new();
    for run in &mut launch.runs {
        if run.kind == PageKind::Cpuid {
            corrections = update_cpuid(host, run)?;
        } else {
            update(host, run)?;
        }
    }
    // Once: a second attempt would measure the processors again.
    call("KVM_SEV_SNP_LAUNCH_FINISH", host.finish(&launch.finish))?;
    Ok(corrections)
}

/// One processor's view. No TSC deadline timer: firmware refuses a page that offers it.
fn adapted(offered: &[kvm_cpuid_entry2], id: u32, vcpus: u32) -> Vec<kvm_cpuid_entry2> {
    let mut own = offered.to_vec();
    cpuid::adapt(&mut own, id, vcpus, false);
    own
}

/// What is left of memory between ranges.
fn between(shared: &[Range], memory_bytes: u64) -> Vec<Range> {
    let mut left = Vec::new();
    let mut start = 0;
    for range in shared {
        left.push(Range { start, end: range.start });
        start = range.end;
    }
    left.push(Range { start, end: memory_bytes });
    left.retain(|range| range.start < range.end);
    left
}

/// The CPUID page, and once more as the firmware corrects it.
fn update_cpuid(host: &mut impl Host, run: &mut Run) -> Result<Vec<Correction>, SnpError> {
    let mut corrections = Vec::new();
    for attempt in 0..2 {
        let offered = run.pages.clone();
        match update(host, run) {
            Err(SnpError::Call { refused: Refused { firmware: Some(Status::INVALID_PARAM), .. }, .. }) => {}
            done => return done.map(|()| corrections),
        }
        let found =
            offered.first().zip(run.pages.first()).and_then(|(offered, found)| cpuid_page::correct(offered, found));
        let Some((page, changed)) = found else { return Err(SnpError::CpuidPage { corrections }) };
        if changed.is_empty() || attempt == 1 {
            corrections.extend(changed);
            return Err(SnpError::CpuidPage { corrections });
        }
        corrections = changed;
        run.pages = vec![page];
    }
    Err(SnpError::CpuidPage { corrections })
}

/// A run, however often KVM stops on the way.
fn update(host: &mut impl Host, run: &mut Run) -> Result<(), SnpError> {
    let mut done = 0;
    let mut patience = PATIENCE;
    while let Some(pages) = run.pages.get_mut(done..).filter(|pages| !pages.is_empty()) {
        let gpa = run.gpa + (done * PAGE) as u64;
        let bytes = (pages.len() * PAGE) as u64;
        let left = match host.update(gpa, run.kind, pages) {
            Ok(left) => left,
            // `bytes` left: nothing was done, and it may be asked again.
            Err(Refused { errno: libc::EAGAIN | libc::EINTR, firmware: None }) => bytes,
            Err(refused) => return Err(SnpError::Call { call: UPDATE, refused }),
        };
        if left > bytes || !left.is_multiple_of(PAGE as u64) {
            return Err(SnpError::Progress { left, bytes });
        }
        let moved = ((bytes - left) / PAGE as u64) as usize;
        done += moved;
        patience = if moved == 0 { patience - 1 } else { PATIENCE };
        if patience == 0 {
            return Err(SnpError::Stalled { gpa });
        }
    }
    Ok(())
}
