//! A Unix socket that only its owner and root reach, in a folder of its own.
//!
//! Trusts: the kernel, who may enter a folder of mode 0700. Never: follows a link, replaces anything but a socket of its own user's on
//! which nobody listens, removes one that somebody else put there meanwhile.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Its file, which goes when this does.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, by which it is known again.
    file: (u64, u64),
}

/// Listens on `name` in `folder`, which is made where it is missing. One that was left there before is replaced.
///
/// # Errors
/// As the system says; [`io::ErrorKind::AlreadyExists`] for what is no socket or no folder of ours; [`io::ErrorKind::AddrInUse`] for a
/// socket on which somebody listens.
pub fn bind(folder: &Path, name: &str) -> io::Result<(UnixListener, SocketFile)> {
    let path = folder.join(name);
    let user = rustix::process::geteuid().as_raw();
    let other = |what| io::Error::new(io::ErrorKind::AlreadyExists, format!("there is {what} in its place"));
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Not through a link, and not into what is somebody else's.
            let there = fs::symlink_metadata(folder)?;
            if !there.is_dir() || there.uid() != user {
                return Err(other("something that is no folder of this user's"));
            }
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        made => made?,
    }
    match fs::symlink_metadata(&path) {
        Ok(there) if there.file_type().is_socket() && there.uid() == user => {
            // Who listens there would go on, and be deaf. One that is too busy to be connected to listens too.
            match connect(&path) {
                Err(Errno::CONNREFUSED) => fs::remove_file(&path)?,
                Ok(()) | Err(Errno::AGAIN) => {
                    let words = "another program listens there: end it first, or name another state folder";
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, words));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(_) => return Err(other("something that is no socket of this user's")),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let file = identity(&path)?;
    Ok((listener, SocketFile { path, file }))
}

/// Whether somebody answers, without waiting for a place.
fn connect(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another program may have put its own there meanwhile.
        if identity(&self.path).is_ok_and(|there| there == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode of what lies there.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let there = fs::symlink_metadata(path)?;
    Ok((there.dev(), there.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_left_there_is_replaced_and_one_that_listens_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("local");
        let (first, file) = bind(&folder, "a.sock").unwrap();
        assert_eq!(bind(&folder, "a.sock").unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // Ended without a word: its file stays.
        std::mem::forget(file);
        drop(first);
        assert!(folder.join("a.sock").exists());
        let (_second, _file) = bind(&folder, "a.sock").unwrap();
    }
}
