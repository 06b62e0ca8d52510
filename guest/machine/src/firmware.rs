//! What stage0's ROM says about its own launch, in the place and format where a launcher looks for OVMF's: SEV metadata, and
//! a table of GUIDs that ends 32 bytes below 4 GiB.
//!
//! stage0's start code spells it, the launch plan demands it, `coffer_verifier::measure::OvmfMetadata` reads it with its
//! own knowledge of OVMF's format, as every independent tool does.
//! Source: OVMF OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm, X64/OvmfSevMetadata.asm.

use crate::map::{
    CPUID_GPA, HASHES_GPA, PAGE, PAGE_TABLES_GPA, PAGE_TABLES_SIZE, PARKING_GPA, SECRETS_GPA, STAGE0_GPA, STAGE0_SIZE,
};

/// One section of the SEV metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// First address.
    pub gpa: u32,
    /// Bytes.
    pub size: u32,
    /// One of the types below.
    pub kind: u32,
}

/// Zero pages.
pub const ZERO: u32 = 1;
/// The secrets page.
pub const SECRETS: u32 = 2;
/// The CPUID page.
pub const CPUID: u32 = 3;

/// All sections, in the order they are measured. Page tables, stage0 itself, the parking page and the page of hashes are
/// filled by its start code, from the ROM; secrets and CPUID page by the launch.
///
/// The page of hashes is none of the type that OVMF has for it, because of which QEMU would have to fill it: its `microvm`
/// hashes a kernel before it has read the firmware that says where the hashes go, and aborts (QEMU 10.0.13).
pub const SECTIONS: [Section; 6] = [
    Section { gpa: PAGE_TABLES_GPA as u32, size: PAGE_TABLES_SIZE as u32, kind: ZERO },
    Section { gpa: STAGE0_GPA as u32, size: STAGE0_SIZE as u32, kind: ZERO },
    Section { gpa: PARKING_GPA as u32, size: PAGE as u32, kind: ZERO },
    Section { gpa: SECRETS_GPA as u32, size: PAGE as u32, kind: SECRETS },
    Section { gpa: CPUID_GPA as u32, size: PAGE as u32, kind: CPUID },
    Section { gpa: HASHES_GPA as u32, size: PAGE as u32, kind: ZERO },
];

/// Starts the metadata; its length, version and number of sections follow.
pub const METADATA_MAGIC: &[u8; 4] = b"ASEV";
/// Version of the metadata.
pub const METADATA_VERSION: u32 = 1;
/// Bytes in front of the first section.
pub const METADATA_HEADER: usize = 16;
/// Where the metadata stands, in bytes before the end of the ROM.
pub const METADATA_FROM_END: u32 = 0x200;
/// Where the table of GUIDs ends, in bytes before the end of the ROM.
pub const TABLE_END_FROM_END: u32 = 0x20;
/// Bytes of an entry's length and GUID, behind its data.
pub const ENTRY_HEADER: u16 = 18;

/// GUIDs as their 16 bytes stand in the ROM, first byte highest.
pub mod guid {
    /// dc886566-984a-4798-a75e-5585a7bf67cc: the metadata's distance from the end of the ROM.
    pub const SEV_METADATA: u128 = 0x666588dc_4a98_9847_a75e_5585a7bf67cc;
    /// 00f771de-1a7e-4fcb-890e-68c77e2fb44e: where application processors start.
    pub const RESET_BLOCK: u128 = 0xde71f700_7e1a_cb4f_890e_68c77e2fb44e;
    /// 96b582de-1fb2-45f7-baea-a366c55a082d: length of the whole table.
    pub const FOOTER: u128 = 0xde82b596_b21f_f745_baea_a366c55a082d;
}
