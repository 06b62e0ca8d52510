//! Files read into guest memory and written from it, without a copy between.
//!
//! Source: preadv(2), pwritev(2).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use vm_memory::VolatileSlice;

/// Most slices of one call (UIO_MAXIOV).
const MOST: libc::c_int = 1024;

/// Reads from `offset` until all slices are full.
///
/// # Errors
/// As the file's, and if it ends before.
pub fn read_at(file: &File, offset: u64, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    all(offset, slices, |vectors, offset| {
        // SAFETY: the vectors name mapped guest memory, which the slices keep alive; Rust holds no reference into it, and the
        // guest may change it at any time, before and after the kernel.
        unsafe { libc::preadv(file.as_raw_fd(), vectors.as_ptr(), count(vectors), offset) }
    })
}

/// Writes all slices from `offset`.
///
/// # Errors
/// As the file's.
pub fn write_at(file: &File, offset: u64, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    all(offset, slices, |vectors, offset| {
        // SAFETY: as for reading; the kernel only reads them.
        unsafe { libc::pwritev(file.as_raw_fd(), vectors.as_ptr(), count(vectors), offset) }
    })
}

fn count(vectors: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(vectors.len()).unwrap_or(MOST).min(MOST)
}

fn all(
    offset: u64,
    slices: &[VolatileSlice<'_>],
    call: impl Fn(&[libc::iovec], libc::off_t) -> isize,
) -> io::Result<usize> {
    let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard_mut).collect();
    let mut vectors: Vec<_> =
        guards.iter().map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() }).collect();
    let (mut left, mut done) = (vectors.as_mut_slice(), 0);
    while let [first, ..] = left {
        if first.iov_len == 0 {
            left = &mut left[1..];
            continue;
        }
        let at = offset.checked_add(done as u64).and_then(|at| libc::off_t::try_from(at).ok());
        let moved = match call(left, at.ok_or(io::ErrorKind::InvalidInput)?) {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            moved => match usize::try_from(moved) {
                Ok(moved) => moved,
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(io::Error::last_os_error()),
            },
        };
        done += moved;
        left = behind(left, moved);
    }
    Ok(done)
}

/// What is left behind the first `moved` bytes.
fn behind(mut vectors: &mut [libc::iovec], mut moved: usize) -> &mut [libc::iovec] {
    while let [first, ..] = vectors
        && moved >= first.iov_len
    {
        moved -= first.iov_len;
        vectors = &mut vectors[1..];
    }
    if let [first, ..] = vectors {
        first.iov_base = first.iov_base.cast::<u8>().wrapping_add(moved).cast();
        first.iov_len -= moved;
    }
    vectors
}
