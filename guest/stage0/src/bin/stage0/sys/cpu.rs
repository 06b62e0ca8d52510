//! Instructions.

use core::{
    arch::asm,
    convert::Infallible,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use coffer_machine::{
    Refusal,
    map::{C_BIT, PAGE, PARKING_GPA, SHARED_HANDOVER_LIMIT, SHARED_WINDOW_GPA, SHARED_WINDOW_SIZE},
    memory::Range,
    page_tables::{FIRST_GIB_GPA, LARGE, SMALL, WINDOW_GPA},
};
use coffer_stage0::ghcb;

use super::memory::Memory;

unsafe extern "C" {
    fn enter_kernel(entry: u64, zero_page: u64) -> !;
    fn unexpected_exception() -> !;
}

/// Writes a byte to a port.
pub fn port_out_byte(port: u16, value: u8) {
    // SAFETY: port writes of the machine model's devices touch no memory of ours.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

/// Writes four bytes to a port. The device may write to memory it was told of.
pub fn port_out_long(port: u16, value: u32) {
    // SAFETY: the only device driven by long writes is fw_cfg, which writes where its command says; the clobber of memory
    // is declared by leaving `nomem` out.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) }
}

/// Reads four bytes from a port.
pub fn port_in_long(port: u16) -> u32 {
    let value;
    // SAFETY: reading a port touches no memory.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// The time stamp counter.
pub fn time_stamp() -> u64 {
    // SAFETY: RDTSC is unprivileged and touches nothing.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Resets the machine by a triple fault.
pub fn reset() -> ! {
    let nothing = [0_u8; 10];
    // SAFETY: ends everything; there is no handler to return from.
    unsafe { asm!("lidt [{}]", "int3", "ud2", in(reg) &nothing, options(noreturn)) }
}

/// Jumps to a kernel whose memory is handed over with it.
#[allow(clippy::needless_pass_by_value, reason = "the kernel owns all memory from here on")]
pub fn enter_kernel_at(_memory: Memory, entry: u64, zero_page: u64) -> Result<Infallible, Refusal> {
    // SAFETY: `entry` is the 64-bit entry of a kernel whose hash was checked, entered as its boot protocol says.
    unsafe { enter_kernel(entry, zero_page) }
}

#[repr(C, align(16))]
struct Idt([[u64; 2]; VECTORS]);

const VECTORS: usize = 256;
static mut IDT: Idt = Idt([[0; 2]; VECTORS]);

static ENCRYPTED: AtomicBool = AtomicBool::new(false);

/// Whether memory is encrypted, as the start code found it.
pub fn is_encrypted() -> bool {
    ENCRYPTED.load(Ordering::Relaxed)
}

/// Sets up one handler for every vector: a refusal.
pub fn catch_exceptions(encrypted: bool) {
    const GATE: u64 = 0x8E00_0010_0000; // present, interrupt gate, selector 0x10
    ENCRYPTED.store(encrypted, Ordering::Relaxed);
    let idt = &raw mut IDT;
    let handler = unexpected_exception as *const () as u64;
    let low = (handler & 0xFFFF) | GATE | (handler >> 16 & 0xFFFF) << 48;
    for vector in 0..VECTORS {
        // SAFETY: called once before any exception can use the table; the index is inside it.
        unsafe { (*idt).0[vector] = [low, handler >> 32] };
    }
    let mut register = [0_u8; 10];
    register[..2].copy_from_slice(&(VECTORS as u16 * 16 - 1).to_le_bytes());
    register[2..].copy_from_slice(&(idt as u64).to_le_bytes());
    // SAFETY: the table is static and filled.
    unsafe { asm!("lidt [{}]", in(reg) &register, options(nostack, preserves_flags)) }
}

/// Writes the GHCB MSR, exits to the hypervisor and gives what it wrote there.
pub fn ghcb_msr(request: u64) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the MSR protocol exchanges one word; the hypervisor changes no register of ours.
    unsafe {
        asm!("wrmsr", "rep vmmcall", "rdmsr", in("ecx") ghcb::MSR,
            inout("eax") request as u32 => low, inout("edx") (request >> 32) as u32 => high, options(nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Points the GHCB MSR at the GHCB's page, for [`vmgexit`].
pub fn select_ghcb(gpa: u64) {
    // SAFETY: names a registered, shared page.
    unsafe {
        asm!("wrmsr", in("ecx") ghcb::MSR, in("eax") gpa as u32, in("edx") (gpa >> 32) as u32, options(nostack));
    }
}

/// Exits to the hypervisor with what stands in the GHCB.
pub fn vmgexit() {
    // SAFETY: the hypervisor reads and writes the shared page, and memory it was told of by it; no register changes.
    unsafe { asm!("rep vmmcall", options(nostack)) }
}

/// The GHCB.
pub fn ghcb_page(gpa: u64) -> &'static mut [u8; PAGE] {
    // SAFETY: the first page of the shared window is used through here alone, by one processor, never across an exit.
    unsafe { &mut *ptr::with_exposed_provenance_mut::<[u8; PAGE]>(gpa as usize) }
}

/// Maps pages of the shared window with or without the C-bit.
pub fn map_window(pages: Range, private: bool) {
    const FIRST: usize = (SHARED_WINDOW_GPA >> 12) as usize;
    let window = Range { start: SHARED_WINDOW_GPA, end: SHARED_WINDOW_GPA + SHARED_WINDOW_SIZE };
    assert!(window.start <= pages.start && pages.end <= window.end);
    map(WINDOW_GPA, FIRST, pages, 12, SMALL, private);
}

/// Maps 2 MiB pages of the first GiB with or without the C-bit.
pub fn map_large(pages: Range, private: bool) {
    assert!(pages.start >= SHARED_WINDOW_GPA + SHARED_WINDOW_SIZE && pages.end <= SHARED_HANDOVER_LIMIT);
    map(FIRST_GIB_GPA, 0, pages, 21, LARGE, private);
}

fn map(table: u64, first: usize, pages: Range, shift: u32, flags: u64, private: bool) {
    let table = ptr::with_exposed_provenance_mut::<u64>(table as usize);
    for index in pages.start >> shift..pages.end >> shift {
        let entry = (index << shift) | flags | (u64::from(private) << C_BIT);
        // SAFETY: the callers keep the index inside a table of the start code's, and to pages that hold nothing of Rust's
        // but what is accessed by `Memory` and `ghcb_page`. Each stays mapped to itself.
        unsafe { table.add(index as usize - first).write_volatile(entry) };
    }
    // SAFETY: loads what is loaded, and with it forgets every translation.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) }
}

/// Fills page 0: every real-mode vector leads to the parking loop, and what lies behind them is zero. A second wall: a parked
/// processor cannot push what it would come back to ([`coffer_machine::map::NO_STACK_GPA`]).
///
/// By a segment and an offset that also lead there if the offset is taken for a segment: see the parking loop.
pub fn write_real_mode_vectors() {
    const OFFSET: u32 = (PARKING_GPA >> 4) as u32;
    const SEGMENT: u32 = (PARKING_GPA as u32 - OFFSET) >> 4;
    const _: () = assert!((SEGMENT << 4) + OFFSET == PARKING_GPA as u32 && OFFSET <= 0xFFFF);
    // SAFETY: page 0 is private, validated memory that holds nothing of Rust's.
    unsafe {
        asm!("rep stosd", "xor eax, eax", "mov ecx, {rest}", "rep stosd", rest = const PAGE / 4 - 256,
            inout("eax") SEGMENT << 16 | OFFSET => _, inout("ecx") 256 => _, inout("rdi") 0_u64 => _,
            options(nostack));
    }
}

/// Reads the first and the last byte of each page, after its validation: a stale cache line would otherwise be written back
/// over it (CVE-2025-38560).
pub fn touch(pages: Range) {
    // SAFETY: `pages` is mapped memory, of which nothing changes.
    unsafe {
        asm!("2:", "cmp {at}, {end}", "jae 3f", "mov {byte}, [{at}]", "mov {byte}, [{at} + 0xFFF]", "add {at}, 0x1000",
            "jmp 2b", "3:", at = inout(reg) pages.start => _, end = in(reg) pages.end, byte = out(reg_byte) _,
            options(nostack, readonly));
    }
}

/// What PVALIDATE said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validated {
    /// The page is validated now, and was not before.
    Changed,
    /// It was validated before.
    Unchanged,
    /// The hypervisor backs it with smaller pages.
    SizeMismatch,
    /// Anything else.
    Failed,
}

/// Validates a page of 4 KiB, or with `large` of 2 MiB.
pub fn pvalidate(gpa: u64, large: bool) -> Validated {
    let (mut result, carry): (u64, u8);
    // SAFETY: changes the page's state in the RMP; its contents are undefined until written, and nobody relies on them.
    unsafe {
        asm!(".byte 0xF2, 0x0F, 0x01, 0xFF", "setc {carry}", carry = out(reg_byte) carry,
            inout("rax") gpa => result, in("ecx") u32::from(large), in("edx") 1, options(nostack));
    }
    result &= 0xFFFF_FFFF;
    match (result, carry) {
        (0, 0) => Validated::Changed,
        (0, _) => Validated::Unchanged,
        (6, _) => Validated::SizeMismatch,
        _ => Validated::Failed,
    }
}
