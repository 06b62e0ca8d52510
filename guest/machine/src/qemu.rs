//! The machine model in the words of QEMU's command line (QEMU 7.2 and later, `microvm`).
//!
//! Source: docs/system/i386/microvm.rst; hw/i386/microvm.c.

use core::fmt;

use crate::devices::EXIT_PORT;

/// Value of `-M`; more options may follow behind a comma. With `acpi=off` there are 8 transports. QEMU's own tables stay in
/// fw_cfg, where nobody reads them, as do its event device and clock; it would add its transports to a kernel's command line.
pub const MACHINE: &str = "microvm,acpi=on,ioapic2=on,pic=on,pit=on,auto-kernel-cmdline=off";
/// Value of `-global`: transports are of virtio 1 alone.
pub const MODERN_VIRTIO: &str = "virtio-mmio.force-legacy=false";

/// Value of `-global`: devices reach what the guest shows them and nothing else (VIRTIO_F_ACCESS_PLATFORM), which Linux asks
/// for in encrypted memory.
pub const PLATFORM_ACCESS: &str = "virtio-device.iommu_platform=on";

/// Value of `-device`: what a byte at [`EXIT_PORT`] ends. The status is [`crate::Refusal::qemu_status`].
pub fn exit_device() -> impl fmt::Display {
    fmt::from_fn(|f| write!(f, "isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1"))
}

/// Value of `-device`: puts a file's bytes into memory before the machine starts.
pub fn loader(file: &str, gpa: u64) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "loader,file={file},addr={gpa:#x},force-raw=on"))
}

/// Value of `-fw_cfg`: an item with a file's bytes.
pub fn fw_cfg(item: &str, file: &str) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "name={item},file={file}"))
}
