//! The host's end of a guest's vsock: Firecracker's hybrid protocol over Unix sockets.
//!
//! To reach a guest port: connect to `vsock.sock`, write `CONNECT <port>\n`, read `OK <anything>\n`; the stream then is the
//! guest's. What a guest opens to port N arrives at a socket listening on `vsock.sock_N`.
//! Every monitor offers its guest in this form, in the box folder. Its supervisor makes lines there, for commands too ([`super::lent`]).
//! Trusts: nothing that comes over the line; an answer longer than a line is refused.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::boxes::files;
use crate::socket::{bind_socket, connect_socket};

/// Why a guest port was not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VsockError {
    /// No device listens: the box does not run.
    #[error("the box's vsock does not answer")]
    NoDevice(#[source] io::Error),
    /// The device took the line, and nobody answers on it.
    #[error("nothing answers behind the box's vsock, for {} seconds now", ANSWER.as_secs())]
    Silent,
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

/// How long a guest that runs may take to answer.
pub const ANSWER: Duration = Duration::from_secs(20);

/// Makes a line to a port of the guest, and keeps something until the guest has answered or its device is gone, also where nobody
/// waits for that any more. For a process that lives as long as the guest.
///
/// # Errors
/// [`VsockError`].
pub async fn make<K: Send + 'static>(folder: &Path, port: u32, kept: K) -> Result<UnixStream, VsockError> {
    within(ANSWER, folder, port, kept).await
}

async fn within<K: Send + 'static>(
    patience: Duration,
    folder: &Path,
    port: u32,
    kept: K,
) -> Result<UnixStream, VsockError> {
    let stream = connect_socket(folder, files::VSOCK).map_err(VsockError::NoDevice)?;
    let (sender, answer) = oneshot::channel();
    // By itself: vhost-device-vsock (0.3.0) breaks for good, and the guest's vsock with it, where the line of a CONNECT is hung up on
    // before the guest has answered.
    tokio::spawn(async move {
        let _ = sender.send(handshake(stream, port).await);
        drop(kept);
    });
    timeout(patience, answer).await.map_err(|_| VsockError::Silent)?.map_err(|_| VsockError::Silent)?
}

async fn handshake(mut stream: UnixStream, port: u32) -> Result<UnixStream, VsockError> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await.map_err(VsockError::NoDevice)?;
    // One byte at a time: what follows the line belongs to the guest's protocol.
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) if byte == *b"\n" => break,
            Ok(1) if line.len() < 64 => line.extend_from_slice(&byte),
            Ok(0) | Err(_) => return Err(VsockError::NoListener { port }),
            Ok(_) => return Err(VsockError::Answer { found: String::from_utf8_lossy(&line).into_owned() }),
        }
    }
    if line.starts_with(b"OK ") || line == b"OK" {
        Ok(stream)
    } else {
        Err(VsockError::Answer { found: String::from_utf8_lossy(&line).into_owned() })
    }
}

/// Listens for what the guest opens to a host port.
///
/// # Errors
/// If the socket cannot be made.
pub fn listen(folder: &Path, port: u32) -> io::Result<UnixListener> {
    bind_socket(folder, &format!("{}_{port}", files::VSOCK))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        let mut stream = make(dir.path(), 4088, ()).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
        assert_eq!(device.await.unwrap(), "CONNECT 4088\n");
    }

    #[tokio::test]
    async fn says_when_nobody_listens_inside() {
        let dir = tempfile::tempdir().unwrap();
        let _device = device(dir.path(), b"");
        let error = make(dir.path(), 9, ()).await.unwrap_err();
        assert!(matches!(error, VsockError::NoListener { port: 9 }), "{error}");
    }

    #[tokio::test]
    async fn a_guest_that_does_not_answer_is_not_waited_for_and_its_line_is_kept_until_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let listener = bind_socket(dir.path(), files::VSOCK).unwrap();
        let kept = Arc::new(());
        let error = within(Duration::from_millis(100), dir.path(), 9, Arc::clone(&kept)).await.unwrap_err();
        assert!(matches!(error, VsockError::Silent), "{error}");
        let (mut line, _) = listener.accept().await.unwrap();
        let mut asked = [0; 10];
        line.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"CONNECT 9\n");
        assert_eq!(line.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "it was hung up on");
        assert_eq!(Arc::strong_count(&kept), 2);
        line.write_all(b"OK 7\n").await.unwrap();
        assert_eq!(line.read(&mut [0]).await.unwrap(), 0, "nobody waits any more");
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[tokio::test]
    async fn refuses_another_answer_and_an_endless_one() {
        for answer in [&b"NO\n"[..], &[b'O'; 4096]] {
            let dir = tempfile::tempdir().unwrap();
            let _device = device(dir.path(), answer);
            assert!(matches!(make(dir.path(), 9, ()).await, Err(VsockError::Answer { .. })));
        }
    }

    #[tokio::test]
    async fn says_when_the_box_does_not_run_and_reaches_deep_folders() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        assert!(matches!(make(&deep, 9, ()).await, Err(VsockError::NoDevice(_))));
        let device = device(&deep, b"OK 1\n");
        make(&deep, 4090, ()).await.unwrap();
        assert_eq!(device.await.unwrap(), "CONNECT 4090\n");
    }
}
