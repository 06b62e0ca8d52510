//! The start code, with the numbers of the machine model put in.

use core::arch::global_asm;

use coffer_machine::{
    firmware::{ENTRY_HEADER, METADATA_FROM_END, METADATA_MAGIC, METADATA_VERSION, SECTIONS, TABLE_END_FROM_END, guid},
    map::{
        C_BIT, HASHES_GPA, PAGE, PAGE_TABLES_GPA, PAGE_TABLES_SIZE, PARKING_64, PARKING_GPA, ROM_GPA, ROM_HASHES,
        ROM_SIZE, SHARED_WINDOW_GPA, STAGE0_GPA,
    },
    page_tables::{LARGE, SMALL, TABLE},
};
use coffer_stage0::ghcb;

global_asm!(
    include_str!("../start.s"),
    rom = const ROM_GPA,
    run = const STAGE0_GPA,
    page_tables = const PAGE_TABLES_GPA,
    page_tables_size = const PAGE_TABLES_SIZE,
    table = const TABLE,
    large = const LARGE,
    small = const SMALL,
    window = const SHARED_WINDOW_GPA,
    parking_64 = const PARKING_64,
    rom_tail = const ROM_GPA + ROM_HASHES as u64,
    ghcb_msr = const ghcb::MSR,
    reset_hold = const ghcb::RESET_HOLD,
    c_bit = const C_BIT,
    hashes = const HASHES_GPA,
    metadata_magic = const u32::from_le_bytes(*METADATA_MAGIC),
    metadata_version = const METADATA_VERSION,
    metadata_from_end = const METADATA_FROM_END,
    table_end_from_end = const TABLE_END_FROM_END,
    entry_header = const ENTRY_HEADER,
    gpa_0 = const SECTIONS[0].gpa,
    size_0 = const SECTIONS[0].size,
    kind_0 = const SECTIONS[0].kind,
    gpa_1 = const SECTIONS[1].gpa,
    size_1 = const SECTIONS[1].size,
    kind_1 = const SECTIONS[1].kind,
    gpa_2 = const SECTIONS[2].gpa,
    size_2 = const SECTIONS[2].size,
    kind_2 = const SECTIONS[2].kind,
    gpa_3 = const SECTIONS[3].gpa,
    size_3 = const SECTIONS[3].size,
    kind_3 = const SECTIONS[3].kind,
    gpa_4 = const SECTIONS[4].gpa,
    size_4 = const SECTIONS[4].size,
    kind_4 = const SECTIONS[4].kind,
    gpa_5 = const SECTIONS[5].gpa,
    size_5 = const SECTIONS[5].size,
    kind_5 = const SECTIONS[5].kind,
    sev_metadata_0 = const halves(guid::SEV_METADATA)[0],
    sev_metadata_1 = const halves(guid::SEV_METADATA)[1],
    reset_block_0 = const halves(guid::RESET_BLOCK)[0],
    reset_block_1 = const halves(guid::RESET_BLOCK)[1],
    footer_0 = const halves(guid::FOOTER)[0],
    footer_1 = const halves(guid::FOOTER)[1],
    options(att_syntax)
);

const _: () = assert!(SECTIONS.len() == 6, "the start code lists each section");
const _: () = assert!(
    ROM_HASHES + 2 * PAGE == ROM_SIZE && HASHES_GPA + PAGE as u64 == PARKING_GPA,
    "the start code copies both pages at once"
);

/// A GUID as two words whose little-endian bytes are the GUID's.
const fn halves(guid: u128) -> [u64; 2] {
    [((guid >> 64) as u64).swap_bytes(), (guid as u64).swap_bytes()]
}
