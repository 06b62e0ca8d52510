//! Why stage0 does not start a kernel: one word for the serial line, one number for whoever watches the machine.

/// Reasons, in the order they can come up. The numbers are a contract: they reach the VMM's exit status and, under
/// SEV-SNP, the GHCB's termination code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Refusal {
    /// The hash page is absent, or holds a zero, missing or repeated entry.
    HashPage = 1,
    /// The kernel's copy has another hash than the measured one.
    KernelHash = 2,
    /// The initrd's copy has another hash.
    InitrdHash = 3,
    /// The command line's copy has another hash.
    CommandLineHash = 4,
    /// The kernel is no bzImage with a 64-bit entry, or its header changed between two looks.
    KernelFormat = 5,
    /// Kernel and initrd do not fit into memory, or the command line is longer than the kernel reads.
    NoRoom = 6,
    /// The host claims memory outside the machine model.
    MemoryClaim = 7,
    /// The host claims virtual CPUs outside the machine model.
    VcpuClaim = 8,
    /// The host offers no kernel in any of the places stage0 looks at.
    NoKernel = 9,
    /// The host's fw_cfg device failed or contradicted itself.
    FwCfg = 10,
    /// The CPUID page is malformed, or the C-bit is not where stage0's page tables have it.
    Cpuid = 11,
    /// A page did not change its validation state: it was validated before, or is aliased.
    Validation = 12,
    /// The hypervisor does not speak the GHCB protocol, or refused a page-state change.
    Ghcb = 13,
    /// The processor raised an exception stage0 does not expect.
    Exception = 14,
    /// A defect of stage0 itself.
    Internal = 15,
    /// The command line, though it is the measured one, does not end with a NUL.
    CommandLine = 16,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::HashPage,
        Self::KernelHash,
        Self::InitrdHash,
        Self::CommandLineHash,
        Self::KernelFormat,
        Self::NoRoom,
        Self::MemoryClaim,
        Self::VcpuClaim,
        Self::NoKernel,
        Self::FwCfg,
        Self::Cpuid,
        Self::Validation,
        Self::Ghcb,
        Self::Exception,
        Self::Internal,
        Self::CommandLine,
    ];

    /// Word on the serial line, behind [`crate::console::REFUSED`].
    pub const fn word(self) -> &'static str {
        match self {
            Self::HashPage => "hash-page",
            Self::KernelHash => "kernel-hash",
            Self::InitrdHash => "initrd-hash",
            Self::CommandLineHash => "command-line-hash",
            Self::KernelFormat => "kernel-format",
            Self::NoRoom => "no-room",
            Self::MemoryClaim => "memory-claim",
            Self::VcpuClaim => "vcpu-claim",
            Self::NoKernel => "no-kernel",
            Self::FwCfg => "fw-cfg",
            Self::Cpuid => "cpuid",
            Self::Validation => "validation",
            Self::Ghcb => "ghcb",
            Self::Exception => "exception",
            Self::Internal => "internal",
            Self::CommandLine => "command-line",
        }
    }

    /// Byte written to the exit port.
    pub const fn exit_byte(self) -> u8 {
        EXIT_BASE + self as u8
    }

    /// The reason behind such a byte, if it is one.
    pub fn of_exit_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.exit_byte() == byte)
    }

    /// Status QEMU ends with: its exit device makes `2 × byte + 1` of the byte.
    pub const fn qemu_status(self) -> i32 {
        (self.exit_byte() as i32) << 1 | 1
    }

    /// The reason behind a status of QEMU, if it is one of stage0's.
    pub fn of_qemu_status(status: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.qemu_status() == status)
    }
}

/// Above what QEMU itself ends with (1), so that no failure of QEMU reads as a refusal.
const EXIT_BASE: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_and_statuses_are_distinct_and_read_back() {
        let words: HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.word()).collect();
        assert_eq!(words.len(), Refusal::ALL.len());
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index + 1, "ALL lists every number once");
            assert_eq!(Refusal::of_qemu_status(refusal.qemu_status()), Some(refusal));
            assert_eq!(Refusal::of_exit_byte(refusal.exit_byte()), Some(refusal));
            assert!((128..256).contains(&refusal.qemu_status()));
        }
        for status in [0, 1, 127, 128, 137, 143] {
            assert!(Refusal::of_qemu_status(status).is_none_or(|refusal| refusal.qemu_status() == status));
        }
        assert_eq!(Refusal::of_qemu_status(1), None);
    }
}
