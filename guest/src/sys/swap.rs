//! Swap on a block device.
//!
//! Source: swapon(2); `union swap_header` in Linux include/linux/swap.h.

use std::{ffi::CString, io, os::unix::ffi::OsStrExt, path::Path};

/// Bytes of a page, and of the header.
pub const PAGE: usize = 4096;

/// The header of a swap area of `pages` pages, itself included: what mkswap(8) writes.
pub fn header(pages: u32) -> [u8; PAGE] {
    let mut header = [0; PAGE];
    header[1024..1028].copy_from_slice(&1_u32.to_ne_bytes()); // version
    header[1028..1032].copy_from_slice(&pages.saturating_sub(1).to_ne_bytes()); // last page
    header[PAGE - MAGIC.len()..].copy_from_slice(MAGIC);
    header
}

const MAGIC: &[u8; 10] = b"SWAPSPACE2";

/// Lets the kernel swap to a device that has a header.
///
/// # Errors
/// The kernel's.
pub fn swap_on(node: &Path) -> io::Result<()> {
    let node = CString::new(node.as_os_str().as_bytes())?;
    // SAFETY: `node` is a C string that lives through the call; the kernel keeps no pointer to it.
    let result = unsafe { libc::swapon(node.as_ptr(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_one_mkswap_writes() {
        let header = header(256);
        assert_eq!(header[1024..1032], [1, 0, 0, 0, 255, 0, 0, 0]);
        assert_eq!(&header[4086..], b"SWAPSPACE2");
        assert!(header[..1024].iter().chain(&header[1032..4086]).all(|byte| *byte == 0));
    }
}
