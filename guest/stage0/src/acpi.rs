//! The ACPI tables of the machine model, made when stage0 is built and cut to the number of virtual CPUs when it runs.
//!
//! Source: ACPI 6.5, §5.2.12 (MADT).

use coffer_machine::{
    devices::IO_APICS,
    map::{ACPI_SIZE, MAX_VCPUS},
};

/// RSDP, FADT, DSDT, XSDT, and last the MADT for [`MAX_VCPUS`] processors.
const TABLES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/acpi.bin"));

/// A MADT's header with controller address and flags, the I/O APICs, and the override of the PIT's interrupt.
const MADT_HEAD: usize = 44 + IO_APICS.len() * IO_APIC + 10;
const IO_APIC: usize = 12;
const PROCESSOR: usize = 8;
const MADT_AT: usize = TABLES.len() - MADT_HEAD - MAX_VCPUS as usize * PROCESSOR;
const _: () = assert!(TABLES.len() <= ACPI_SIZE && matches!(TABLES.split_at(MADT_AT).1, [b'A', b'P', b'I', b'C', ..]));

/// Writes the tables for `vcpus` processors into `page`, to lie at [`coffer_machine::map::ACPI_GPA`].
pub fn write(page: &mut [u8; ACPI_SIZE], vcpus: u32) {
    let length = MADT_HEAD + vcpus.clamp(1, MAX_VCPUS) as usize * PROCESSOR;
    page.fill(0);
    page[..MADT_AT + length].copy_from_slice(&TABLES[..MADT_AT + length]);
    let madt = &mut page[MADT_AT..MADT_AT + length];
    madt[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    madt[9] = 0;
    madt[9] = madt.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_machine::{
        bytes::{le32, le64},
        devices::{VIRTIO_MMIO_BASE, VIRTIO_MMIO_COUNT, VIRTIO_MMIO_GSI, VIRTIO_MMIO_STRIDE},
        map::ACPI_GPA,
    };

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn at(blob: &[u8], field: usize) -> usize {
        (le64(blob, field).unwrap() - ACPI_GPA) as usize
    }

    fn table(blob: &[u8], at: usize) -> &[u8] {
        &blob[at..at + le32(blob, at + 4).unwrap() as usize]
    }

    #[test]
    fn every_table_is_reachable_and_sums_to_zero_for_each_number_of_processors() {
        for vcpus in 1..=MAX_VCPUS {
            let mut page = [0xAA; ACPI_SIZE];
            write(&mut page, vcpus);
            assert_eq!(&page[..8], b"RSD PTR ");
            assert_eq!((sum(&page[..20]), sum(&page[..36])), (0, 0));
            let xsdt = table(&page, at(&page, 24));
            assert_eq!((&xsdt[..4], sum(xsdt)), (&b"XSDT"[..], 0));
            let (fadt, madt) = (table(&page, at(xsdt, 36)), table(&page, at(xsdt, 44)));
            assert_eq!((&fadt[..4], sum(fadt)), (&b"FACP"[..], 0));
            assert_eq!((&madt[..4], sum(madt)), (&b"APIC"[..], 0));
            let dsdt = table(&page, at(fadt, 140));
            assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
            for (entry, (id, expected)) in madt[44..].chunks(IO_APIC).zip(IO_APICS.iter().enumerate()) {
                assert_eq!(entry[..4], [1, 12, id as u8, 0]);
                assert_eq!(le32(entry, 4), Some(expected.address));
                assert_eq!(le32(entry, 8), Some(expected.first_gsi));
            }
            let ids: std::vec::Vec<u8> = madt[MADT_HEAD..].chunks(PROCESSOR).map(|entry| entry[3]).collect();
            assert_eq!(ids, (0..vcpus as u8).collect::<std::vec::Vec<_>>());
            assert!(madt[MADT_HEAD..].chunks(PROCESSOR).all(|entry| entry[..2] == [0, 8] && entry[4] == 1));
        }
    }

    #[test]
    fn every_transport_is_named_once_with_its_registers_and_its_interrupt() {
        // Memory32Fixed, writable (0x86, 9 bytes); Extended Interrupt, consumed, edge, active high (0x89, 6 bytes, one of them).
        for index in 0..VIRTIO_MMIO_COUNT {
            let base = (VIRTIO_MMIO_BASE + u64::from(index) * VIRTIO_MMIO_STRIDE) as u32;
            let mut resources = std::vec![0x86, 9, 0, 1];
            resources.extend(base.to_le_bytes());
            resources.extend((VIRTIO_MMIO_STRIDE as u32).to_le_bytes());
            resources.extend([0x89, 6, 0, 0b0011, 1]);
            resources.extend((VIRTIO_MMIO_GSI + index).to_le_bytes());
            let found = TABLES.windows(resources.len()).filter(|window| **window == resources[..]).count();
            assert_eq!(found, 1, "transport {index}");
        }
        assert_eq!(TABLES.windows(8).filter(|window| *window == b"LNRO0005").count(), VIRTIO_MMIO_COUNT as usize);
    }
}
