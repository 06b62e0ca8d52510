//! The devices of the machine model, as the measured ACPI tables name them: a subset of QEMU's `microvm`.
//!
//! Source: QEMU hw/i386/microvm.c; hw/intc/ioapic.c, `ioapic_set_irq`.

/// First virtio-mmio transport. QEMU has one more below it, which is left out: its interrupt would be input 0 of the second
/// I/O APIC, and QEMU's I/O APICs take input 0 for a PC's timer and raise input 2 in its place.
pub const VIRTIO_MMIO_BASE: u64 = 0xFEB0_0200;
/// Bytes between transports, and their length.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x200;
/// Transports: what a second I/O APIC has inputs for, but for input 0. QEMU fills them from the last to the first.
pub const VIRTIO_MMIO_COUNT: u32 = IO_APIC_INPUTS - 1;
/// Interrupt of the first transport, as a global system interrupt; the next ones follow. Edge triggered.
pub const VIRTIO_MMIO_GSI: u32 = IO_APICS[1].first_gsi + 1;

/// An I/O APIC of 24 inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Where its registers lie.
    pub address: u32,
    /// Global system interrupt of its first input.
    pub first_gsi: u32,
}

/// Inputs of one I/O APIC.
pub const IO_APIC_INPUTS: u32 = 24;
/// The I/O APICs: a PC's own, with PIT and serial port, and one for the transports alone.
pub const IO_APICS: [IoApic; 2] =
    [IoApic { address: 0xFEC0_0000, first_gsi: 0 }, IoApic { address: 0xFEC1_0000, first_gsi: IO_APIC_INPUTS }];
/// Local APIC.
pub const LOCAL_APIC: u32 = 0xFEE0_0000;
/// Serial port.
pub const SERIAL_PORT: u16 = 0x3F8;
/// Interrupt of the serial port.
pub const SERIAL_IRQ: u32 = 4;
/// A byte written here ends the machine with it as status ([`crate::Refusal::exit_byte`]).
pub const EXIT_PORT: u16 = 0xF4;
