//! What the C library's allocator does with memory that a program gives back.
//!
//! Source: mallopt(3).

use std::ffi::c_int;

/// Blocks below this are taken from what is kept.
const BLOCK: c_int = 1 << 20;
/// Bytes that are kept for the next use, of each arena: what is on its way in a stream, twice.
const KEPT: c_int = 4 * BLOCK;

/// Keeps freed memory for the next use, where the kernel would get it back and clear it page by page before the next: for programs that
/// bytes stream through, in pieces that are taken and freed all the time.
pub fn keep_freed() {
    #[cfg(target_env = "gnu")]
    for (which, bytes) in [(libc::M_TRIM_THRESHOLD, KEPT), (libc::M_MMAP_THRESHOLD, BLOCK)] {
        // SAFETY: takes numbers. It locks what it changes; other threads find the old number or the new one, and either will do.
        let _ = unsafe { libc::mallopt(which, bytes) };
    }
}
