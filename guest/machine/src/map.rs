//! The memory map of the machine model: where what lies, in guest physical addresses, and how large the machine may be.
//!
//! Fixed, because it is part of what is measured (ACPI tables, launch sections) or of what stage0 and init rely on.
//! stage0's start code and linker script get these numbers when stage0 is built.

/// Page size in bytes.
pub const PAGE: usize = 4096;

/// First address of the page tables stage0 runs on ([`crate::page_tables`]).
pub const PAGE_TABLES_GPA: u64 = 0x1000;
/// Bytes of the page tables.
pub const PAGE_TABLES_SIZE: u64 = 0x4000;
/// CC blob, and the setup_data node that points to it.
pub const CC_BLOB_GPA: u64 = 0x6000;
/// Zero page (`struct boot_params`).
pub const ZERO_PAGE_GPA: u64 = 0x7000;
/// Descriptor of the RAM hand-over, where a VMM has no fw_cfg device and memory is not encrypted.
pub const HANDOVER_GPA: u64 = 0x8000;
/// Where the command line is copied to.
pub const COMMAND_LINE_GPA: u64 = 0x2_0000;
/// The page below 64 KiB, on which a processor in the state of a reset pushes first. Under SEV-SNP nobody validates it for the
/// VM's life: a parked processor that a host starts with events of its own cannot take one, and ends the machine.
pub const NO_STACK_GPA: u64 = 0xF000;
/// First address that is RAM for the kernel. What lies below stays stage0's for the VM's life: the real-mode vectors, the
/// page tables, the page that is none, and all else that 16-bit code in segments near 0 could reach.
pub const LOW_MEMORY_GPA: u64 = 0x1_1000;
/// Longest command line with its NUL, in bytes. Linux on x86 reads 2048.
pub const COMMAND_LINE_LIMIT: usize = 2048;
/// First address behind low memory; what follows, up to 1 MiB, is no RAM for the kernel.
pub const LOW_MEMORY_END: u64 = 0xA_0000;

/// Where the ACPI tables start; RSDP first, so that Linux would also find it in its scan of the BIOS area.
pub const ACPI_GPA: u64 = 0xE_0000;
/// Most bytes of the ACPI tables.
pub const ACPI_SIZE: usize = 4096;
/// Where the secrets page lies: one page below 1 MiB and outside System RAM, so that the kernel keeps off it; init alone
/// reads it, once, and wipes it. What stands in it is AMD's format, `coffer_verifier::abi::message::SecretsPage`. A simulated
/// launch puts it where the secure processor would; a plain guest has none.
pub const SECRETS_GPA: u64 = 0xE_8000;
/// Where the CPUID page lies. Zero where no secure processor filled it.
pub const CPUID_GPA: u64 = 0xE_9000;
/// Where the page with the hashes of kernel, initrd and command line lies ([`crate::hash_page`]): copied there from the ROM by
/// stage0's start code, or put there by a launch in 64-bit mode.
pub const HASHES_GPA: u64 = 0xE_A000;

/// Where application processors of an SEV-SNP launch are parked for the VM's life: a copy of the ROM's last page, whose
/// first bytes are a loop for 16-bit code, and at [`PARKING_64`] one for 64-bit code.
pub const PARKING_GPA: u64 = 0xE_B000;
/// Offset of the 64-bit loop in the parking page.
pub const PARKING_64: u64 = 0x40;
/// First address behind the BIOS area.
pub const HIGH_MEMORY_GPA: u64 = 0x10_0000;

/// Where stage0's image lies when it runs, copied there from the ROM by its start code.
pub const STAGE0_GPA: u64 = 0x10_0000;
/// Bytes of stage0 in memory: image, data, stack.
pub const STAGE0_SIZE: u64 = 0x1_0000;
/// Bytes of the ROM image, which ends at 4 GiB.
pub const ROM_SIZE: usize = 0x1_0000;
/// Where the ROM ends, to the byte: behind the reset vector's page.
pub const ROM_END: u64 = 1 << 32;
/// Where in the ROM the page of hashes is: its last but one, which is zero until a launcher writes the hashes of what it
/// launches into it. What is in front of it is stage0's image, behind it is the page that is parked in.
pub const ROM_HASHES: usize = ROM_SIZE - 2 * PAGE;
/// Where the ROM starts.
pub const ROM_GPA: u64 = ROM_END - ROM_SIZE as u64;

/// Two MiB that are mapped in 4 KiB pages; some of them are shared with the host while stage0 runs under SEV-SNP.
pub const SHARED_WINDOW_GPA: u64 = 0x20_0000;
/// Length of the window.
pub const SHARED_WINDOW_SIZE: u64 = 0x20_0000;
/// Bytes at its start that are shared, and mapped without the C-bit: GHCB, fw_cfg command, bounce buffer.
pub const SHARED_SIZE: u64 = 0x4_0000;
/// Under SEV-SNP, the descriptor of the RAM hand-over: a page of the window, which the host fills before the guest runs.
pub const SHARED_HANDOVER_GPA: u64 = SHARED_WINDOW_GPA + PAGE as u64;
/// Under SEV-SNP, the first address that a hand-over's ranges must lie below.
pub const SHARED_HANDOVER_LIMIT: u64 = 1 << 30;

/// Where the protected-mode part of the kernel is put.
pub const KERNEL_GPA: u64 = 0x100_0000;

/// Least guest memory in bytes.
pub const MIN_RAM: u64 = 64 << 20;
/// Most guest memory in bytes: one range below the devices.
pub const MAX_RAM: u64 = 3 << 30;
/// Most virtual CPUs.
pub const MAX_VCPUS: u32 = 8;

/// Position of the C-bit in stage0's page tables, on every processor that runs SEV-SNP guests today.
pub const C_BIT: u32 = 51;
