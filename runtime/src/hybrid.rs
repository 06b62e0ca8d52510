//! The host's end of a guest's vsock: Firecracker's hybrid protocol over Unix sockets.
//!
//! To reach a guest port: connect to `vsock.sock`, write `CONNECT <port>\n`, read `OK <anything>\n`; the stream then is the
//! guest's. What a guest opens to port N arrives at a socket listening on `vsock.sock_N`.
//! Trusts: nothing that comes over the line; an answer longer than a line is refused.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::boxes::files;

/// Why a guest port was not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HybridError {
    /// No device listens: the box does not run.
    #[error("the box's vsock does not answer")]
    NoDevice(#[source] io::Error),
    /// The device closed the line: nothing listens on that port of the guest.
    #[error("nothing listens on port {port} of the guest")]
    NoListener {
        /// Which port.
        port: u32,
    },
    /// The device said something else.
    #[error("the box's vsock answered {found:?}, expected OK")]
    Answer {
        /// What it said, cut.
        found: String,
    },
}

/// Connects to a port of the guest whose box folder this is.
///
/// # Errors
/// [`HybridError`].
pub async fn connect(folder: &Path, port: u32) -> Result<UnixStream, HybridError> {
    let mut stream = connect_socket(folder, files::VSOCK).map_err(HybridError::NoDevice)?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await.map_err(HybridError::NoDevice)?;
    // One byte at a time: what follows the line belongs to the guest's protocol.
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) if byte == *b"\n" => break,
            Ok(1) if line.len() < 64 => line.extend_from_slice(&byte),
            Ok(0) | Err(_) => return Err(HybridError::NoListener { port }),
            Ok(_) => return Err(HybridError::Answer { found: String::from_utf8_lossy(&line).into_owned() }),
        }
    }
    if line.starts_with(b"OK ") || line == b"OK" {
        Ok(stream)
    } else {
        Err(HybridError::Answer { found: String::from_utf8_lossy(&line).into_owned() })
    }
}

/// Listens for what the guest opens to a host port.
///
/// # Errors
/// If the socket cannot be made.
pub fn listen(folder: &Path, port: u32) -> io::Result<UnixListener> {
    bind_socket(folder, &format!("{}_{port}", files::VSOCK))
}

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

/// A Unix socket's path has room for 107 bytes, and a home may be deeper: the folder is named by its descriptor.
fn short_path(folder: &Path, name: &str) -> io::Result<(std::fs::File, PathBuf)> {
    let handle = std::fs::File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()));
    Ok((handle, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that answers one connection with `answer` after the request line, and returns that line.
    fn device(folder: &Path, answer: &'static [u8]) -> tokio::task::JoinHandle<String> {
        let listener = bind_socket(folder, files::VSOCK).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                line.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8(line).unwrap()
        })
    }

    #[tokio::test]
    async fn speaks_the_handshake_and_leaves_the_guests_bytes_alone() {
        let dir = tempfile::tempdir().unwrap();
        let device = device(dir.path(), b"OK 1073741824\nhello");
        let mut stream = connect(dir.path(), 4088).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
        assert_eq!(device.await.unwrap(), "CONNECT 4088\n");
    }

    #[tokio::test]
    async fn says_when_nobody_listens_inside() {
        let dir = tempfile::tempdir().unwrap();
        let _device = device(dir.path(), b"");
        let error = connect(dir.path(), 9).await.unwrap_err();
        assert!(matches!(error, HybridError::NoListener { port: 9 }), "{error}");
    }

    #[tokio::test]
    async fn refuses_another_answer_and_an_endless_one() {
        for answer in [&b"NO\n"[..], &[b'O'; 4096]] {
            let dir = tempfile::tempdir().unwrap();
            let _device = device(dir.path(), answer);
            assert!(matches!(connect(dir.path(), 9).await, Err(HybridError::Answer { .. })));
        }
    }

    #[tokio::test]
    async fn says_when_the_box_does_not_run_and_reaches_deep_folders() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        assert!(matches!(connect(&deep, 9).await, Err(HybridError::NoDevice(_))));
        let device = device(&deep, b"OK 1\n");
        connect(&deep, 4090).await.unwrap();
        assert_eq!(device.await.unwrap(), "CONNECT 4090\n");
    }
}
