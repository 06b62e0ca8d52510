//! The machine model every VMM of ours presents: a subset of QEMU's `microvm`.
//!
//! Fixed, because it is part of what is measured (ACPI tables) or of what init relies on.

/// Where the ACPI blob starts; RSDP first, so that Linux finds it in its scan of the BIOS area.
pub const ACPI_GPA: u64 = 0xE_0000;
/// Where the secrets page lies: below 1 MiB, outside System RAM, readable to init alone.
pub const SECRETS_GPA: u64 = 0xE_8000;
/// Where the CPUID page lies.
pub const CPUID_GPA: u64 = 0xE_9000;
/// Where the page with the hashes of kernel, initrd and command line lies.
pub const HASHES_GPA: u64 = 0xE_A000;
/// Page size in bytes.
pub const PAGE: usize = 4096;

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
/// Serial port and its interrupt.
pub const SERIAL_PORT: u16 = 0x3F8;
/// Interrupt of the serial port.
pub const SERIAL_IRQ: u32 = 4;
/// Most virtual CPUs.
pub const MAX_VCPUS: u32 = 8;
