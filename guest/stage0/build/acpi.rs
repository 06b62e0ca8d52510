//! ACPI tables of the machine model: RSDP, XSDT, FADT, MADT and a DSDT that names each device.
//!
//! Linux learns its virtual CPUs, interrupt controllers, serial port and virtio-mmio transports from here and from
//! nowhere else; the host's own tables are never used. The blob is part of stage0's image, so it is measured.
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

use coffer_machine::{
    devices::{
        IO_APICS, LOCAL_APIC, SERIAL_IRQ, SERIAL_PORT, VIRTIO_MMIO_BASE, VIRTIO_MMIO_COUNT, VIRTIO_MMIO_GSI,
        VIRTIO_MMIO_STRIDE,
    },
    map::{ACPI_GPA, MAX_VCPUS},
};

/// The ACPI blob for the most virtual CPUs, to lie at [`ACPI_GPA`]. The MADT stands last in it and its processors last in
/// the MADT, so that stage0 makes the tables for fewer by cutting it short.
pub fn tables() -> Vec<u8> {
    let mut blob = Blob(vec![0; Rsdp::len()]);

    let dsdt = blob.append(&dsdt());
    let fadt = blob.append(&bytes(&fadt(dsdt)));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, 1);
    xsdt.add_entry(fadt);
    xsdt.add_entry(0);
    let madt_at = (blob.next() + bytes(&xsdt).len() as u64).next_multiple_of(16);
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, 1);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt_at);
    let xsdt = blob.append(&bytes(&xsdt));
    assert_eq!(blob.append(&madt()), madt_at, "the MADT stands where the XSDT says");

    let rsdp = bytes(&Rsdp::new(OEM, xsdt));
    blob.0[..rsdp.len()].copy_from_slice(&rsdp);
    blob.0
}

const OEM: [u8; 6] = *b"COFFER";
const OEM_TABLE: [u8; 8] = *b"MICROVM ";

struct Blob(Vec<u8>);

impl Blob {
    /// Where the next table will lie.
    fn next(&self) -> u64 {
        ACPI_GPA + self.0.len().next_multiple_of(16) as u64
    }

    /// Appends a table on a 16-byte boundary and gives its guest physical address.
    fn append(&mut self, table: &[u8]) -> u64 {
        let address = self.next();
        self.0.resize((address - ACPI_GPA) as usize, 0);
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
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_CMOS_RTC).into();
    fadt.finalize()
}

/// Interrupt source override: the PIT's IRQ 0 arrives at I/O APIC input 2, as on every PC (ACPI 6.5, table 5.26).
const PIT_OVERRIDE: [u8; 10] = [2, 10, 0, 0, 2, 0, 0, 0, 0, 0];
/// MADT flag: two 8259 interrupt controllers are there.
const PCAT_COMPAT: u32 = 1;
/// IAPC_BOOT_ARCH: there are devices on ISA addresses.
const LEGACY_DEVICES: u16 = 1;
/// IAPC_BOOT_ARCH: no CMOS clock; its time would be the host's word.
const NO_CMOS_RTC: u16 = 1 << 5;
/// Not the usual 9, which QEMU's event device could raise: nobody is to listen to it.
const SCI_IRQ: u16 = 14;
const PM1_EVENT_PORT: u16 = 0x600;
const PM1_CONTROL_PORT: u16 = 0x604;

fn madt() -> Vec<u8> {
    let mut madt = MADT::new(OEM, OEM_TABLE, 1, LocalInterruptController::Address(LOCAL_APIC));
    for (id, io_apic) in IO_APICS.iter().enumerate() {
        madt.add_structure(IoApic::new(id as u8, io_apic.address, io_apic.first_gsi));
    }
    let mut table = bytes(&madt);
    // The crate offers neither the flag nor the override.
    table[40..44].copy_from_slice(&PCAT_COMPAT.to_le_bytes());
    table.extend_from_slice(&PIT_OVERRIDE);
    for id in 0..MAX_VCPUS as u8 {
        table.extend_from_slice(&bytes(&ProcessorLocalApic::new(id, id, EnabledStatus::Enabled)));
    }
    let length = table.len() as u32;
    table[4..8].copy_from_slice(&length.to_le_bytes());
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
    let irq = Interrupt::new(true, true, false, false, VIRTIO_MMIO_GSI + index);
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
