//! Leaving the host's namespaces.
//!
//! Source: unshare(2), user_namespaces(7).

use std::io;

use rustix::thread::UnshareFlags;

/// Leaves them; with `users` also that of users, which is how anybody but root may leave the others.
///
/// # Errors
/// If the kernel does not let us.
pub fn leave(users: bool) -> io::Result<()> {
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if users {
        flags |= UnshareFlags::NEWUSER;
    }
    // SAFETY: none of these flags changes what file descriptors or memory of this process mean.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}
