//! Instructions.

use core::{arch::asm, convert::Infallible, ptr};

use coffer_machine::{
    Refusal,
    map::{C_BIT, PAGE, PAGE_TABLES_GPA, SHARED_WINDOW_GPA},
};
use coffer_stage0::ghcb;

use super::memory::Memory;

unsafe extern "C" {
    fn enter_kernel(entry: u64, zero_page: u64) -> !;
    fn unexpected_exception() -> !;
    fn vc_exception() -> !;
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
struct Idt([[u64; 2]; 32]);

static mut IDT: Idt = Idt([[0; 2]; 32]);

/// Sets up handlers: #VC for CPUID, a refusal for all others.
pub fn catch_exceptions() {
    const VC: usize = 29;
    const GATE: u64 = 0x8E00_0010_0000; // present, interrupt gate, selector 0x10
    let idt = &raw mut IDT;
    for vector in 0..32 {
        let handler = if vector == VC { vc_exception as *const () } else { unexpected_exception as *const () } as u64;
        let low = (handler & 0xFFFF) | (GATE) | (handler >> 16 & 0xFFFF) << 48;
        // SAFETY: called once before any exception can use the table; the index is inside it.
        unsafe { (*idt).0[vector] = [low, handler >> 32] };
    }
    let mut register = [0_u8; 10];
    register[..2].copy_from_slice(&(32_u16 * 16 - 1).to_le_bytes());
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

/// Maps the shared window with or without the C-bit.
pub fn map_window(private: bool) {
    const LEAF: u64 = 0xE3; // present, writable, accessed, dirty, large
    let entry = SHARED_WINDOW_GPA | LEAF | u64::from(private) << C_BIT;
    let index = (SHARED_WINDOW_GPA >> 21) as usize;
    let table = ptr::with_exposed_provenance_mut::<u64>(PAGE_TABLES_GPA as usize + 2 * PAGE);
    // SAFETY: the third page of the page tables maps the first gigabyte in 2 MiB entries; nothing but the shared window
    // lies under this one, and its translation is flushed.
    unsafe {
        table.add(index).write_volatile(entry);
        asm!("invlpg [{}]", in(reg) SHARED_WINDOW_GPA, options(nostack, preserves_flags));
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
