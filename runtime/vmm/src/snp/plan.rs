//! Which pages a launch puts in place, in the order they are measured: that of the sections in stage0's own metadata.
//!
//! `coffer measure` makes the same plan from the same machine model to predict the digest; a test compares what is launched
//! with what it predicts, by a digest that neither computes.

use coffer_machine::firmware::{CPUID, SECRETS, SECTIONS};
use coffer_machine::map::{HASHES_GPA, PAGE, PAGE_TABLES_GPA, PARKING_GPA, ROM_HASHES, STAGE0_GPA};
use coffer_machine::page_tables::page_tables;

use super::host::{Page, PageKind};

/// Pages behind one another, of one kind: one SNP_LAUNCH_UPDATE, if KVM does it in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Address of the first.
    pub gpa: u64,
    /// What they are.
    pub kind: PageKind,
    /// Their contents.
    pub pages: Vec<Page>,
}

/// The runs of a launch into 64-bit mode, from a whole ROM and the page of hashes. The CPUID page is still empty.
pub fn plan(rom: &[u8], hashes: &[u8]) -> Vec<Run> {
    let image = rom.get(..ROM_HASHES).unwrap_or_default();
    let parking = rom.get(ROM_HASHES + PAGE..).unwrap_or_default();
    let tables = page_tables(true);
    let mut runs: Vec<Run> = Vec::new();
    for section in SECTIONS {
        let first = u64::from(section.gpa);
        let contents: &[u8] = match first {
            PAGE_TABLES_GPA => &tables,
            STAGE0_GPA => image,
            PARKING_GPA => parking,
            HASHES_GPA => hashes,
            _ => &[],
        };
        let mut contents = contents.chunks(PAGE);
        for gpa in (first..first + u64::from(section.size)).step_by(PAGE) {
            let mut page = Page::ZERO;
            if let Some(bytes) = contents.next() {
                page.0[..bytes.len()].copy_from_slice(bytes);
            }
            let kind = match section.kind {
                SECRETS => PageKind::Secrets,
                CPUID => PageKind::Cpuid,
                _ if page == Page::ZERO => PageKind::Zero,
                _ => PageKind::Normal,
            };
            match runs.last_mut() {
                Some(run) if run.kind == kind && run.end() == gpa => run.pages.push(page),
                _ => runs.push(Run { gpa, kind, pages: vec![page] }),
            }
        }
    }
    runs
}

impl Run {
    /// Address behind the last page.
    pub fn end(&self) -> u64 {
        self.gpa + (self.pages.len() * PAGE) as u64
    }
}

#[cfg(test)]
mod tests {
    use coffer_machine::map::{CPUID_GPA, ROM_SIZE, SECRETS_GPA};

    use super::*;

    #[test]
    fn sections_become_runs_in_their_order_and_zeros_are_pages_of_zeros() {
        let mut rom = vec![0; ROM_SIZE];
        rom[..3 * PAGE].fill(0x11);
        rom[ROM_HASHES..].fill(0x44);
        rom[ROM_SIZE - PAGE..].fill(0x22);
        let runs = plan(&rom, &[0x33; PAGE]);
        let shape: Vec<_> = runs.iter().map(|run| (run.gpa, run.kind, run.pages.len())).collect();
        assert_eq!(
            shape,
            [
                (PAGE_TABLES_GPA, PageKind::Normal, 4),
                (STAGE0_GPA, PageKind::Normal, 3),
                (STAGE0_GPA + 3 * PAGE as u64, PageKind::Zero, 13),
                (PARKING_GPA, PageKind::Normal, 1),
                (SECRETS_GPA, PageKind::Secrets, 1),
                (CPUID_GPA, PageKind::Cpuid, 1),
                (HASHES_GPA, PageKind::Normal, 1),
            ]
        );
        assert_eq!(runs[0].pages[0].0[..], page_tables(true)[..PAGE]);
        assert_eq!((runs[3].pages[0].0[0], runs[6].pages[0].0[0]), (0x22, 0x33));
    }
}
