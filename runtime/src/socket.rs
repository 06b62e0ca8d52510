//! Unix sockets by folder and name: a socket's path has room for 107 bytes, and a home may be deeper.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::{UnixDatagram, UnixListener, UnixStream};

/// Connects to a socket in a folder, however long its path is.
///
/// # Errors
/// As `connect(2)`.
pub fn connect_socket(folder: &Path, name: &str) -> io::Result<UnixStream> {
    let (_folder, path) = short_path(folder, name)?;
    let stream = std::os::unix::net::UnixStream::connect_addr(&SocketAddr::from_pathname(path)?)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Listens on a socket in a folder, however long its path is.
///
/// # Errors
/// As `bind(2)`.
pub fn bind_socket(folder: &Path, name: &str) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(folder.join(name));
    let (_folder, path) = short_path(folder, name)?;
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Takes datagrams at a socket in a folder, however long its path is.
///
/// # Errors
/// As `bind(2)`.
pub fn bind_datagrams(folder: &Path, name: &str) -> io::Result<UnixDatagram> {
    let _ = std::fs::remove_file(folder.join(name));
    let (_folder, path) = short_path(folder, name)?;
    UnixDatagram::bind(path)
}

/// Sends datagrams to a socket in a folder, however long its path is.
///
/// # Errors
/// As `connect(2)`.
pub fn connect_datagrams(folder: &Path, name: &str) -> io::Result<UnixDatagram> {
    let (_folder, path) = short_path(folder, name)?;
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// The folder is named by its descriptor.
fn short_path(folder: &Path, name: &str) -> io::Result<(std::fs::File, PathBuf)> {
    let handle = std::fs::File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()));
    Ok((handle, path))
}
