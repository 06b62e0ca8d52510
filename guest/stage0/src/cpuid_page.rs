//! The CPUID page of an SEV-SNP guest: what the kernel will believe about its processor. stage0 takes one thing from it,
//! that the C-bit is where its page tables have it, and never executes CPUID.
//!
//! The secure processor checked its entries against what the processor can do before it let the launch pass. How many there
//! are it did not measure, and what stands behind them is whatever the host wrote.
//! Source: SNP ABI §8.14.2.6, CPUID page; Linux arch/x86/include/asm/sev-common.h, `struct snp_cpuid_table`.

use coffer_machine::{
    Refusal,
    bytes::le32,
    map::{C_BIT, PAGE},
};

/// Most entries of the page.
pub const LIMIT: usize = 64;
const HEADER: usize = 16;
const ENTRY: usize = 48;

/// Zeroes what the secure processor did not check: the header behind the count, and all behind the entries.
///
/// # Errors
/// [`Refusal::Cpuid`] if the count is zero or larger than the page.
pub fn keep_only_entries(page: &mut [u8; PAGE]) -> Result<(), Refusal> {
    let end = HEADER + CpuidPage::parse(page)?.entries.len();
    page[4..HEADER].fill(0);
    page[end..].fill(0);
    Ok(())
}

/// The page, checked to be well formed.
#[derive(Clone, Copy, Debug)]
pub struct CpuidPage<'a> {
    entries: &'a [u8],
}

impl<'a> CpuidPage<'a> {
    /// Reads the page.
    ///
    /// # Errors
    /// [`Refusal::Cpuid`] if its count is zero or larger than the page.
    pub fn parse(page: &'a [u8; PAGE]) -> Result<Self, Refusal> {
        let count = le32(page, 0).map_or(0, |count| count as usize);
        let entries = (1..=LIMIT).contains(&count).then(|| page.get(HEADER..HEADER + count * ENTRY)).flatten();
        entries.map(|entries| Self { entries }).ok_or(Refusal::Cpuid)
    }

    /// EAX, EBX, ECX, EDX of a leaf; zeros for one that is not listed, as a processor answers for what it has not.
    pub fn leaf(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        for entry in self.entries.chunks_exact(ENTRY) {
            let word = |index: usize| le32(entry, index * 4).unwrap_or(0);
            // Words: EAX in, ECX in, XCR0 in (2), XSS in (2), EAX, EBX, ECX, EDX, reserved (2).
            if word(0) == leaf && (!has_subleaves(leaf) || word(1) == subleaf) {
                return [word(6), word(7), word(8), word(9)];
            }
        }
        [0; 4]
    }

    /// Checks that the C-bit is where stage0's page tables have it.
    ///
    /// # Errors
    /// [`Refusal::Cpuid`].
    pub fn check_c_bit(&self) -> Result<(), Refusal> {
        let [eax, ebx, ..] = self.leaf(0x8000_001F, 0);
        // EAX: bit 1 SEV, bit 3 SEV-ES, bit 4 SEV-SNP. EBX 5:0: position of the C-bit.
        if eax & 0x1A == 0x1A && ebx & 0x3F == C_BIT { Ok(()) } else { Err(Refusal::Cpuid) }
    }
}

/// Leaves whose answer depends on ECX. Source: AMD APM volume 3, appendix E.
const fn has_subleaves(leaf: u32) -> bool {
    matches!(leaf, 0x4 | 0x7 | 0xB | 0xD | 0xF | 0x10 | 0x8000_001D | 0x8000_0020 | 0x8000_0026)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(entries: &[(u32, u32, [u32; 4])]) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[..4].copy_from_slice(&(entries.len() as u32).to_le_bytes());
        for (index, (leaf, subleaf, values)) in entries.iter().enumerate() {
            let at = HEADER + index * ENTRY;
            page[at..at + 4].copy_from_slice(&leaf.to_le_bytes());
            page[at + 4..at + 8].copy_from_slice(&subleaf.to_le_bytes());
            for (word, value) in values.iter().enumerate() {
                page[at + 24 + word * 4..at + 28 + word * 4].copy_from_slice(&value.to_le_bytes());
            }
        }
        page
    }

    #[test]
    fn leaves_are_told_apart_by_subleaf_only_where_they_have_some() {
        let page = page(&[(1, 0, [1, 2, 3, 4]), (7, 0, [5, 0, 0, 0]), (7, 1, [6, 0, 0, 0])]);
        let table = CpuidPage::parse(&page).unwrap();
        assert_eq!(table.leaf(1, 99), [1, 2, 3, 4]);
        assert_eq!((table.leaf(7, 0)[0], table.leaf(7, 1)[0], table.leaf(7, 2)), (5, 6, [0; 4]));
        assert_eq!(table.leaf(2, 0), [0; 4]);
    }

    #[test]
    fn an_empty_or_overlong_table_is_refused() {
        assert!(CpuidPage::parse(&[0; PAGE]).is_err());
        let mut long = page(&[(1, 0, [0; 4])]);
        long[0] = LIMIT as u8 + 1;
        assert!(CpuidPage::parse(&long).is_err());
        long[..4].fill(0xFF);
        assert!(CpuidPage::parse(&long).is_err());
    }

    #[test]
    fn what_stands_beside_the_entries_does_not_stay() {
        let mut found = page(&[(1, 0, [1, 2, 3, 4])]);
        let clean = found;
        found[4..HEADER].fill(0xAA);
        found[HEADER + ENTRY..].fill(0xAA);
        keep_only_entries(&mut found).unwrap();
        assert_eq!(found, clean);
        assert_eq!(keep_only_entries(&mut [0; PAGE]), Err(Refusal::Cpuid));
    }

    #[test]
    fn a_c_bit_elsewhere_or_a_guest_without_snp_is_refused() {
        let check = |eax, ebx| CpuidPage::parse(&page(&[(0x8000_001F, 0, [eax, ebx, 0, 0])])).unwrap().check_c_bit();
        assert_eq!(check(0x1A, 0x40 | 0x33), Ok(()));
        assert_eq!(check(0x1A, 47), Err(Refusal::Cpuid));
        assert_eq!(check(0x0A, 51), Err(Refusal::Cpuid));
        assert_eq!(CpuidPage::parse(&page(&[(1, 0, [0; 4])])).unwrap().check_c_bit(), Err(Refusal::Cpuid));
    }
}
