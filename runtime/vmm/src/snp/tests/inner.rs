//! A guest inside the guest, whose accesses are of another kind than the page they reach: on a machine of this type KVM takes
//! for the kind what the attribute of the accessed address is, and for an inner guest that is the inner address. Where
//! its nested tables lead from a shared address to a private page, the access is a shared one, as an SEV-SNP guest's is
//! without the C-bit.
//!
//! Source: AMD APM volume 2, §15.5 and appendix B (VMCB), §15.25 (nested paging); Linux arch/x86/kvm/mmu/mmu.c,
//! `kvm_mmu_page_fault`.

use coffer_machine::entry::{CODE, CR0, CR4, DATA, EFER, LDTR, RFLAGS, Segment, TR};
use coffer_machine::map::{PAGE, PAGE_TABLES_GPA};
use vm_memory::{Bytes as _, GuestAddress};

use super::guest::{FOUND_GPA, INT3, RAX, READ_RAX, WRITE_RAX, word};
use crate::Memory;

/// Pages behind the one with what was found, shared like it.
const VMCB_GPA: u64 = FOUND_GPA + PAGE as u64;
/// Where a processor keeps what it likes of the outer guest; KVM keeps it elsewhere.
pub const SAVED_GPA: u64 = FOUND_GPA + 2 * PAGE as u64;
const CODE_GPA: u64 = FOUND_GPA + 3 * PAGE as u64;
const TABLES_GPA: u64 = FOUND_GPA + 4 * PAGE as u64;
/// How many there are.
pub const PAGES: u64 = 7;

/// Where it writes down what it read.
pub const READ_GPA: u64 = FOUND_GPA + 0x900;

/// What stands there before.
pub const NOTHING: u64 = !0;

/// Puts an inner guest into memory that reads a word, writes it down and shuts down. For it, the 2 MiB from `at` are those
/// around the address `is`, where the word lies; all else lies where it lies.
pub fn put(memory: &Memory, at: u64, is: u64) {
    let write = |at: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).unwrap();
    write(READ_GPA, &NOTHING.to_le_bytes());
    let mut code = Vec::new();
    word(&mut code, READ_RAX, at + is % LARGE);
    word(&mut code, WRITE_RAX, READ_GPA);
    code.push(INT3);
    write(CODE_GPA, &code);

    // Present, writable, and the user's: every walk through them is one.
    let table = |index: u64| TABLES_GPA + index * PAGE as u64;
    write(table(0), &(table(1) | 7).to_le_bytes());
    write(table(1), &(table(2) | 7).to_le_bytes());
    for start in (0..512 * LARGE).step_by(LARGE as usize) {
        let leads_to = if start == at { is - is % LARGE } else { start };
        write(table(2) + start / LARGE * 8, &(leads_to | 0x87).to_le_bytes());
    }

    let put = |at: u64, bytes: &[u8]| write(VMCB_GPA + at, bytes);
    let put_word = |at: u64, word: u64| put(at, &word.to_le_bytes());
    put_word(0x010, 1); // VMRUN leaves the inner guest: else there is none
    put_word(0x058, 1); // its ASID
    put_word(0x090, 1); // nested paging
    put_word(0x0B0, table(0));
    let segment = |at: u64, it: Segment| {
        put(at, &it.selector.to_le_bytes());
        put(at + 2, &it.attributes.to_le_bytes());
        put(at + 4, &it.limit.to_le_bytes());
    };
    segment(0x410, CODE);
    for at in [0x400, 0x420, 0x430, 0x440, 0x450] {
        segment(at, DATA);
    }
    segment(0x470, LDTR);
    segment(0x490, TR);
    let state = [
        (0x4D0, EFER | SVME),
        (0x548, CR4),
        (0x550, PAGE_TABLES_GPA),
        (0x558, CR0),
        (0x560, 0x400),
        (0x568, 0xFFFF_0FF0),
        (0x570, RFLAGS),
        (0x578, CODE_GPA),
        (0x668, 0x0007_0406_0007_0406),
    ];
    for (at, value) in state {
        put_word(at, value);
    }
}

/// The outer guest's way into it.
pub fn enter(code: &mut Vec<u8>) {
    for (register, value) in [(EFER_MSR, EFER | SVME), (VM_HSAVE_PA, SAVED_GPA)] {
        code.push(MOV_ECX);
        code.extend(register.to_le_bytes());
        word(code, RAX, value);
        code.extend(XOR_EDX);
        code.extend(WRMSR);
    }
    word(code, RAX, VMCB_GPA);
    code.extend(VMRUN);
}

/// Bytes of a large page.
const LARGE: u64 = 2 << 20;
const SVME: u64 = 1 << 12;
const EFER_MSR: u32 = 0xC000_0080;
const VM_HSAVE_PA: u32 = 0xC001_0117;
const MOV_ECX: u8 = 0xB9;
const XOR_EDX: [u8; 2] = [0x31, 0xD2];
const WRMSR: [u8; 2] = [0x0F, 0x30];
const VMRUN: [u8; 3] = [0x0F, 0x01, 0xD8];
