//! A vCPU's save area where the monitor sets a 64-bit state and KVM makes the VMSA of it.
//!
//! Source: AMD APM volume 2, Table B-4; Linux `arch/x86/kvm/svm/sev.c`, `sev_es_sync_vmsa`, `sev_post_set_cr3`.

use super::vmsa::{segment, word};
use super::{PAGE_SIZE, Page};

/// A segment register as KVM writes it into the save area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentState {
    /// Selector.
    pub selector: u16,
    /// Attributes in the order of a VMSA: type, S, DPL, P, then AVL, L, D/B, G.
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
}

/// A processor's state as the monitor sets it; what is not named here is as at reset, and general registers are zero, RDX
/// too: such a VMSA is the same on every type of vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongModeVmsa {
    /// CS.
    pub code: SegmentState,
    /// DS, ES, FS, GS and SS.
    pub data: SegmentState,
    /// LDTR.
    pub ldtr: SegmentState,
    /// TR.
    pub tr: SegmentState,
    /// CR0.
    pub cr0: u64,
    /// CR3, with the C-bit.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    /// SEV_FEATURES; 1 is SNP alone.
    pub features: u64,
}

impl LongModeVmsa {
    /// The page that is measured.
    pub fn page(&self) -> Box<Page> {
        let mut page = Box::new([0; PAGE_SIZE]);
        // GDTR (0x60) and IDTR (0x80) stay zero: an event before stage0 has tables of its own ends the machine.
        let data = [0x00, 0x20, 0x30, 0x40, 0x50].map(|at| (at, self.data)); // ES, SS, DS, FS, GS
        for (at, it) in data.into_iter().chain([(0x10, self.code), (0x70, self.ldtr), (0x90, self.tr)]) {
            segment(&mut page, at, it.selector, it.attributes, it.limit, 0);
        }
        word(&mut page, 0xd0, self.efer | EFER_SVME);
        word(&mut page, 0x148, self.cr4 | CR4_MCE);
        word(&mut page, 0x150, self.cr3);
        word(&mut page, 0x158, self.cr0);
        word(&mut page, 0x160, 0x400); // DR7
        word(&mut page, 0x168, 0xffff_0ff0); // DR6
        word(&mut page, 0x170, self.rflags);
        word(&mut page, 0x178, self.rip);
        word(&mut page, 0x268, 0x0007_0406_0007_0406); // G_PAT
        word(&mut page, 0x3b0, self.features); // SEV_FEATURES
        word(&mut page, 0x3e8, 0x1); // XCR0
        page[0x408..0x40c].copy_from_slice(&0x1f80_u32.to_le_bytes()); // MXCSR
        page[0x410..0x412].copy_from_slice(&0x37f_u16.to_le_bytes()); // x87 FCW
        page
    }
}

/// Set by KVM in every guest's EFER.
const EFER_SVME: u64 = 0x1000;
/// Set by KVM, which mirrors the host's.
const CR4_MCE: u64 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;

    const FLAT: SegmentState = SegmentState { selector: 0x18, attributes: 0xc93, limit: u32::MAX };
    const STATE: LongModeVmsa = LongModeVmsa {
        code: SegmentState { selector: 0x10, attributes: 0xa9b, limit: u32::MAX },
        data: FLAT,
        ldtr: SegmentState { selector: 0, attributes: 0x82, limit: 0xffff },
        tr: SegmentState { selector: 0, attributes: 0x8b, limit: 0xffff },
        cr0: 0x8000_0031,
        cr3: 1 << 51 | 0x1000,
        cr4: 0x20,
        efer: 0x500,
        rflags: 2,
        rip: 0x10_0000,
        features: 1,
    };

    fn le64(page: &Page, at: usize) -> u64 {
        u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn kvm_adds_svme_and_the_hosts_machine_checks() {
        let page = STATE.page();
        assert_eq!((le64(&page, 0xd0), le64(&page, 0x148), le64(&page, 0x150)), (0x1500, 0x60, 0x8_0000_0000_1000));
        assert_eq!((le64(&page, 0x178), le64(&page, 0x310)), (0x10_0000, 0), "RIP in full, RDX zero");
        assert_eq!(page[0x60..0x70], [0; 16], "no GDT");
        assert_eq!(page[0x80..0x90], [0; 16], "no IDT");
        assert_eq!(page[0x10..0x18], [0x10, 0, 0x9b, 0x0a, 0xff, 0xff, 0xff, 0xff], "64-bit code");
    }

    #[test]
    fn every_field_is_measured() {
        let other = SegmentState { selector: 8, ..FLAT };
        let all = [
            STATE,
            LongModeVmsa { code: other, ..STATE },
            LongModeVmsa { data: other, ..STATE },
            LongModeVmsa { ldtr: other, ..STATE },
            LongModeVmsa { tr: other, ..STATE },
            LongModeVmsa { cr0: 1, ..STATE },
            LongModeVmsa { cr3: 0, ..STATE },
            LongModeVmsa { cr4: 0, ..STATE },
            LongModeVmsa { efer: 0xd00, ..STATE },
            LongModeVmsa { rflags: 0, ..STATE },
            LongModeVmsa { rip: 0, ..STATE },
            LongModeVmsa { features: 0x21, ..STATE },
        ];
        let pages: std::collections::HashSet<_> = all.iter().map(LongModeVmsa::page).collect();
        assert_eq!(pages.len(), all.len());
    }
}
