#![allow(dead_code, reason = "each target uses its part")]
//! What the targets of stage0's parsers do with their input; the stable replay of the corpora includes this file too.

use coffer_machine::{
    fw_cfg,
    handover::{self, Handover},
    hash_page::Hashes,
    map::{KERNEL_GPA, PAGE},
    memory::Ram,
    spec_disk::SpecDisk,
};
use coffer_stage0::{bzimage::BzImage, cpuid_page::CpuidPage, kernel_check, placement::place, zero_page};

/// A kernel's header, with the length of the file in front: placed and handed over, if it parses.
pub fn bzimage(data: &[u8]) {
    let Some((length, head)) = data.split_first_chunk::<4>() else { return };
    let file_bytes = u32::from_le_bytes(*length) as usize;
    let Ok(kernel) = BzImage::parse(head, file_bytes) else { return };
    assert!(kernel.setup_bytes < file_bytes && kernel.header_end <= head.len());
    let ram = Ram::claimed(512 << 20).expect("the machine model has that much");
    let Ok(placed) = place(ram, &kernel, file_bytes, 12 << 20, 100) else { return };
    assert_eq!(placed.kernel.start + kernel.setup_bytes as u64, KERNEL_GPA);
    assert!(!placed.kernel.overlaps(placed.initrd) && placed.initrd.end <= ram.end);
    let mut page = [0; PAGE];
    zero_page::fill(&mut page, head, &kernel, &placed, ram, true).expect("the header is inside the head");
}

/// The pages and tables that stage0 reads, each from the same bytes.
pub fn boot_pages(data: &[u8]) {
    let mut page = [0; PAGE];
    let length = data.len().min(PAGE);
    page[..length].copy_from_slice(&data[..length]);
    if let Ok(hashes) = Hashes::parse(&page) {
        assert!(kernel_check::check(&hashes, data, data, data).is_err(), "no input has three hashes of its own in it");
    }
    if let Ok(table) = CpuidPage::parse(&page) {
        let _ = (table.leaf(1, 0), table.leaf(7, 1), table.check_c_bit());
    }
    if let Some(descriptor) = page.first_chunk::<{ handover::SIZE }>()
        && let Ok(Some(found)) = Handover::parse(descriptor)
    {
        assert_eq!(&found.to_bytes(), descriptor);
    }
    let _ = fw_cfg::find(data, fw_cfg::file::KERNEL);
    let _ = SpecDisk::parse(data);
}
