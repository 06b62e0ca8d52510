//! A ROM with stage0's tables and no stage0, for tests that measure and launch but boot nothing.

use coffer_machine::{
    firmware::{
        ENTRY_HEADER, METADATA_FROM_END, METADATA_HEADER, METADATA_MAGIC, METADATA_VERSION, SECTIONS, Section,
        TABLE_END_FROM_END, guid,
    },
    map::{ROM_GPA, ROM_SIZE},
};
use coffer_verifier::measure::LaunchForm;

use crate::plan::{LaunchFile, LaunchInputs, VCPU_TYPE};

/// A launch of such a ROM at the reset vector, on one processor.
///
/// # Panics
/// Never: the type of processor is known, and a test makes this.
pub fn inputs(firmware: &[u8]) -> LaunchInputs<'_> {
    LaunchInputs {
        form: LaunchForm::ResetVector,
        firmware,
        kernel: LaunchFile::Bytes(b"kernel"),
        initrd: LaunchFile::Bytes(b"initrd"),
        command_line: "coffer.tee=simulated",
        vcpus: 1,
        signature: VCPU_TYPE.parse().expect("one of the types that are known"),
    }
}

/// A ROM that a launch takes for stage0, with `code` as its first byte.
pub fn rom(code: u8) -> Vec<u8> {
    rom_with(code, |_| {})
}

/// As [`rom`], with other launch sections.
pub fn rom_with(code: u8, change: impl FnOnce(&mut [Section; 6])) -> Vec<u8> {
    let mut sections = SECTIONS;
    change(&mut sections);
    let mut metadata = METADATA_MAGIC.to_vec();
    let length = METADATA_HEADER + size_of_val(&sections);
    let head = [length as u32, METADATA_VERSION, sections.len() as u32];
    let sections = sections.iter().flat_map(|it| [it.gpa, it.size, it.kind]);
    metadata.extend(head.into_iter().chain(sections).flat_map(u32::to_le_bytes));
    let mut table = Vec::new();
    for (data, guid) in
        [(&[METADATA_FROM_END][..], guid::SEV_METADATA), (&[ROM_GPA as u32 + 0xF110], guid::RESET_BLOCK)]
    {
        table.extend(data.iter().flat_map(|word| word.to_le_bytes()));
        table.extend((data.len() as u16 * 4 + ENTRY_HEADER).to_le_bytes());
        table.extend(guid.to_be_bytes());
    }
    table.extend((table.len() as u16 + ENTRY_HEADER).to_le_bytes());
    table.extend(guid::FOOTER.to_be_bytes());
    let mut rom = vec![0; ROM_SIZE];
    rom[0] = code;
    rom[ROM_SIZE - METADATA_FROM_END as usize..][..metadata.len()].copy_from_slice(&metadata);
    let table_at = ROM_SIZE - TABLE_END_FROM_END as usize - table.len();
    rom[table_at..][..table.len()].copy_from_slice(&table);
    rom
}
