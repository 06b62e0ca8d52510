//! SEV-SNP: the GHCB, page states, validation, and #VC.
//!
//! Written to AMD 56421 and APM volume 2, §15.36; **not run on hardware**.
//! Trusts: the CPUID page. Never: answers CPUID from the hypervisor, uses a page whose validation did not change state.

use coffer_machine::{
    Refusal,
    bytes::le64,
    map::{CPUID_GPA, PAGE, SHARED_SIZE, SHARED_WINDOW_GPA},
    memory::{Ram, Range},
};
use coffer_stage0::{
    cpuid_page::CpuidPage,
    ghcb::{self, PageState, Width, at},
    placement::unvalidated,
};

use crate::sys::{
    cpu::{self, Validated},
    memory::Memory,
};

const GHCB: u64 = SHARED_WINDOW_GPA;
const LARGE: u64 = 2 << 20;

/// An SEV-SNP guest with a registered GHCB.
pub struct Snp {
    talks: bool,
}

impl Snp {
    /// Checks the C-bit, shares the window and registers the GHCB.
    ///
    /// # Errors
    /// [`Refusal::Cpuid`], [`Refusal::Ghcb`].
    pub fn start(memory: &Memory) -> Result<Self, Refusal> {
        CpuidPage::parse(memory.page(CPUID_GPA))?.check_c_bit()?;
        if !ghcb::offers_snp(cpu::ghcb_msr(ghcb::FEATURES_REQUEST)) {
            return Err(Refusal::Ghcb);
        }
        for gpa in shared_pages() {
            page_state_by_msr(gpa, PageState::Shared)?;
        }
        cpu::map_window(false);
        if !ghcb::registered(cpu::ghcb_msr(ghcb::register(GHCB)), GHCB) {
            return Err(Refusal::Ghcb);
        }
        cpu::select_ghcb(GHCB);
        Ok(Self { talks: true })
    }

    /// One that has no GHCB to talk through.
    pub fn mute() -> Self {
        Self { talks: false }
    }

    /// A port access through the GHCB; what an input gives is the host's word.
    pub fn port(&mut self, port: u16, width: Width, output: Option<u32>) -> u32 {
        if !self.talks {
            return 0;
        }
        let page = cpu::ghcb_page(GHCB);
        let info = ghcb::ioio(port, width, output.is_none());
        request(page, ghcb::EXIT_IOIO, info, 0, None, Some(output.unwrap_or(0).into()));
        u64_at(page, at::RAX) as u32
    }

    /// Makes all RAM private and validates it, but for what the launch validated and what is shared.
    ///
    /// # Errors
    /// [`Refusal::Validation`] if a page was validated before, [`Refusal::Ghcb`].
    pub fn accept(memory: &mut Memory, ram: Ram) -> Result<(), Refusal> {
        for range in unvalidated(ram) {
            let mut gpa = range.start;
            while gpa < range.end {
                let large = gpa.is_multiple_of(LARGE) && range.end - gpa >= LARGE;
                make_private(gpa, large)?;
                let length = if large { LARGE } else { PAGE as u64 };
                validate(memory, Range { start: gpa, end: gpa + length }, large)?;
                gpa += length;
            }
        }
        Ok(())
    }

    /// Takes all shared pages back: from here on only the MSR protocol speaks.
    ///
    /// # Errors
    /// [`Refusal::Validation`], [`Refusal::Ghcb`].
    pub fn take_back(&mut self, memory: &mut Memory) -> Result<(), Refusal> {
        self.talks = false;
        cpu::map_window(true);
        for gpa in shared_pages() {
            page_state_by_msr(gpa, PageState::Private)?;
            validate(memory, Range { start: gpa, end: gpa + PAGE as u64 }, false)?;
        }
        Ok(())
    }
}

fn make_private(gpa: u64, large: bool) -> Result<(), Refusal> {
    let page = cpu::ghcb_page(GHCB);
    let buffer = at::SHARED_BUFFER;
    page[buffer..buffer + 8].fill(0); // first and last entry: number 0
    page[buffer + 8..buffer + 16]
        .copy_from_slice(&ghcb::page_state_entry(gpa, PageState::Private, large).to_le_bytes());
    let scratch = GHCB + buffer as u64;
    request(page, ghcb::EXIT_PAGE_STATE, 0, 0, Some(scratch), None);
    let answered = u64_at(page, at::EXIT_INFO_2) >> 32 == 0 && page[buffer] == 1;
    if answered { Ok(()) } else { Err(Refusal::Ghcb) }
}

fn shared_pages() -> impl Iterator<Item = u64> {
    (SHARED_WINDOW_GPA..SHARED_WINDOW_GPA + SHARED_SIZE).step_by(PAGE)
}

fn page_state_by_msr(gpa: u64, state: PageState) -> Result<(), Refusal> {
    let answer = cpu::ghcb_msr(ghcb::page_state(gpa, state));
    if ghcb::page_state_changed(answer) { Ok(()) } else { Err(Refusal::Ghcb) }
}

/// Validates, and touches each page afterwards: a stale cache line would otherwise be written back over it
/// (CVE-2025-38560).
fn validate(memory: &mut Memory, range: Range, large: bool) -> Result<(), Refusal> {
    match cpu::pvalidate(range.start, large) {
        Validated::Changed => {}
        // The hypervisor backs the range with 4 KiB pages.
        Validated::SizeMismatch if large => {
            for gpa in (range.start..range.end).step_by(PAGE) {
                if cpu::pvalidate(gpa, false) != Validated::Changed {
                    return Err(Refusal::Validation);
                }
            }
        }
        // CF = 1: it was validated before, so somebody may hold another page under the same address.
        _ => return Err(Refusal::Validation),
    }
    for gpa in (range.start..range.end).step_by(PAGE) {
        let _ = memory.read_volatile(gpa);
        let _ = memory.read_volatile(gpa + PAGE as u64 - 16);
    }
    Ok(())
}

fn request(page: &mut [u8; PAGE], code: u64, info_1: u64, info_2: u64, scratch: Option<u64>, rax: Option<u64>) {
    page[at::VALID_BITMAP..at::VALID_BITMAP + 16].fill(0);
    let mut set = |offset: usize, value: u64| {
        page[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        let (byte, bit) = ghcb::valid_bit(offset);
        page[byte] |= bit;
    };
    set(at::EXIT_CODE, code);
    set(at::EXIT_INFO_1, info_1);
    set(at::EXIT_INFO_2, info_2);
    if let Some(scratch) = scratch {
        set(at::SCRATCH, scratch);
    }
    if let Some(rax) = rax {
        set(at::RAX, rax);
    }
    page[at::VERSION..at::VERSION + 2].copy_from_slice(&ghcb::VERSION.to_le_bytes());
    cpu::vmgexit();
}

fn u64_at(page: &[u8; PAGE], at: usize) -> u64 {
    le64(page, at).unwrap_or(u64::MAX)
}

/// Ends the guest by the MSR protocol.
pub fn terminate(refusal: Refusal) -> ! {
    loop {
        cpu::ghcb_msr(ghcb::terminate(refusal));
    }
}

/// Registers as the start code pushed them, then what the processor pushed.
#[repr(C)]
pub struct VcFrame {
    rax: u64,
    rbx: u64,
    rcx: u64,
    rdx: u64,
    others: [u64; 11],
    error_code: u64,
    rip: u64,
}

/// Answers #VC for CPUID from the CPUID page; `None` for anything else.
pub fn answer_vc(frame: &mut VcFrame) -> Option<()> {
    const EXIT_CPUID: u64 = 0x72;
    if frame.error_code != EXIT_CPUID {
        return None;
    }
    let memory = Memory::peek();
    let [eax, ebx, ecx, edx] = CpuidPage::parse(memory.page(CPUID_GPA)).ok()?.leaf(frame.rax as u32, frame.rcx as u32);
    (frame.rax, frame.rbx, frame.rcx, frame.rdx) = (eax.into(), ebx.into(), ecx.into(), edx.into());
    // CPUID is two bytes long.
    frame.rip += 2;
    Some(())
}
