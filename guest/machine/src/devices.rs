//! The devices of the machine model, as the measured ACPI tables name them: a subset of QEMU's `microvm`.

/// First virtio-mmio transport.
pub const VIRTIO_MMIO_BASE: u64 = 0xFEB0_0000;
/// Bytes between transports, and their length.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x200;
/// Interrupt of the first transport; the next ones follow.
pub const VIRTIO_MMIO_IRQ: u32 = 5;
/// Transports.
pub const VIRTIO_MMIO_COUNT: u32 = 8;
/// I/O APIC.
pub const IO_APIC: u32 = 0xFEC0_0000;
/// Local APIC.
pub const LOCAL_APIC: u32 = 0xFEE0_0000;
/// Serial port.
pub const SERIAL_PORT: u16 = 0x3F8;
/// Interrupt of the serial port.
pub const SERIAL_IRQ: u32 = 4;
/// A byte written here ends the machine with it as status ([`crate::Refusal::exit_byte`]).
pub const EXIT_PORT: u16 = 0xF4;
