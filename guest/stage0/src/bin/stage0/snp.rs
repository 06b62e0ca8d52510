//! SEV-SNP: the GHCB, page states, validation.
//!
//! Written to AMD 56421 and APM volume 2, §15.36; run in the model of an SNP machine (`scripts/snp-model`), never on hardware.
//! Trusts: the processor. Takes from the hypervisor only whether it did what it was asked for; PVALIDATE tells.
//! Never: uses a page whose validation did not change state, or goes on after an exception.

use coffer_machine::{
    Refusal,
    bytes::le64,
    map::{
        ACPI_GPA, CPUID_GPA, HIGH_MEMORY_GPA, LOW_MEMORY_END, LOW_MEMORY_GPA, NO_STACK_GPA, PAGE, PAGE_TABLES_GPA,
        PAGE_TABLES_SIZE, PARKING_GPA, SECRETS_GPA, SHARED_SIZE, SHARED_WINDOW_GPA,
    },
    memory::{Ram, Range},
};
use coffer_stage0::{
    cpuid_page::{self, CpuidPage},
    ghcb::{self, PageState, Progress, Width, at},
    placement::unvalidated,
};

use crate::sys::{
    cpu::{self, Validated},
    memory::Memory,
};

const GHCB: Range = Range { start: SHARED_WINDOW_GPA, end: SHARED_WINDOW_GPA + PAGE as u64 };
/// What else is shared with the host: fw_cfg command and bounce buffer, or a hand-over's descriptor.
const OTHERS: Range = Range { start: GHCB.end, end: SHARED_WINDOW_GPA + SHARED_SIZE };
const LARGE: u64 = 2 << 20;
/// Answers without progress to a page-state request before the hypervisor is given up. It may do one page of an entry each
/// time, and an entry has 512.
const PATIENCE: u32 = 1024;

/// An SEV-SNP guest with a registered GHCB.
pub struct Snp {
    talks: bool,
}

impl Snp {
    /// Checks the C-bit, shares the window's start and registers the GHCB.
    ///
    /// # Errors
    /// [`Refusal::Cpuid`], [`Refusal::Ghcb`].
    pub fn start(memory: &mut Memory) -> Result<Self, Refusal> {
        cpuid_page::keep_only_entries(memory.page_mut(CPUID_GPA))?;
        CpuidPage::parse(memory.page(CPUID_GPA))?.check_c_bit()?;
        let speaks = ghcb::offers_version(cpu::ghcb_msr(ghcb::INFORMATION_REQUEST))
            && ghcb::offers_snp(cpu::ghcb_msr(ghcb::FEATURES_REQUEST));
        if !speaks {
            return Err(Refusal::Ghcb);
        }
        page_state_by_msr(GHCB.start, PageState::Shared)?;
        cpu::map_window(GHCB, false);
        // It starts as whatever the host left there.
        cpu::ghcb_page(GHCB.start).fill(0);
        if !ghcb::registered(cpu::ghcb_msr(ghcb::register(GHCB.start)), GHCB.start) {
            return Err(Refusal::Ghcb);
        }
        cpu::select_ghcb(GHCB.start);
        Batch::all(OTHERS, PageState::Shared, |_| Ok(()))?;
        cpu::map_window(OTHERS, false);
        Ok(Self { talks: true })
    }

    /// A port access through the GHCB; what an input gives is the host's word.
    pub fn port(&mut self, port: u16, width: Width, output: Option<u32>) -> u32 {
        if !self.talks {
            return 0;
        }
        let page = cpu::ghcb_page(GHCB.start);
        let info = ghcb::ioio(port, width, output.is_none());
        request(page, ghcb::EXIT_IOIO, info, None, Some(output.unwrap_or(0).into()));
        if ghcb::answered(u64_at(page, at::EXIT_INFO_1)) { u64_at(page, at::RAX) as u32 } else { u32::MAX }
    }

    /// Makes all RAM and the BIOS area private, validates it, and fills what a kernel or a parked processor reads before
    /// anybody else wrote it. Not what the launch validated, what is shared, `handed_over`, which is mapped so that it can be
    /// read, and the page that a parked processor would push on.
    ///
    /// # Errors
    /// [`Refusal::Validation`] if a page was validated before, [`Refusal::Ghcb`].
    pub fn accept(memory: &mut Memory, ram: Ram, handed_over: Option<Range>) -> Result<(), Refusal> {
        for range in unvalidated(ram, handed_over) {
            Batch::all(range, PageState::Private, validate)?;
        }
        cpu::write_real_mode_vectors();
        for (start, end) in [
            (PAGE_TABLES_GPA + PAGE_TABLES_SIZE, NO_STACK_GPA),
            (NO_STACK_GPA + PAGE as u64, LOW_MEMORY_GPA),
            (LOW_MEMORY_END, SECRETS_GPA),
            (PARKING_GPA + PAGE as u64, HIGH_MEMORY_GPA),
        ] {
            memory.bytes_mut(Range { start, end }).fill(0);
        }
        if let Some(handed_over) = handed_over {
            cpu::map_large(handed_over, false);
        }
        Ok(())
    }

    /// Takes memory that the host shared from the start.
    ///
    /// # Errors
    /// [`Refusal::Validation`], [`Refusal::Ghcb`].
    pub fn accept_handed_over(handed_over: Range) -> Result<(), Refusal> {
        cpu::map_large(handed_over, true);
        Batch::all(handed_over, PageState::Private, validate)
    }

    /// Takes all shared pages back: from here on only the MSR protocol speaks.
    ///
    /// # Errors
    /// [`Refusal::Validation`], [`Refusal::Ghcb`].
    pub fn take_back(&mut self) -> Result<(), Refusal> {
        self.talks = false;
        cpu::map_window(OTHERS, true);
        Batch::all(OTHERS, PageState::Private, validate)?;
        cpu::map_window(GHCB, true);
        page_state_by_msr(GHCB.start, PageState::Private)?;
        validate(Step { gpa: GHCB.start, large: false })
    }
}

const _: () =
    assert!(LOW_MEMORY_END <= ACPI_GPA && ACPI_GPA < SECRETS_GPA, "the BIOS area is zeroed around the launch pages");

/// A page of a page-state change.
#[derive(Clone, Copy)]
struct Step {
    gpa: u64,
    large: bool,
}

impl Step {
    fn range(self) -> Range {
        Range { start: self.gpa, end: self.gpa + if self.large { LARGE } else { PAGE as u64 } }
    }
}

/// Pages whose state is changed by one request. stage0's own list, because the hypervisor can write to the request.
struct Batch {
    steps: [Step; ghcb::PAGE_STATE_ENTRIES],
    length: usize,
}

impl Batch {
    /// Changes the state of a range, in as few requests as hold it, and does `then` with each page.
    fn all(range: Range, state: PageState, then: impl Fn(Step) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let mut batch = Self { steps: [Step { gpa: 0, large: false }; ghcb::PAGE_STATE_ENTRIES], length: 0 };
        let mut gpa = range.start;
        while gpa < range.end {
            let step = Step { gpa, large: gpa.is_multiple_of(LARGE) && range.end - gpa >= LARGE };
            batch.steps[batch.length] = step;
            batch.length += 1;
            gpa = step.range().end;
            if batch.length == batch.steps.len() || gpa >= range.end {
                let steps = &batch.steps[..batch.length];
                change(steps, state)?;
                for step in steps {
                    then(*step)?;
                }
                batch.length = 0;
            }
        }
        Ok(())
    }
}

/// One request, repeated as long as the hypervisor returns early.
fn change(steps: &[Step], state: PageState) -> Result<(), Refusal> {
    let page = cpu::ghcb_page(GHCB.start);
    let last = (steps.len() - 1) as u16;
    let entries = at::SHARED_BUFFER + 8;
    put(page, at::SHARED_BUFFER, ghcb::page_state_header(0, last));
    for (index, step) in steps.iter().enumerate() {
        put(page, entries + index * 8, ghcb::page_state_entry(step.gpa, state, step.large));
    }
    let (mut current, mut patience) = (0, PATIENCE);
    while patience > 0 {
        request(page, ghcb::EXIT_PAGE_STATE, 0, Some(GHCB.start + at::SHARED_BUFFER as u64), None);
        if !ghcb::answered(u64_at(page, at::EXIT_INFO_1)) || u64_at(page, at::EXIT_INFO_2) != 0 {
            break;
        }
        match ghcb::page_states_changed(u64_at(page, at::SHARED_BUFFER), current, last) {
            Some(Progress::Done) => return Ok(()),
            Some(Progress::At(next)) => {
                patience = if next > current { PATIENCE } else { patience - 1 };
                current = next;
            }
            None => break,
        }
    }
    Err(Refusal::Ghcb)
}

fn page_state_by_msr(gpa: u64, state: PageState) -> Result<(), Refusal> {
    let answer = cpu::ghcb_msr(ghcb::page_state(gpa, state));
    if ghcb::page_state_changed(answer) { Ok(()) } else { Err(Refusal::Ghcb) }
}

/// Validates a page that is private and mapped with the C-bit.
fn validate(step: Step) -> Result<(), Refusal> {
    let range = step.range();
    match cpu::pvalidate(step.gpa, step.large) {
        Validated::Changed => {}
        // The hypervisor backs the range with 4 KiB pages.
        Validated::SizeMismatch if step.large => {
            for gpa in (range.start..range.end).step_by(PAGE) {
                if cpu::pvalidate(gpa, false) != Validated::Changed {
                    return Err(Refusal::Validation);
                }
            }
        }
        // CF = 1: it was validated before, so somebody may hold another page under the same address.
        _ => return Err(Refusal::Validation),
    }
    cpu::touch(range);
    Ok(())
}

/// Fills the request in and exits. What an earlier answer left in the page counts for nothing.
fn request(page: &mut [u8; PAGE], code: u64, info_1: u64, scratch: Option<u64>, rax: Option<u64>) {
    page[at::VALID_BITMAP..at::VALID_BITMAP + 16].fill(0);
    let fields = [
        (at::EXIT_CODE, Some(code)),
        (at::EXIT_INFO_1, Some(info_1)),
        (at::EXIT_INFO_2, Some(0)),
        (at::SCRATCH, scratch),
        (at::RAX, rax),
    ];
    for (offset, value) in fields.into_iter().filter_map(|(offset, value)| value.map(|value| (offset, value))) {
        put(page, offset, value);
        let (byte, bit) = ghcb::valid_bit(offset);
        page[byte] |= bit;
    }
    page[at::VERSION..at::VERSION + 2].copy_from_slice(&ghcb::VERSION.to_le_bytes());
    page[at::USAGE..at::USAGE + 4].fill(0);
    cpu::vmgexit();
}

fn put(page: &mut [u8; PAGE], at: usize, value: u64) {
    page[at..at + 8].copy_from_slice(&value.to_le_bytes());
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
