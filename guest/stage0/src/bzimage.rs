//! The header of a Linux bzImage, as far as booting by its 64-bit entry needs it.
//!
//! Trusts: nothing. It is read twice: once from the host's bytes, to know where to copy to, and again from the copy whose
//! hash was checked; stage0 goes on only if both readings agree.
//! Source: Linux Documentation/arch/x86/boot.rst, protocol 2.12.

use coffer_machine::{
    Refusal,
    bytes::{le16, le32},
    map::KERNEL_GPA,
};

/// Bytes from the start of the file that hold all of the header.
pub const HEAD: usize = 0x270;

/// What stage0 needs to know of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BzImage {
    /// Bytes of the real-mode part, which the protected-mode part follows in the file.
    pub setup_bytes: usize,
    /// Memory the kernel uses from its load address on until it knows its memory map.
    pub init_size: u64,
    /// Longest command line it reads, without the NUL.
    pub command_line_limit: usize,
    /// Highest address an initrd may have its last byte at.
    pub initrd_max: u64,
    /// End of the header inside the file; it starts at [`HEADER_START`].
    pub header_end: usize,
}

/// Where the header starts in the file and in the zero page.
pub const HEADER_START: usize = 0x1F1;
/// The 64-bit entry, behind the start of the protected-mode part.
pub const ENTRY_64: u64 = 0x200;

impl BzImage {
    /// Reads the header from the start of the file; `file_bytes` is the length of the whole file.
    ///
    /// # Errors
    /// [`Refusal::KernelFormat`].
    pub fn parse(head: &[u8], file_bytes: usize) -> Result<Self, Refusal> {
        Self::read(head, file_bytes).ok_or(Refusal::KernelFormat)
    }

    fn read(head: &[u8], file_bytes: usize) -> Option<Self> {
        let magics = le16(head, 0x1FE)? == 0xAA55 && head.get(0x202..0x206)? == b"HdrS";
        let version = le16(head, 0x206)?;
        let loaded_high = head.get(0x211)? & 1 == 1;
        let entry_64 = le16(head, 0x236)? & 1 == 1;
        let relocatable = *head.get(0x234)? != 0;
        let alignment = u64::from(le32(head, 0x230)?);
        if !magics || version < 0x020C || !loaded_high || !entry_64 || !relocatable {
            return None;
        }
        if !alignment.is_power_of_two() || !KERNEL_GPA.is_multiple_of(alignment) {
            return None;
        }
        let sectors = match *head.get(HEADER_START)? {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let setup_bytes = (sectors + 1) * 512;
        let protected_bytes = file_bytes.checked_sub(setup_bytes)?;
        let stated = usize::try_from(le32(head, 0x1F4)?).ok()?.checked_mul(16)?;
        // Linux pads the file to whole paragraphs; a signature may follow.
        if stated == 0 || stated > protected_bytes.next_multiple_of(16) {
            return None;
        }
        let init_size = u64::from(le32(head, 0x260)?);
        if init_size < protected_bytes as u64 {
            return None;
        }
        let header_end = 0x202 + usize::from(*head.get(0x201)?);
        if !(0x264..=HEAD.min(head.len())).contains(&header_end) {
            return None;
        }
        Some(Self {
            setup_bytes,
            init_size,
            command_line_limit: usize::try_from(le32(head, 0x238)?).ok()?,
            initrd_max: u64::from(le32(head, 0x22C)?),
            header_end,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    /// A header a real kernel could have, with `protected` bytes behind it.
    pub(crate) fn sample(protected: usize) -> Vec<u8> {
        let mut image = vec![0; 1024 + protected];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1F1, &[1]);
        put(0x1F4, &((protected as u32).div_ceil(16)).to_le_bytes());
        put(0x1FE, &0xAA55_u16.to_le_bytes());
        put(0x200, &[0xEB, 0x6A]);
        put(0x202, b"HdrS");
        put(0x206, &0x020F_u16.to_le_bytes());
        put(0x211, &[1]);
        put(0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
        put(0x230, &0x0020_0000_u32.to_le_bytes());
        put(0x234, &[1]);
        put(0x236, &0x3F_u16.to_le_bytes());
        put(0x238, &2047_u32.to_le_bytes());
        put(0x260, &0x0010_0000_u32.to_le_bytes());
        image
    }

    #[test]
    fn reads_what_booting_needs() {
        let image = sample(5000);
        let expected = BzImage {
            setup_bytes: 1024,
            init_size: 0x10_0000,
            command_line_limit: 2047,
            initrd_max: 0x7FFF_FFFF,
            header_end: 0x26C,
        };
        assert_eq!(BzImage::parse(&image, image.len()), Ok(expected));
        assert_eq!(BzImage::parse(&image[..HEAD], image.len()), Ok(expected));
    }

    #[test]
    fn each_condition_is_one() {
        let refused = |at: usize, byte: u8| {
            let mut image = sample(5000);
            image[at] = byte;
            assert_eq!(BzImage::parse(&image, image.len()), Err(Refusal::KernelFormat), "byte {at:#x}");
        };
        refused(0x1FE, 0); // boot flag
        refused(0x203, 0); // magic
        refused(0x207, 1); // protocol 1.15
        refused(0x211, 0); // zImage
        refused(0x236, 0x3E); // no 64-bit entry
        refused(0x234, 0); // not relocatable
        refused(0x230, 3); // alignment no power of two
        refused(0x233, 0x40); // alignment above the load address
        refused(0x1F5, 0xFF); // more stated than there is
        refused(0x262, 0); // init_size below the file
        refused(0x201, 0xFF); // header longer than the zero page has room for
        refused(0x201, 0x10); // header shorter than protocol 2.12
        let mut empty = sample(5000);
        empty[0x1F4..0x1F8].fill(0);
        assert!(BzImage::parse(&empty, empty.len()).is_err());
        let image = sample(5000);
        assert!(BzImage::parse(&image, 1023).is_err(), "a file shorter than its setup part");
        assert!(BzImage::parse(&image[..0x250], image.len()).is_err(), "a head that ends too early");
    }

    proptest! {
        #[test]
        fn never_panics_and_never_promises_more_than_there_is(head in prop::collection::vec(any::<u8>(), 0..700), file in 0_usize..1 << 26) {
            let mut sample = sample(4000);
            for (at, byte) in head.iter().enumerate() {
                if byte % 7 == 0 { sample[at] = *byte; }
            }
            for bytes in [&head, &sample] {
                if let Ok(found) = BzImage::parse(bytes, file) {
                    prop_assert!(found.setup_bytes < file && found.init_size as usize >= file - found.setup_bytes);
                }
            }
        }
    }
}
