//! Ranges of guest memory, and the claims of a host about its size, clamped to the machine model.

use crate::{
    Refusal,
    map::{HIGH_MEMORY_GPA, LOW_MEMORY_END, LOW_MEMORY_GPA, MAX_RAM, MAX_VCPUS, MIN_RAM},
};

/// A half-open range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

impl Range {
    /// `length` bytes from `start`; `None` if that wraps.
    pub const fn new(start: u64, length: u64) -> Option<Self> {
        match start.checked_add(length) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// True if they share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// Memory of the machine, as far as it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ram {
    /// First address behind it: one range from 0, with a hole below 1 MiB.
    pub end: u64,
}

impl Ram {
    /// Takes the host's claim.
    ///
    /// # Errors
    /// [`Refusal::MemoryClaim`] if the machine model has no such memory.
    pub const fn claimed(bytes: u64) -> Result<Self, Refusal> {
        if bytes < MIN_RAM || bytes > MAX_RAM || !bytes.is_multiple_of(2 << 20) {
            return Err(Refusal::MemoryClaim);
        }
        Ok(Self { end: bytes })
    }

    /// What the kernel may use: between what stage0 keeps and the BIOS area, and behind that.
    pub const fn usable(self) -> [Range; 2] {
        [Range { start: LOW_MEMORY_GPA, end: LOW_MEMORY_END }, Range { start: HIGH_MEMORY_GPA, end: self.end }]
    }
}

/// Takes the host's claim of virtual CPUs.
///
/// # Errors
/// [`Refusal::VcpuClaim`].
pub const fn vcpus_claimed(count: u32) -> Result<u32, Refusal> {
    if count == 0 || count > MAX_VCPUS { Err(Refusal::VcpuClaim) } else { Ok(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_outside_the_model_are_refused() {
        for bytes in [0, MIN_RAM - (2 << 20), MIN_RAM + 1, MAX_RAM + (2 << 20), u64::MAX, !0x1F_FFFF] {
            assert_eq!(Ram::claimed(bytes), Err(Refusal::MemoryClaim), "{bytes:#x}");
        }
        assert_eq!(Ram::claimed(MAX_RAM), Ok(Ram { end: MAX_RAM }));
        assert_eq!(vcpus_claimed(0), Err(Refusal::VcpuClaim));
        assert_eq!(vcpus_claimed(MAX_VCPUS + 1), Err(Refusal::VcpuClaim));
        assert_eq!(vcpus_claimed(MAX_VCPUS), Ok(MAX_VCPUS));
    }
}
