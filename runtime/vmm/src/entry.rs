//! The state in which the first processor enters stage0: 64-bit mode, everything mapped as it lies.
//!
//! stage0 takes any such state; this is the one a launch measures, so its values stand in `coffer_machine::entry`.

use coffer_machine::entry::{CODE, CR0, CR4, DATA, EFER, FIRST_RIP, LDTR, PARKED_RIP, RFLAGS, Segment, TR, cr3};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

/// Segments and control registers, from what KVM has at reset; `encrypted`: with the C-bit in CR3, for SEV-SNP.
pub fn system_registers(at_reset: &kvm_sregs, encrypted: bool) -> kvm_sregs {
    let data = segment(DATA);
    kvm_sregs {
        cs: segment(CODE),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: segment(TR),
        ldt: segment(LDTR),
        gdt: kvm_dtable::default(),
        idt: kvm_dtable::default(),
        cr0: CR0,
        cr3: cr3(encrypted),
        cr4: CR4,
        efer: EFER,
        ..*at_reset
    }
}

fn segment(it: Segment) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: it.limit,
        selector: it.selector,
        type_: it.kind(),
        s: it.bit(4),
        dpl: it.bit(5) | it.bit(6) << 1,
        present: it.bit(7),
        avl: it.bit(8),
        l: it.bit(9),
        db: it.bit(10),
        g: it.bit(11),
        unusable: 0,
        padding: 0,
    }
}

/// General registers: all zero but where to start, which for every processor but the first is where it is parked.
pub fn registers(first: bool) -> kvm_regs {
    kvm_regs { rip: if first { FIRST_RIP } else { PARKED_RIP }, rflags: RFLAGS, ..kvm_regs::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_gets_64_bit_code_and_flat_data() {
        let set = system_registers(&kvm_sregs::default(), false);
        let bits = |it: &kvm_segment| (it.selector, it.type_, it.s, it.dpl, it.present, it.l, it.db, it.g, it.limit);
        assert_eq!(bits(&set.cs), (0x10, 0xB, 1, 0, 1, 1, 0, 1, u32::MAX));
        for data in [set.ds, set.es, set.fs, set.gs, set.ss] {
            assert_eq!(bits(&data), (0x18, 0x3, 1, 0, 1, 0, 1, 1, u32::MAX));
        }
        assert_eq!(bits(&set.tr), (0, 0xB, 0, 0, 1, 0, 0, 0, 0xFFFF));
        assert_eq!(bits(&set.ldt), (0, 0x2, 0, 0, 1, 0, 0, 0, 0xFFFF));
        assert_eq!((set.gdt.limit, set.idt.limit), (0, 0));
        assert_eq!((set.cr0, set.cr3, set.cr4, set.efer), (0x8000_0031, 0x1000, 0x20, 0x500));
        assert_eq!((registers(true).rip, registers(true).rdx), (0x10_0000, 0));
        assert_eq!(registers(false).rip, PARKED_RIP);
        assert_eq!(system_registers(&kvm_sregs::default(), true).cr3, 0x8_0000_0000_1000);
    }
}
