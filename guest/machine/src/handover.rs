//! The RAM hand-over: where a VMM without fw_cfg puts kernel, initrd and command line, and how it says so.
//!
//! All of it is the host's claim; the copies are hashed as from any other place. Under SEV-SNP the descriptor lies in
//! shared memory and so do the three ranges, all of them pages that are the guest's private ones once they were copied
//! ([`Handover::shared_area`]).

use crate::{
    Refusal,
    bytes::{le32, le64},
    map::{HANDOVER_GPA, PAGE, SHARED_HANDOVER_LIMIT, SHARED_WINDOW_GPA, SHARED_WINDOW_SIZE},
    memory::{Ram, Range},
};

/// Starts the descriptor, at [`HANDOVER_GPA`] or, under SEV-SNP, at [`crate::map::SHARED_HANDOVER_GPA`].
pub const MAGIC: &[u8; 8] = b"COFHAND1";
/// Bytes of the descriptor.
pub const SIZE: usize = 72;

/// What the descriptor says: magic, RAM bytes u64, vCPUs u32, zero u32, then address and length (u64 each) of kernel,
/// initrd and command line; little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// bzImage.
    pub kernel: Range,
    /// Initrd, may be empty.
    pub initrd: Range,
    /// Command line with its NUL.
    pub command_line: Range,
}

impl Handover {
    /// Reads the descriptor; `Ok(None)` if there is none.
    ///
    /// # Errors
    /// [`Refusal::MemoryClaim`] if a range wraps, lies outside memory or over the descriptor's own page.
    pub fn parse(bytes: &[u8; SIZE]) -> Result<Option<Self>, Refusal> {
        if bytes.get(..8) != Some(MAGIC) {
            return Ok(None);
        }
        Self::read(bytes).map(Some).ok_or(Refusal::MemoryClaim)
    }

    fn read(bytes: &[u8; SIZE]) -> Option<Self> {
        let ram_bytes = le64(bytes, 8)?;
        let ram = Ram::claimed(ram_bytes).ok()?;
        let own = Range::new(HANDOVER_GPA, PAGE as u64)?;
        let range = |at: usize| {
            let range = Range::new(le64(bytes, at)?, le64(bytes, at + 8)?)?;
            (range.end <= ram.end && !range.overlaps(own)).then_some(range)
        };
        (le32(bytes, 20)? == 0).then_some(())?;
        let (kernel, initrd, command_line) = (range(24)?, range(40)?, range(56)?);
        Some(Self { ram_bytes, vcpus: le32(bytes, 16)?, kernel, initrd, command_line })
    }

    /// Under SEV-SNP, the memory that the host shares until stage0 has copied from it: the 2 MiB pages that hold the three
    /// ranges and whatever lies between them.
    ///
    /// # Errors
    /// [`Refusal::MemoryClaim`] if they reach into the shared window, or past RAM or the first GiB, which alone stage0 maps
    /// in 2 MiB pages.
    pub fn shared_area(&self) -> Result<Range, Refusal> {
        const LARGE: u64 = 2 << 20;
        let filled =
            || [self.kernel, self.initrd, self.command_line].into_iter().filter(|range| range.start < range.end);
        let start = filled().map(|range| range.start).min().ok_or(Refusal::MemoryClaim)? & !(LARGE - 1);
        let end = filled().map(|range| range.end).max().ok_or(Refusal::MemoryClaim)?.next_multiple_of(LARGE);
        let fits = start >= SHARED_WINDOW_GPA + SHARED_WINDOW_SIZE && end <= self.ram_bytes.min(SHARED_HANDOVER_LIMIT);
        if fits { Ok(Range { start, end }) } else { Err(Refusal::MemoryClaim) }
    }

    /// Writes the descriptor.
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.ram_bytes.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.vcpus.to_le_bytes());
        for (index, range) in [self.kernel, self.initrd, self.command_line].iter().enumerate() {
            let at = 24 + index * 16;
            bytes[at..at + 8].copy_from_slice(&range.start.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&(range.end - range.start).to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Handover {
        let range = |start, length| Range::new(start, length).unwrap();
        Handover {
            ram_bytes: 256 << 20,
            vcpus: 2,
            kernel: range(0x800_0000, 14 << 20),
            initrd: range(0x900_0000, 0),
            command_line: range(0x9000, 100),
        }
    }

    #[test]
    fn reads_what_it_writes_and_nothing_without_its_magic() {
        assert_eq!(Handover::parse(&sample().to_bytes()), Ok(Some(sample())));
        assert_eq!(Handover::parse(&[0; SIZE]), Ok(None));
    }

    #[test]
    fn what_is_shared_under_snp_is_whole_large_pages_apart_from_the_window() {
        let range = |start, length| Range::new(start, length).unwrap();
        let good = Handover { command_line: range(0x7FF_F000, 100), ..sample() };
        assert_eq!(
            good.shared_area(),
            Ok(Range { start: 0x7E0_0000, end: 0x8E0_0000 }),
            "an empty initrd counts nothing"
        );
        for start in [0x9000, SHARED_WINDOW_GPA + SHARED_WINDOW_SIZE - 100] {
            assert_eq!(
                Handover { command_line: range(start, 100), ..good }.shared_area(),
                Err(Refusal::MemoryClaim),
                "{start:#x}"
            );
        }
        let high = Handover { ram_bytes: 2 << 30, initrd: range(SHARED_HANDOVER_LIMIT - 1, 2), ..good };
        assert_eq!(high.shared_area(), Err(Refusal::MemoryClaim));
    }

    #[test]
    fn ranges_that_wrap_or_leave_memory_are_refused() {
        let refused = |at: usize, value: u64| {
            let mut bytes = sample().to_bytes();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert_eq!(Handover::parse(&bytes), Err(Refusal::MemoryClaim), "{at}");
        };
        refused(8, 1 << 40);
        refused(24, u64::MAX - 5);
        refused(32, 256 << 20);
        refused(40, (256 << 20) + 1);
        refused(56, HANDOVER_GPA + 8);
        let mut bytes = sample().to_bytes();
        bytes[20] = 1;
        assert_eq!(Handover::parse(&bytes), Err(Refusal::MemoryClaim));
    }
}
