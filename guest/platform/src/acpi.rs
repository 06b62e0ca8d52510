//! ACPI tables of the machine model: RSDP, XSDT, FADT, MADT and a DSDT that names each device.
//!
//! Linux learns its virtual CPUs, interrupt controllers, serial port and virtio-mmio transports from here and from
//! nowhere else; the host's own tables are never used. The blob is part of the launch plan, so it is measured.
//! Source: ACPI 6.5, chapters 5 and 20; `LNRO0005` is Linux's name for a virtio-mmio transport.

use acpi_tables::{
    Aml,
    aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Path, ResourceTemplate, Scope},
    fadt::{FADT, FADTBuilder, Flags},
    gas::{AccessSize, AddressSpace, GAS},
    madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic},
    rsdp::Rsdp,
    sdt::Sdt,
    xsdt::XSDT,
};

use crate::machine::{
    ACPI_GPA, IO_APIC, LOCAL_APIC, MAX_VCPUS, SERIAL_IRQ, SERIAL_PORT, VIRTIO_MMIO_BASE, VIRTIO_MMIO_COUNT,
    VIRTIO_MMIO_IRQ, VIRTIO_MMIO_STRIDE,
};

/// The ACPI blob for `vcpus` virtual CPUs (1 to [`MAX_VCPUS`], clamped), to lie at [`ACPI_GPA`].
pub fn tables(vcpus: u32) -> Vec<u8> {
    let vcpus = vcpus.clamp(1, MAX_VCPUS);
    let mut blob = Blob(vec![0; Rsdp::len()]);

    let dsdt = blob.append(&dsdt());
    let fadt = blob.append(&bytes(&fadt(dsdt)));
    let madt = blob.append(&madt(vcpus));

    let mut xsdt = XSDT::new(OEM, OEM_TABLE, 1);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = blob.append(&bytes(&xsdt));

    let rsdp = bytes(&Rsdp::new(OEM, xsdt));
    blob.0[..rsdp.len()].copy_from_slice(&rsdp);
    blob.0
}

const OEM: [u8; 6] = *b"COFFER";
const OEM_TABLE: [u8; 8] = *b"MICROVM ";

struct Blob(Vec<u8>);

impl Blob {
    /// Appends a table on a 16-byte boundary and gives its guest physical address.
    fn append(&mut self, table: &[u8]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        let address = ACPI_GPA + self.0.len() as u64;
        self.0.extend_from_slice(table);
        address
    }
}

/// Not hardware-reduced: a hardware-reduced machine has no PIT, and a guest that cannot calibrate its TSC against the PIT
/// on a busy host then waits for ever for a clock tick. ACPICA wants PM1 register blocks on such a machine; nothing
/// answers at these ports, so every bit reads as one, ACPI counts as enabled and no event ever comes.
fn fadt(dsdt: u64) -> FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, 1)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .dsdt_64(dsdt);
    fadt.sci_int = SCI_IRQ.into();
    fadt.pm1a_evt_blk = u32::from(PM1_EVENT_PORT).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = GAS::new(AddressSpace::SystemIo, 32, 0, AccessSize::WordAccess, PM1_EVENT_PORT.into());
    fadt.pm1a_cnt_blk = u32::from(PM1_CONTROL_PORT).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = GAS::new(AddressSpace::SystemIo, 16, 0, AccessSize::WordAccess, PM1_CONTROL_PORT.into());
    fadt.iapc_boot_arch = LEGACY_DEVICES.into();
    fadt.finalize()
}

/// Interrupt source override: the PIT's IRQ 0 arrives at I/O APIC input 2, as on every PC (ACPI 6.5, table 5.26).
const PIT_OVERRIDE: [u8; 10] = [2, 10, 0, 0, 2, 0, 0, 0, 0, 0];
/// MADT flag: two 8259 interrupt controllers are there.
const PCAT_COMPAT: u32 = 1;
/// IAPC_BOOT_ARCH: there are devices on ISA addresses.
const LEGACY_DEVICES: u16 = 1;
const SCI_IRQ: u16 = 9;
const PM1_EVENT_PORT: u16 = 0x600;
const PM1_CONTROL_PORT: u16 = 0x604;

fn madt(vcpus: u32) -> Vec<u8> {
    let mut madt = MADT::new(OEM, OEM_TABLE, 1, LocalInterruptController::Address(LOCAL_APIC));
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id as u8, id as u8, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IO_APIC, 0));
    // The crate offers neither the flag nor the override: both go into the finished table.
    let mut table = bytes(&madt);
    table.extend_from_slice(&PIT_OVERRIDE);
    let length = table.len() as u32;
    table[4..8].copy_from_slice(&length.to_le_bytes());
    table[40..44].copy_from_slice(&PCAT_COMPAT.to_le_bytes());
    table[9] = 0;
    table[9] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    table
}

fn dsdt() -> Vec<u8> {
    let mut sdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, 1);
    let serial_id = EISAName::new("PNP0501");
    let serial_port = IO::new(SERIAL_PORT, SERIAL_PORT, 1, 8);
    let serial_irq = Interrupt::new(true, true, false, false, SERIAL_IRQ);
    let serial_resources = ResourceTemplate::new(vec![&serial_port, &serial_irq]);
    let serial_hid = Name::new(Path::new("_HID"), &serial_id);
    let serial_uid = Name::new(Path::new("_UID"), &0u8);
    let serial_crs = Name::new(Path::new("_CRS"), &serial_resources);
    let serial = Device::new(Path::new("COM1"), vec![&serial_hid, &serial_uid, &serial_crs]);
    let mut body = bytes(&Scope::new(Path::new("\\_SB_"), vec![&serial]));
    for index in 0..VIRTIO_MMIO_COUNT {
        body.extend_from_slice(&virtio_mmio(index));
    }
    sdt.append_slice(&body);
    bytes(&sdt)
}

fn virtio_mmio(index: u32) -> Vec<u8> {
    let base = VIRTIO_MMIO_BASE + u64::from(index) * VIRTIO_MMIO_STRIDE;
    let memory = Memory32Fixed::new(true, base as u32, VIRTIO_MMIO_STRIDE as u32);
    let irq = Interrupt::new(true, true, false, false, VIRTIO_MMIO_IRQ + index);
    let resources = ResourceTemplate::new(vec![&memory, &irq]);
    let hid = Name::new(Path::new("_HID"), &"LNRO0005");
    let uid = Name::new(Path::new("_UID"), &index);
    let cca = Name::new(Path::new("_CCA"), &1u8);
    let crs = Name::new(Path::new("_CRS"), &resources);
    let name = format!("VR{index:02}");
    let device = Device::new(Path::new(&name), vec![&hid, &uid, &cca, &crs]);
    bytes(&Scope::new(Path::new("\\_SB_"), vec![&device]))
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut out = Vec::new();
    table.to_aml_bytes(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::PAGE;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn u64_at(blob: &[u8], at: usize) -> usize {
        (u64::from_le_bytes(blob[at..at + 8].try_into().unwrap()) - ACPI_GPA) as usize
    }

    fn table(blob: &[u8], at: usize) -> &[u8] {
        let length = u32::from_le_bytes(blob[at + 4..at + 8].try_into().unwrap()) as usize;
        &blob[at..at + length]
    }

    #[test]
    fn every_table_is_reachable_and_sums_to_zero() {
        for vcpus in [1, 2, 8] {
            let blob = tables(vcpus);
            assert!(blob.len() <= PAGE, "{}", blob.len());
            assert_eq!(&blob[..8], b"RSD PTR ");
            assert_eq!((sum(&blob[..20]), sum(&blob[..36])), (0, 0));
            let xsdt = table(&blob, u64_at(&blob, 24));
            assert_eq!((&xsdt[..4], sum(xsdt)), (&b"XSDT"[..], 0));
            let (fadt, madt) = (table(&blob, u64_at(xsdt, 36)), table(&blob, u64_at(xsdt, 44)));
            assert_eq!((&fadt[..4], sum(fadt)), (&b"FACP"[..], 0));
            assert_eq!((&madt[..4], sum(madt)), (&b"APIC"[..], 0));
            assert_eq!(madt.len(), 44 + 8 * vcpus as usize + 12 + PIT_OVERRIDE.len());
            let dsdt = table(&blob, u64_at(fadt, 140));
            assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
        }
    }

    #[test]
    fn more_virtual_cpus_give_other_bytes() {
        assert_ne!(tables(1), tables(2));
        assert_eq!(tables(2), tables(2));
    }
}
