//! The CPUID page: what the guest will believe of its processor, made of what KVM offers.
//!
//! The secure processor compares each entry with what the processor has. Where an entry claims more, it refuses the page and
//! gives one it would take; what it changed is shown, and the changed page is tried once.
//! Source: SNP ABI, SNP_LAUNCH_UPDATE, CPUID page; Linux arch/x86/include/asm/sev-common.h, `struct snp_cpuid_table`; QEMU
//! target/i386/sev.c, `sev_snp_mask_cpuid_features` and `sev_snp_cpuid_info_fill`, for what firmware is known to refuse.

use std::fmt;

use coffer_machine::map::C_BIT;

use super::host::{Page, kvm_cpuid_entry2};

/// Most entries.
pub const MOST: usize = 64;
const HEADER: usize = 16;
const ENTRY: usize = 48;
/// In an entry: EAX and ECX in, XCR0 and XSS in, then the four registers.
const AT_XCR0: usize = 8;
const AT_REGISTERS: usize = 24;
const REGISTERS: [&str; 4] = ["EAX", "EBX", "ECX", "EDX"];

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CpuidError {
    /// More than fit. None may be left out: the guest would take it for something the processor has not.
    #[error("KVM offers {0} CPUID entries, and a page has {MOST}")]
    TooMany(usize),
    /// The processor's own word on SEV is not there.
    #[error("KVM offers no SEV-SNP in CPUID leaf 0x8000001f")]
    NoSnp,
    /// stage0's page tables, which are measured, have the bit elsewhere.
    #[error("this processor's C-bit is bit {0}; stage0's page tables, which are measured, have it at {C_BIT}")]
    CBit(u32),
}

/// Takes out what firmware is known to refuse; for KVM and for the page, which have to say the same.
pub fn clear_refused(entries: &mut [kvm_cpuid_entry2]) {
    for entry in entries {
        match (entry.function, entry.index) {
            // TSC deadline timer.
            (0x1, _) => entry.ecx &= !(1 << 24),
            // TSC_ADJUST; SPEC_CTRL, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, CORE_CAPABILITY, SSBD.
            (0x7, 0) => {
                entry.ebx &= !(1 << 1);
                entry.edx &= !(0x3F << 26);
            }
            // VIRT_SSBD.
            (0x8000_0008, _) => entry.ebx &= !(1 << 25),
            (0x8000_0021, _) => entry.ecx = 0,
            _ => {}
        }
    }
}

/// Makes the page. Entries of zeros are left out: that is what a leaf without an entry reads as.
///
/// # Errors
/// [`CpuidError`].
pub fn page(entries: &[kvm_cpuid_entry2]) -> Result<Page, CpuidError> {
    let sev = entries.iter().find(|entry| entry.function == 0x8000_001F).ok_or(CpuidError::NoSnp)?;
    // SEV, SEV-ES, SEV-SNP.
    if sev.eax & 0x1A != 0x1A {
        return Err(CpuidError::NoSnp);
    }
    if sev.ebx & 0x3F != C_BIT {
        return Err(CpuidError::CBit(sev.ebx & 0x3F));
    }
    let said = |entry: &&kvm_cpuid_entry2| entry.eax | entry.ebx | entry.ecx | entry.edx != 0;
    let kept: Vec<_> = entries.iter().filter(said).collect();
    if kept.len() > MOST {
        return Err(CpuidError::TooMany(kept.len()));
    }
    let mut page = Page::ZERO;
    page.0[..4].copy_from_slice(&(kept.len() as u32).to_le_bytes());
    for (slot, entry) in page.0[HEADER..].chunks_exact_mut(ENTRY).zip(kept) {
        let mut put = |at: usize, word: u32| slot[at..at + 4].copy_from_slice(&word.to_le_bytes());
        let subleaf = if entry.flags & SIGNIFICANT_INDEX != 0 { entry.index } else { 0 };
        let mut registers = [entry.eax, entry.ebx, entry.ecx, entry.edx];
        put(0, entry.function);
        put(4, subleaf);
        if entry.function == 0xD && subleaf <= 1 {
            // Sizes of the state follow from what is switched on; a guest starts with the x87 state alone.
            put(AT_XCR0, 1);
            registers[1] = XSAVE_AT_START;
        }
        for (index, word) in registers.into_iter().enumerate() {
            put(AT_REGISTERS + index * 4, word);
        }
    }
    Ok(page)
}

/// KVM_CPUID_FLAG_SIGNIFCANT_INDEX.
const SIGNIFICANT_INDEX: u32 = 1;
/// Bytes of the XSAVE area's legacy part and header.
const XSAVE_AT_START: u32 = 0x240;

/// One register the firmware changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// EAX in.
    pub leaf: u32,
    /// ECX in.
    pub subleaf: u32,
    /// EAX to EDX, 0 to 3.
    register: usize,
    /// As KVM offered it.
    pub offered: u32,
    /// As the firmware has it.
    pub corrected: u32,
}

impl fmt::Display for Correction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { leaf, subleaf, register, offered, corrected } = self;
        write!(out, "CPUID {leaf:#x}.{subleaf:#x} {}: {offered:#x} is {corrected:#x}", REGISTERS[*register])
    }
}

/// Takes the firmware's registers over into the page that was offered, and says which differ. `None` if it answered with
/// another list of leaves, so with no correction of this page.
pub fn correct(offered: &Page, answered: &Page) -> Option<(Page, Vec<Correction>)> {
    let word =
        |page: &Page, at: usize| page.0[at..at + 4].iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    let count = word(offered, 0);
    if word(answered, 0) != count || count as usize > MOST {
        return None;
    }
    let (mut corrected, mut all) = (offered.clone(), Vec::new());
    for at in (HEADER..).step_by(ENTRY).take(count as usize) {
        let (leaf, subleaf) = (word(offered, at), word(offered, at + 4));
        if answered.0[at..at + AT_REGISTERS] != offered.0[at..at + AT_REGISTERS] {
            return None;
        }
        for register in 0..REGISTERS.len() {
            let from = at + AT_REGISTERS + register * 4;
            if word(offered, from) != word(answered, from) {
                corrected.0[from..from + 4].copy_from_slice(&answered.0[from..from + 4]);
                let (offered, corrected) = (word(offered, from), word(answered, from));
                all.push(Correction { leaf, subleaf, register, offered, corrected });
            }
        }
    }
    Some((corrected, all))
}

#[cfg(test)]
mod tests {
    use coffer_stage0::cpuid_page::CpuidPage;
    use proptest::prelude::*;

    use super::*;

    fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 { function, index, flags: SIGNIFICANT_INDEX, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn sev() -> kvm_cpuid_entry2 {
        entry(0x8000_001F, 0, [0x1A, C_BIT, 0, 0])
    }

    #[test]
    fn stage0_reads_the_page_as_it_was_meant() {
        let page = page(&[entry(7, 0, [1, 2, 3, 4]), entry(7, 1, [5, 6, 7, 8]), entry(3, 0, [0; 4]), sev()]).unwrap();
        let read = CpuidPage::parse(&page.0).unwrap();
        assert_eq!((read.leaf(7, 0), read.leaf(7, 1), read.leaf(3, 0)), ([1, 2, 3, 4], [5, 6, 7, 8], [0; 4]));
        read.check_c_bit().unwrap();
        assert_eq!(page.0[0], 3, "a leaf of zeros takes no place");
    }

    #[test]
    fn what_firmware_refuses_is_not_offered() {
        let all = u32::MAX;
        let mut entries = [1, 7, 0x8000_0008, 0x8000_0021].map(|leaf| entry(leaf, 0, [all; 4]));
        let mut other = [entry(7, 1, [all; 4])];
        clear_refused(&mut entries);
        clear_refused(&mut other);
        assert_eq!(entries[0].ecx, !(1 << 24));
        assert_eq!((entries[1].ebx, entries[1].edx, entries[1].ecx), (!2, 0x03FF_FFFF, all));
        assert_eq!((entries[2].ebx, entries[3].ecx), (!(1 << 25), 0));
        assert_eq!((other[0].ebx, other[0].edx), (all, all), "only the first subleaf");
    }

    #[test]
    fn sizes_of_the_extended_state_are_those_of_a_start() {
        let page = page(&[entry(0xD, 0, [7, 0x988, 0x988, 0]), entry(0xD, 2, [256, 576, 0, 0]), sev()]).unwrap();
        let read = CpuidPage::parse(&page.0).unwrap();
        assert_eq!((read.leaf(0xD, 0), read.leaf(0xD, 2)), ([7, 0x240, 0x988, 0], [256, 576, 0, 0]));
        assert_eq!((page.0[HEADER + AT_XCR0], page.0[HEADER + ENTRY + AT_XCR0]), (1, 0));
    }

    #[test]
    fn an_index_that_means_nothing_is_zero() {
        let plain = kvm_cpuid_entry2 { flags: 0, ..entry(2, 9, [1; 4]) };
        assert_eq!(page(&[plain, sev()]).unwrap().0[HEADER + 4], 0);
    }

    #[test]
    fn too_many_entries_are_refused_and_none_is_left_out() {
        let mut entries: Vec<_> = (0..63).map(|leaf| entry(leaf, 0, [1; 4])).collect();
        entries.push(sev());
        assert_eq!(page(&entries).unwrap().0[0], 64);
        entries.push(entry(99, 0, [1; 4]));
        assert_eq!(page(&entries), Err(CpuidError::TooMany(65)));
    }

    #[test]
    fn a_processor_without_snp_or_with_its_c_bit_elsewhere_is_refused() {
        assert_eq!(page(&[entry(1, 0, [1; 4])]), Err(CpuidError::NoSnp));
        assert_eq!(page(&[entry(0x8000_001F, 0, [0x0A, C_BIT, 0, 0])]), Err(CpuidError::NoSnp));
        assert_eq!(page(&[entry(0x8000_001F, 0, [0x1A, 47, 0, 0])]), Err(CpuidError::CBit(47)));
    }

    #[test]
    fn a_correction_names_leaf_and_register() {
        let offered = page(&[entry(0x8000_001D, 3, [1, 2, 3, 4]), sev()]).unwrap();
        let answered = page(&[entry(0x8000_001D, 3, [1, 2, 3, 6]), sev()]).unwrap();
        let (corrected, all) = correct(&offered, &answered).unwrap();
        assert_eq!(corrected, answered);
        assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), ["CPUID 0x8000001d.0x3 EDX: 0x4 is 0x6"]);
        let other = page(&[entry(0x8000_001D, 2, [1, 2, 3, 4]), sev()]).unwrap();
        assert_eq!(correct(&offered, &other), None, "another leaf is no correction");
        assert_eq!(correct(&offered, &page(&[sev()]).unwrap()), None);
    }

    proptest! {
        #[test]
        fn of_an_answer_only_registers_are_taken_and_none_panics(bytes in proptest::collection::vec(any::<u8>(), 4096)) {
            let offered = page(&[entry(7, 0, [1, 2, 3, 4]), sev()]).unwrap();
            let mut answered = offered.clone();
            for at in [HEADER + AT_REGISTERS, HEADER + ENTRY + AT_REGISTERS] {
                answered.0[at..at + 16].copy_from_slice(&bytes[at..at + 16]);
            }
            answered.0[HEADER + 2 * ENTRY..].copy_from_slice(&bytes[HEADER + 2 * ENTRY..]);
            let (corrected, all) = correct(&offered, &answered).unwrap();
            prop_assert!(all.len() <= 8);
            prop_assert_eq!(&corrected.0[..HEADER + 2 * ENTRY], &answered.0[..HEADER + 2 * ENTRY]);
            prop_assert_eq!(&corrected.0[HEADER + 2 * ENTRY..], &offered.0[HEADER + 2 * ENTRY..]);
            let _ = correct(&offered, &Page(bytes.try_into().unwrap()));
        }
    }
}
