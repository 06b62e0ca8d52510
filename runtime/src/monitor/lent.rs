//! Lines to a guest that its supervisor makes and lends to commands: one number of a port per connection to `lent.sock` in the box
//! folder, one byte and a descriptor back.
//!
//! A command may be gone before the guest has answered, and the line that it made itself would be hung up on. vhost-device-vsock (0.3.0)
//! breaks for good where that happens, and the guest is out of reach then. The supervisor lives as long as the guest.
//! Trusts: whoever can open the socket, who can open the guest's too. Never: looks at what goes over a line.
//! Source: unix(7), SCM_RIGHTS.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::vsock::{self, VsockError};
use crate::boxes::files;
use crate::socket::connect_socket;

/// With the line.
const HERE: u8 = b'l';
/// Nobody listens there.
const NO_LISTENER: u8 = b'n';
/// There is no device.
const NO_DEVICE: u8 = b'd';
/// Nobody answers.
const SILENT: u8 = b's';

/// Lends lines for as long as this process lives.
pub async fn serve(listener: UnixListener, folder: PathBuf) {
    loop {
        let Ok((asked, _)) = listener.accept().await else {
            // Out of descriptors, say: the guest must stay within reach.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let folder = folder.clone();
        tokio::spawn(async move { lend(asked, &folder).await });
    }
}

async fn lend(mut to: UnixStream, folder: &Path) -> io::Result<()> {
    let port = to.read_u32().await?;
    let (byte, line) = match vsock::make(folder, port, ()).await {
        Ok(line) => (HERE, Some(line)),
        Err(VsockError::NoListener { .. }) => (NO_LISTENER, None),
        Err(VsockError::NoDevice(_)) => (NO_DEVICE, None),
        Err(_) => (SILENT, None),
    };
    let Some(line) = line else { return to.write_all(&[byte]).await };
    let descriptors = [line.as_fd()];
    to.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&descriptors));
        Ok(sendmsg(&to, &[IoSlice::new(&[byte])], &mut rights, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)?)
    })
    .await
}

/// Connects to a port of the guest whose box folder this is: over its supervisor, where it has one.
///
/// # Errors
/// [`VsockError`].
pub async fn connect(folder: &Path, port: u32) -> Result<UnixStream, VsockError> {
    // With a little more patience than it has.
    match timeout(vsock::ANSWER + Duration::from_secs(1), borrow(folder, port)).await {
        Ok(Some(line)) => line,
        Ok(None) => vsock::make(folder, port, ()).await,
        Err(_) => Err(VsockError::Silent),
    }
}

/// A line to a port of the guest; nothing where nobody lends any.
async fn borrow(folder: &Path, port: u32) -> Option<Result<UnixStream, VsockError>> {
    let mut from = connect_socket(folder, files::LENT).ok()?;
    from.write_u32(port).await.ok()?;
    // It ends without a word where its supervisor ends.
    let (byte, line) = take(&from).await.ok()?;
    Some(match (byte, line) {
        (HERE, Some(line)) => {
            let line = std::os::unix::net::UnixStream::from(line);
            let made = line.set_nonblocking(true).and_then(|()| UnixStream::from_std(line));
            made.map_err(VsockError::NoDevice)
        }
        (NO_LISTENER, _) => Err(VsockError::NoListener { port }),
        (NO_DEVICE, _) => Err(VsockError::NoDevice(io::ErrorKind::ConnectionRefused.into())),
        _ => Err(VsockError::Silent),
    })
}

async fn take(from: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    from.async_io(Interest::READABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut rights, flags)?;
        let line = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        if got.bytes == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok((byte[0], line)) }
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::socket::bind_socket;

    #[tokio::test]
    async fn a_line_is_lent_and_kept_until_the_guest_answers_whoever_asked_for_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(borrow(dir.path(), 9).await.is_none(), "nobody lends any yet");
        let device = bind_socket(dir.path(), files::VSOCK).unwrap();
        let (answer, may_answer) = oneshot::channel::<()>();
        let playing = tokio::spawn(async move {
            // The first answers late, the second at once, and nobody listens for the third.
            let (mut late, _) = device.accept().await.unwrap();
            late.read_exact(&mut [0; 10]).await.unwrap();
            let (mut line, _) = device.accept().await.unwrap();
            line.read_exact(&mut [0; 10]).await.unwrap();
            line.write_all(b"OK 7\nhello").await.unwrap();
            let (mut none, _) = device.accept().await.unwrap();
            none.read_exact(&mut [0; 10]).await.unwrap();
            drop(none);
            may_answer.await.unwrap();
            late.write_all(b"OK 8\n").await.unwrap();
            assert_eq!(late.read(&mut [0]).await.unwrap(), 0);
        });
        tokio::spawn(serve(bind_socket(dir.path(), files::LENT).unwrap(), dir.path().to_owned()));
        let gone = timeout(Duration::from_millis(100), connect(dir.path(), 9)).await;
        assert!(gone.is_err());
        let mut line = connect(dir.path(), 9).await.unwrap();
        let mut said = [0; 5];
        line.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
        let none = connect(dir.path(), 9).await.unwrap_err();
        assert!(matches!(none, VsockError::NoListener { port: 9 }), "{none}");
        answer.send(()).unwrap();
        playing.await.unwrap();
    }
}
