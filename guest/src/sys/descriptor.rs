//! Descriptors that the event loop waits for.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// One that does not block, as tokio sees it.
///
/// # Errors
/// The kernel's: EPERM for what nothing can wait for.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor and closes it only when it is dropped, after the AsyncFd that
    // owns it has left the reactor.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
