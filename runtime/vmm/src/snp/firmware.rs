//! What the secure processor's firmware answers (`kvm_sev_cmd.error`), in words.
//!
//! Source: Linux include/uapi/linux/psp-sev.h, `sev_ret_code`; SNP ABI, status codes.

use std::fmt;

/// A status of the firmware other than success.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(u32);

impl Status {
    /// A field is not what the command takes, or an entry of the CPUID page is not what the processor has.
    pub const INVALID_PARAM: Self = Self(0x16);

    /// The status behind a code; `None` for success, and where KVM says that the firmware was not asked.
    pub const fn of(code: u32) -> Option<Self> {
        match code {
            0 | NOT_ASKED => None,
            code => Some(Self(code)),
        }
    }

    /// Its number.
    pub const fn code(self) -> u32 {
        self.0
    }

    /// AMD's name for it.
    pub fn name(self) -> Option<&'static str> {
        self.found().map(|(_, name, _)| *name)
    }

    /// What whoever runs the host can do.
    pub fn hint(self) -> Option<&'static str> {
        self.found().map(|(_, _, hint)| *hint).filter(|hint| !hint.is_empty())
    }

    fn found(self) -> Option<&'static (u32, &'static str, &'static str)> {
        STATUSES.iter().find(|(code, ..)| *code == self.0)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(out, "{name} ({:#x})", self.0),
            None => write!(out, "status {:#x}, which is none we know", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// `SEV_RET_NO_FW_CALL`: -1.
const NOT_ASKED: u32 = u32::MAX;

const STATE: &str =
    "load the kernel module ccp again, or restart the host: the secure processor is not where a launch starts";
const UPDATE: &str = "update the host's firmware (BIOS, or the SEV firmware the kernel loads), then try again";
/// What to do where there is no place for another guest.
pub const FULL: &str = "fewer SEV-SNP guests at a time, or more ASIDs for them in the BIOS (SEV-ES ASID space limit)";
const OURS: &str =
    "this is a defect of coffer or of the kernel: please report it with the kernel's and the firmware's version";
const IDENTITY: &str =
    "the ID block was made for another launch: `coffer measure` shows this one's MEASUREMENT and policy";
const RMP: &str =
    "the kernel and the firmware disagree about a page of memory: restart the host, and update its kernel";
const HARDWARE: &str = "restart the host; if it comes again, the hardware or its firmware is at fault";

/// Code, name, and what to do.
const STATUSES: &[(u32, &str, &str)] = &[
    (0x01, "INVALID_PLATFORM_STATE", STATE),
    (0x02, "INVALID_GUEST_STATE", OURS),
    (0x03, "INVALID_CONFIG", "the firmware's configuration does not allow it: `coffer host status` shows it"),
    (0x04, "INVALID_LEN", OURS),
    (0x05, "ALREADY_OWNED", ""),
    (0x06, "INVALID_CERTIFICATE", ""),
    (
        0x07,
        "POLICY_FAILURE",
        "the host does not fulfil the policy: SMT, firmware version, single socket, or what else its bits demand; \
         `coffer host status` shows what the host has",
    ),
    (0x08, "INACTIVE", OURS),
    (0x09, "INVALID_ADDRESS", OURS),
    (0x0A, "BAD_SIGNATURE", "a signature in the ID authentication block does not verify: sign the ID block again"),
    (0x0B, "BAD_MEASUREMENT", IDENTITY),
    (0x0C, "ASID_OWNED", FULL),
    (0x0D, "INVALID_ASID", FULL),
    (0x0E, "WBINVD_REQUIRED", OURS),
    (0x0F, "DFFLUSH_REQUIRED", OURS),
    (0x10, "INVALID_GUEST", OURS),
    (0x11, "INVALID_COMMAND", UPDATE),
    (0x12, "ACTIVE", OURS),
    (0x13, "HWERROR_PLATFORM", HARDWARE),
    (0x14, "HWERROR_UNSAFE", HARDWARE),
    (0x15, "UNSUPPORTED", UPDATE),
    (0x16, "INVALID_PARAM", OURS),
    (0x17, "RESOURCE_LIMIT", FULL),
    (0x18, "SECURE_DATA_INVALID", HARDWARE),
    (0x19, "INVALID_PAGE_SIZE", RMP),
    (0x1A, "INVALID_PAGE_STATE", RMP),
    (0x1B, "INVALID_MDATA_ENTRY", RMP),
    (0x1C, "INVALID_PAGE_OWNER", RMP),
    (0x1D, "AEAD_OFLOW", ""),
    (0x1F, "EXIT_RING_BUFFER", OURS),
    (
        0x20,
        "RMP_INIT_REQUIRED",
        "SEV-SNP is not initialised: turn on SNP memory (RMP) coverage in the BIOS; `coffer doctor` looks for it",
    ),
    (0x21, "BAD_SVN", UPDATE),
    (0x22, "BAD_VERSION", UPDATE),
    (0x23, "SHUTDOWN_REQUIRED", STATE),
    (0x24, "UPDATE_FAILED", UPDATE),
    (0x25, "RESTORE_REQUIRED", UPDATE),
    (0x26, "RMP_INITIALIZATION_FAILED", "turn on SNP memory (RMP) coverage in the BIOS; `coffer doctor` looks for it"),
    (0x27, "INVALID_KEY", ""),
    (0x28, "SHUTDOWN_INCOMPLETE", STATE),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_name_and_an_unknown_one_keeps_its_number() {
        for pair in STATUSES.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{:#x}", pair[1].0);
        }
        let said = |code| Status::of(code).map(|status| status.to_string());
        assert_eq!(said(0x16).unwrap(), "INVALID_PARAM (0x16)");
        assert_eq!(Status::of(0x16), Some(Status::INVALID_PARAM));
        assert!(said(0x99).unwrap().contains("0x99"));
        assert!(Status::of(0x0B).unwrap().hint().unwrap().contains("coffer measure"));
        assert_eq!(Status::of(0x99).unwrap().hint(), None);
    }

    #[test]
    fn success_and_a_firmware_that_was_not_asked_are_no_status() {
        assert_eq!(Status::of(0), None);
        assert_eq!(Status::of(u32::MAX), None);
    }

    /// What Linux's header numbers, by name, so that a slip in the table shows.
    #[test]
    fn the_numbers_are_those_of_the_kernels_header() {
        let expected = [
            (0x01, "INVALID_PLATFORM_STATE"),
            (0x07, "POLICY_FAILURE"),
            (0x0A, "BAD_SIGNATURE"),
            (0x0B, "BAD_MEASUREMENT"),
            (0x10, "INVALID_GUEST"),
            (0x15, "UNSUPPORTED"),
            (0x17, "RESOURCE_LIMIT"),
            (0x1A, "INVALID_PAGE_STATE"),
            (0x20, "RMP_INIT_REQUIRED"),
            (0x27, "INVALID_KEY"),
        ];
        for (code, name) in expected {
            assert_eq!(Status::of(code).unwrap().name(), Some(name));
        }
    }
}
