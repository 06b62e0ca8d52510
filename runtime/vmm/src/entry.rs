//! The state in which the first processor enters stage0: 64-bit mode, everything mapped as it lies.
//!
//! stage0 takes any such state; this is the one a launch measures. Source: `guest/stage0`, start.s, `entry64`; AMD APM
//! volume 2, chapter 14.

use coffer_machine::map::{PAGE, PAGE_TABLES_GPA, PAGE_TABLES_SIZE, STAGE0_GPA};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// The page tables: 4 GiB, the first of them in 2 MiB pages.
pub fn page_tables() -> Vec<u8> {
    let mut tables = vec![0; PAGE_TABLES_SIZE as usize];
    let mut put = |at: usize, entry: u64| tables[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    let table = |index: u64| PAGE_TABLES_GPA + index * PAGE as u64;
    put(0, table(1) | TABLE);
    put(PAGE, table(2) | TABLE);
    for gigabyte in 1..4_usize {
        put(PAGE + gigabyte * 8, (gigabyte as u64) << 30 | LEAF);
    }
    for large in 0..512_usize {
        put(2 * PAGE + large * 8, (large as u64) << 21 | LEAF);
    }
    tables
}

/// Present, writable, accessed.
const TABLE: u64 = 0x23;
/// Present, writable, accessed, dirty, large.
const LEAF: u64 = 0xE3;

/// Segments and control registers, from what KVM has at reset.
pub fn system_registers(at_reset: &kvm_sregs) -> kvm_sregs {
    let code = kvm_segment { selector: 0x10, type_: 0xB, l: 1, db: 0, ..FLAT };
    let data = kvm_segment { selector: 0x18, type_: 0x3, ..FLAT };
    kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        cr0: 0x8000_0031,
        cr3: PAGE_TABLES_GPA,
        cr4: 0x20,
        efer: 0x500,
        ..*at_reset
    }
}

const FLAT: kvm_segment = kvm_segment {
    base: 0,
    limit: u32::MAX,
    selector: 0,
    type_: 0,
    present: 1,
    dpl: 0,
    db: 1,
    s: 1,
    l: 0,
    g: 1,
    avl: 0,
    unusable: 0,
    padding: 0,
};

/// General registers: all zero but where to start.
pub fn registers() -> kvm_regs {
    kvm_regs { rip: STAGE0_GPA, rflags: 2, ..kvm_regs::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the tables as a processor does.
    fn translate(tables: &[u8], address: u64) -> u64 {
        let read = |at: u64| {
            let at = (at - PAGE_TABLES_GPA) as usize;
            u64::from_le_bytes(tables[at..at + 8].try_into().unwrap())
        };
        let mut table = PAGE_TABLES_GPA;
        for shift in [39, 30, 21] {
            let entry = read(table + (address >> shift & 511) * 8);
            assert_eq!(entry & 3, 3, "{address:#x} is not mapped");
            let base = entry & 0x000F_FFFF_FFFF_F000;
            if entry & 0x80 != 0 {
                return base | address & ((1 << shift) - 1);
            }
            table = base;
        }
        panic!("{address:#x} has no leaf")
    }

    #[test]
    fn four_gigabytes_are_mapped_as_they_lie() {
        let tables = page_tables();
        for address in [0, STAGE0_GPA, 0x1F_FFFF, 0x3FFF_FFFF, 0x4000_0000, 0xFFFF_FFF8] {
            assert_eq!(translate(&tables, address), address);
        }
    }
}
