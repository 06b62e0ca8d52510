//! The zero page (`struct boot_params`) and the CC blob: all a kernel is told before it runs.
//!
//! Source: Linux arch/x86/include/uapi/asm/bootparam.h; arch/x86/include/asm/sev.h, `struct cc_blob_sev_info`.

use coffer_machine::{
    Refusal,
    map::{ACPI_GPA, ACPI_SIZE, CC_BLOB_GPA, COMMAND_LINE_GPA, CPUID_GPA, PAGE, ROM_END, ROM_GPA, SECRETS_GPA},
    memory::Ram,
};

use crate::{
    bzimage::{BzImage, HEADER_START},
    placement::Placement,
};

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// Linux maps memory of this type with the C-bit, unlike reserved memory.
const E820_ACPI: u32 = 3;

/// Fills the zero page. `head`: the start of the checked copy of the kernel. `confidential`: hand over the CC blob.
///
/// # Errors
/// [`Refusal::KernelFormat`] if the head is shorter than the header it states.
pub fn fill(
    page: &mut [u8; PAGE],
    head: &[u8],
    kernel: &BzImage,
    placed: &Placement,
    ram: Ram,
    confidential: bool,
) -> Result<(), Refusal> {
    page.fill(0);
    let header = head.get(HEADER_START..kernel.header_end).ok_or(Refusal::KernelFormat)?;
    page.get_mut(HEADER_START..kernel.header_end).ok_or(Refusal::KernelFormat)?.copy_from_slice(header);
    put(page, 0x070, &ACPI_GPA.to_le_bytes()); // acpi_rsdp_addr
    put(page, 0x210, &[0xFF]); // type_of_loader: none registered
    put(page, 0x211, &[1]); // loadflags: LOADED_HIGH and nothing the file may have asked for
    put(page, 0x218, &(placed.initrd.start as u32).to_le_bytes()); // ramdisk_image
    put(page, 0x21C, &((placed.initrd.end - placed.initrd.start) as u32).to_le_bytes()); // ramdisk_size
    put(page, 0x228, &(COMMAND_LINE_GPA as u32).to_le_bytes()); // cmd_line_ptr
    let setup_data = if confidential { CC_BLOB_GPA } else { 0 };
    put(page, 0x250, &setup_data.to_le_bytes());
    let [low, high] = ram.usable();
    let acpi_end = ACPI_GPA + ACPI_SIZE as u64;
    let map = [
        // What parked processors can reach.
        (0, low.start, E820_RESERVED),
        (low.start, low.end, E820_RAM),
        (low.end, ACPI_GPA, E820_RESERVED),
        (ACPI_GPA, acpi_end, E820_ACPI),
        // Secrets, CPUID, hash and parking page, and where a PC has its BIOS.
        (acpi_end, high.start, E820_RESERVED),
        (high.start, high.end, E820_RAM),
        // The ROM: application processors wait in it.
        (ROM_GPA, ROM_END, E820_RESERVED),
    ];
    put(page, 0x1E8, &[map.len() as u8]);
    for (index, (start, end, kind)) in map.into_iter().enumerate() {
        let at = 0x2D0 + index * 20;
        put(page, at, &start.to_le_bytes());
        put(page, at + 8, &(end - start).to_le_bytes());
        put(page, at + 16, &kind.to_le_bytes());
    }
    Ok(())
}

/// Bytes of [`cc_blob`].
pub const CC_BLOB_SIZE: usize = 64;

/// What lies at [`CC_BLOB_GPA`]: a setup_data node of type SETUP_CC_BLOB, and the blob it points to.
pub fn cc_blob() -> [u8; CC_BLOB_SIZE] {
    const SETUP_CC_BLOB: u32 = 7;
    const MAGIC: u32 = 0x4544_4D41; // "AMDE"
    const BLOB: usize = 24;
    let mut bytes = [0; CC_BLOB_SIZE];
    // struct setup_data { next, type, len } and struct cc_setup_data's address
    put(&mut bytes, 8, &SETUP_CC_BLOB.to_le_bytes());
    put(&mut bytes, 12, &8_u32.to_le_bytes());
    put(&mut bytes, 16, &(CC_BLOB_GPA as u32 + BLOB as u32).to_le_bytes());
    put(&mut bytes, BLOB, &MAGIC.to_le_bytes());
    put(&mut bytes, BLOB + 8, &SECRETS_GPA.to_le_bytes());
    put(&mut bytes, BLOB + 16, &(PAGE as u32).to_le_bytes());
    put(&mut bytes, BLOB + 24, &CPUID_GPA.to_le_bytes());
    put(&mut bytes, BLOB + 32, &(PAGE as u32).to_le_bytes());
    bytes
}

fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bzimage::tests::sample, placement::place};
    use coffer_machine::bytes::{le32, le64};

    #[test]
    fn tells_the_kernel_what_was_checked_and_nothing_else() {
        let image = sample(5000);
        let kernel = BzImage::parse(&image, image.len()).unwrap();
        let ram = Ram::claimed(256 << 20).unwrap();
        let placed = place(ram, &kernel, image.len(), 777, 10).unwrap();
        let mut page = [0xAA; PAGE];
        fill(&mut page, &image, &kernel, &placed, ram, false).unwrap();
        assert_eq!(page[0x1FE..0x206], image[0x1FE..0x206]);
        assert_eq!(le64(&page, 0x70), Some(ACPI_GPA));
        assert_eq!(le32(&page, 0x228), Some(COMMAND_LINE_GPA as u32));
        assert_eq!((le32(&page, 0x218), le32(&page, 0x21C)), (Some(placed.initrd.start as u32), Some(777)));
        assert_eq!((le64(&page, 0x250), page[0x1E8]), (Some(0), 7));
        assert!(page[..0x70].iter().chain(&page[0x35C..]).all(|byte| *byte == 0), "nothing is left over");
        let mut end = 0;
        let mut ram_bytes = 0;
        for at in (0..7).map(|index| 0x2D0 + index * 20) {
            let (start, length) = (le64(&page, at).unwrap(), le64(&page, at + 8).unwrap());
            assert!(start >= end && length > 0, "ranges are sorted and apart");
            end = start + length;
            let kind = le32(&page, at + 16).unwrap();
            ram_bytes += if kind == E820_RAM { length } else { 0 };
            assert_eq!(kind == E820_ACPI, (start, length) == (ACPI_GPA, ACPI_SIZE as u64));
        }
        assert_eq!(ram_bytes, ram.usable().iter().map(|range| range.end - range.start).sum());
        assert_eq!(end, 1 << 32);
        fill(&mut page, &image, &kernel, &placed, ram, true).unwrap();
        assert_eq!(le64(&page, 0x250), Some(CC_BLOB_GPA));
    }

    #[test]
    fn the_file_cannot_bring_its_own_setup_data_or_flags() {
        let mut image = sample(5000);
        image[0x250..0x258].fill(0x11);
        image[0x211] = 0xFF;
        let kernel = BzImage::parse(&image, image.len()).unwrap();
        let ram = Ram::claimed(256 << 20).unwrap();
        let placed = place(ram, &kernel, image.len(), 0, 1).unwrap();
        let mut page = [0; PAGE];
        fill(&mut page, &image, &kernel, &placed, ram, false).unwrap();
        assert_eq!((le64(&page, 0x250), page[0x211]), (Some(0), 1));
    }

    #[test]
    fn the_cc_blob_points_at_the_pages_the_processor_filled() {
        let bytes = cc_blob();
        assert_eq!((le32(&bytes, 8), le32(&bytes, 12)), (Some(7), Some(8)));
        let blob = (u64::from(le32(&bytes, 16).unwrap()) - CC_BLOB_GPA) as usize;
        assert_eq!(&bytes[blob..blob + 4], b"AMDE");
        assert_eq!((le64(&bytes, blob + 8), le32(&bytes, blob + 16)), (Some(SECRETS_GPA), Some(4096)));
        assert_eq!((le64(&bytes, blob + 24), le32(&bytes, blob + 32)), (Some(CPUID_GPA), Some(4096)));
    }
}
