//! What an OVMF image says about its own launch: the GUIDed table at its end and the SEV metadata.
//!
//! Source: OVMF `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`, `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`.

use super::PAGE_SIZE;

/// Why an image cannot be launched as SNP firmware.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OvmfError {
    /// Not whole pages, or none.
    #[error("firmware has {found} bytes, not a positive multiple of 4096 below 4 GiB")]
    Size {
        /// Bytes found.
        found: usize,
    },
    /// No table of GUIDs at the end.
    #[error("firmware has no OVMF table of GUIDs before its last 32 bytes")]
    NoTable,
    /// The table contradicts itself.
    #[error("OVMF table of GUIDs is malformed: {what}")]
    Table {
        /// Which part.
        what: &'static str,
    },
    /// An entry that a launch needs is missing.
    #[error("firmware has no {entry} entry")]
    Missing {
        /// Name of the entry.
        entry: &'static str,
    },
    /// The SEV metadata contradicts itself.
    #[error("SEV metadata is malformed: {what}")]
    Metadata {
        /// Which part.
        what: &'static str,
    },
    /// A section of a type this version does not know.
    #[error("SEV metadata has a section of unknown type {found:#x}")]
    SectionType {
        /// Type found.
        found: u32,
    },
}

/// Kind of a metadata section; the number is the metadata's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectionType {
    /// Memory of the SEC phase: zero pages.
    SecMemory = 1,
    /// The secrets page.
    Secrets = 2,
    /// The CPUID page.
    Cpuid = 3,
    /// SVSM calling area: zero pages.
    SvsmCaa = 4,
    /// The page with hashes of kernel, initrd and command line.
    KernelHashes = 0x10,
}

impl SectionType {
    fn from_word(word: u32) -> Result<Self, OvmfError> {
        [Self::SecMemory, Self::Secrets, Self::Cpuid, Self::SvsmCaa, Self::KernelHashes]
            .into_iter()
            .find(|kind| *kind as u32 == word)
            .ok_or(OvmfError::SectionType { found: word })
    }
}

/// One range the launcher puts into guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// First address, page aligned.
    pub gpa: u32,
    /// Bytes, whole pages.
    pub size: u32,
    /// What the launcher puts there.
    pub kind: SectionType,
}

/// Where the kernel hash table goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashTableArea {
    /// Guest physical address in bytes.
    pub gpa: u32,
    /// Bytes reserved.
    pub size: u32,
}

/// What a launch needs to know of an OVMF image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvmfMetadata {
    /// Sections in table order.
    pub sections: Vec<Section>,
    /// Where application processors start.
    pub ap_reset_eip: u32,
    /// Kernel hash table, where the firmware has room for one.
    pub hash_table: Option<HashTableArea>,
}

impl OvmfMetadata {
    /// Reads the tables of `image`, or of the end of one: at least the last page, as far as the tables reach back.
    ///
    /// # Errors
    /// [`OvmfError`].
    pub fn parse(image: &[u8]) -> Result<Self, OvmfError> {
        if image.is_empty() || !image.len().is_multiple_of(PAGE_SIZE) || u32::try_from(image.len()).is_err() {
            return Err(OvmfError::Size { found: image.len() });
        }
        let mut metadata_offset = None;
        let mut reset = None;
        let mut hash_table = None;
        for entry in entries(image)? {
            let (guid, data) = entry;
            let slot = match guid {
                SEV_METADATA_GUID => &mut metadata_offset,
                RESET_BLOCK_GUID => &mut reset,
                HASH_TABLE_GUID => &mut hash_table,
                _ => continue,
            };
            if slot.replace(data).is_some() {
                return Err(OvmfError::Table { what: "an entry stands twice" });
            }
        }
        let offset = metadata_offset.ok_or(OvmfError::Missing { entry: "SEV metadata" })?;
        let offset = word(offset, 0).ok_or(OvmfError::Table { what: "SEV metadata entry is short" })?;
        let reset = reset.ok_or(OvmfError::Missing { entry: "SEV-ES reset block" })?;
        let ap_reset_eip = word(reset, 0).ok_or(OvmfError::Table { what: "SEV-ES reset block is short" })?;
        let hash_table = match hash_table {
            None => None,
            Some(data) => {
                let area = word(data, 0).zip(word(data, 4));
                let (gpa, size) = area.ok_or(OvmfError::Table { what: "hash table entry is short" })?;
                // Images without room for the table carry the entry all the same, with address zero.
                (gpa != 0).then_some(HashTableArea { gpa, size })
            }
        };
        Ok(Self { sections: sections(image, offset)?, ap_reset_eip, hash_table })
    }
}

type Entry<'a> = ([u8; 16], &'a [u8]);

/// Entries of the GUIDed table, from its end backwards: data, u16 length of the whole entry, GUID.
fn entries(image: &[u8]) -> Result<Vec<Entry<'_>>, OvmfError> {
    let end = image.len() - TABLE_DISTANCE_FROM_END;
    let table_end = end - ENTRY_HEADER;
    let (length, guid) = header(image, table_end).ok_or(OvmfError::NoTable)?;
    if guid != FOOTER_GUID {
        return Err(OvmfError::NoTable);
    }
    if length < ENTRY_HEADER {
        return Err(OvmfError::Table { what: "table is shorter than its footer" });
    }
    let table_start =
        end.checked_sub(length).ok_or(OvmfError::Table { what: "table is longer than the image given" })?;
    let mut at = table_end;
    let mut found = Vec::new();
    while at > table_start {
        let too_short = OvmfError::Table { what: "entries do not fill the table" };
        let header_at = at.checked_sub(ENTRY_HEADER).filter(|start| *start >= table_start).ok_or(too_short.clone())?;
        let (length, guid) = header(image, header_at).ok_or(too_short.clone())?;
        if length < ENTRY_HEADER {
            return Err(OvmfError::Table { what: "entry is shorter than its header" });
        }
        let start = at.checked_sub(length).filter(|start| *start >= table_start).ok_or(too_short)?;
        found.push((guid, &image[start..header_at]));
        at = start;
    }
    Ok(found)
}

fn header(image: &[u8], at: usize) -> Option<(usize, [u8; 16])> {
    let bytes = image.get(at..at + ENTRY_HEADER)?;
    Some((usize::from(u16::from_le_bytes([bytes[0], bytes[1]])), bytes[2..].try_into().ok()?))
}

fn sections(image: &[u8], offset_from_end: u32) -> Result<Vec<Section>, OvmfError> {
    let malformed = |what| OvmfError::Metadata { what };
    let start =
        image.len().checked_sub(offset_from_end as usize).ok_or_else(|| malformed("it lies before the image given"))?;
    let bytes = &image[start..];
    if bytes.get(..4) != Some(b"ASEV") {
        return Err(malformed("no ASEV signature"));
    }
    let size = word(bytes, 4).ok_or_else(|| malformed("header is short"))?;
    let version = word(bytes, 8).ok_or_else(|| malformed("header is short"))?;
    let count = word(bytes, 12).ok_or_else(|| malformed("header is short"))?;
    if version != 1 {
        return Err(malformed("version is not 1"));
    }
    if count > MAX_SECTIONS {
        return Err(malformed("more than 64 sections"));
    }
    if size != METADATA_HEADER + count * SECTION_SIZE || size as usize > bytes.len() {
        return Err(malformed("size does not fit the number of sections"));
    }
    let mut sections = Vec::with_capacity(count as usize);
    let mut total = 0_u64;
    for index in 0..count {
        let at = (METADATA_HEADER + index * SECTION_SIZE) as usize;
        let field = |field: usize| word(bytes, at + 4 * field).ok_or_else(|| malformed("a section is short"));
        let (gpa, size) = (field(0)?, field(1)?);
        let kind = SectionType::from_word(field(2)?)?;
        let whole = |bytes: u32| (bytes as usize).is_multiple_of(PAGE_SIZE);
        if !whole(gpa) || size == 0 || !whole(size) {
            return Err(malformed("a section is not made of whole pages"));
        }
        if gpa.checked_add(size - 1).is_none() {
            return Err(malformed("a section wraps around"));
        }
        total += u64::from(size);
        if total > MAX_SECTION_BYTES {
            return Err(malformed("sections exceed 256 MiB"));
        }
        sections.push(Section { gpa, size, kind });
    }
    Ok(sections)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

const TABLE_DISTANCE_FROM_END: usize = 32;
const ENTRY_HEADER: usize = 2 + 16;
const METADATA_HEADER: u32 = 16;
const SECTION_SIZE: u32 = 12;
const MAX_SECTIONS: u32 = 64;
/// Bounds the work a hostile image can ask for; OVMF uses about 200 KiB.
const MAX_SECTION_BYTES: u64 = 256 << 20;

/// 96b582de-1fb2-45f7-baea-a366c55a082d
const FOOTER_GUID: [u8; 16] =
    [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
/// 00f771de-1a7e-4fcb-890e-68c77e2fb44e
const RESET_BLOCK_GUID: [u8; 16] =
    [0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f, 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e];
/// 7255371f-3a3b-4b04-927b-1da6efa8d454
const HASH_TABLE_GUID: [u8; 16] =
    [0x1f, 0x37, 0x55, 0x72, 0x3b, 0x3a, 0x04, 0x4b, 0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54];
/// dc886566-984a-4798-a75e-5585a7bf67cc
const SEV_METADATA_GUID: [u8; 16] =
    [0x66, 0x65, 0x88, 0xdc, 0x4a, 0x98, 0x98, 0x47, 0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc];
