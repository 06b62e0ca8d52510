//! A ROM with stage0's tables and no stage0, for tests that measure and launch but boot nothing.

use coffer_stage0::machine::{
    CPUID_GPA, HASHES_GPA, PAGE, PAGE_TABLES_GPA, PAGE_TABLES_SIZE, ROM_SIZE, SECRETS_GPA, STAGE0_GPA, STAGE0_SIZE,
};

/// One section: address, bytes, type.
pub type SectionWords = [u32; 3];

/// A ROM that a launch takes for stage0, with `code` as its first byte.
pub fn rom(code: u8) -> Vec<u8> {
    rom_with(code, |_| {})
}

/// As [`rom`], with other launch sections.
pub fn rom_with(code: u8, change: impl FnOnce(&mut [SectionWords; 5])) -> Vec<u8> {
    let page = PAGE as u32;
    let mut sections = [
        [PAGE_TABLES_GPA as u32, PAGE_TABLES_SIZE as u32, 1],
        [STAGE0_GPA as u32, STAGE0_SIZE as u32, 1],
        [SECRETS_GPA as u32, page, 2],
        [CPUID_GPA as u32, page, 3],
        [HASHES_GPA as u32, page, 0x10],
    ];
    change(&mut sections);
    let mut metadata = b"ASEV".to_vec();
    metadata.extend([76, 1, 5].into_iter().chain(sections.into_iter().flatten()).flat_map(u32::to_le_bytes));
    let mut table = Vec::new();
    for (data, guid) in
        [(&[0x200][..], SEV_METADATA), (&[HASHES_GPA as u32, page], HASH_TABLE_AREA), (&[0xFFFF_F110], RESET_BLOCK)]
    {
        table.extend(data.iter().flat_map(|word| word.to_le_bytes()));
        table.extend(((data.len() * 4 + ENTRY_HEADER) as u16).to_le_bytes());
        table.extend(guid.to_be_bytes());
    }
    table.extend(((table.len() + ENTRY_HEADER) as u16).to_le_bytes());
    table.extend(FOOTER.to_be_bytes());
    let mut rom = vec![0; ROM_SIZE];
    rom[0] = code;
    rom[ROM_SIZE - 0x200..][..metadata.len()].copy_from_slice(&metadata);
    rom[ROM_SIZE - 32 - table.len()..ROM_SIZE - 32].copy_from_slice(&table);
    rom
}

const ENTRY_HEADER: usize = 18;
/// GUIDs in their mixed-endian bytes.
const SEV_METADATA: u128 = 0x666588dc_4a98_9847_a75e_5585a7bf67cc;
const HASH_TABLE_AREA: u128 = 0x1f375572_3b3a_044b_927b_1da6efa8d454;
const RESET_BLOCK: u128 = 0xde71f700_7e1a_cb4f_890e_68c77e2fb44e;
const FOOTER: u128 = 0xde82b596_b21f_f745_baea_a366c55a082d;
