//! AF_VSOCK sockets: blocking lines towards the host, and tokio streams for the agent's listeners.
//!
//! Source: Linux include/uapi/linux/vm_sockets.h, vsock(7).

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use coffer_machine::vsock::HOST_CID;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    sync::watch,
};

use super::descriptor::register;

const _: () = assert!(size_of::<libc::sockaddr_vm>() == 16);

/// Any CID, for listening.
const ANY_CID: u32 = u32::MAX;

fn socket(extra: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer; a non-negative result is a descriptor nobody else owns.
    unsafe {
        let fd = libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | extra, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: sockaddr_vm is integers and bytes only; all zeros is a value of it.
    let mut address: libc::sockaddr_vm = unsafe { core::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_vm>() as libc::socklen_t;

/// Connects and blocks until the other side accepted, at most the kernel's two seconds.
///
/// # Errors
/// The kernel's: ECONNRESET where nobody listens, ETIMEDOUT, ENODEV without a transport.
pub fn connect(cid: u32, port: u32) -> io::Result<Line> {
    let fd = socket(0)?;
    let address = address(cid, port);
    // SAFETY: `address` lives through the call and ADDRESS_LEN is its size.
    let result = unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Line(fd.into())) }
}

/// A blocking connection.
#[derive(Debug)]
pub struct Line(File);

impl From<OwnedFd> for Line {
    /// `fd`: a connected, blocking stream socket of any family.
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

impl Line {
    /// Bounds every later read and write.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let fd = self.0.as_fd();
        rustix::net::sockopt::set_socket_timeout(fd, rustix::net::sockopt::Timeout::Recv, Some(timeout))?;
        rustix::net::sockopt::set_socket_timeout(fd, rustix::net::sockopt::Timeout::Send, Some(timeout))?;
        Ok(())
    }

    /// Hands the connection to tokio.
    ///
    /// # Errors
    /// The kernel's, or no reactor is running.
    pub fn into_stream(self) -> io::Result<VsockStream> {
        rustix::io::ioctl_fionbio(&self.0, true)?;
        VsockStream::new(self.0.into(), VsockPeer { cid: ANY_CID, port: 0 })
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Who is on the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockPeer {
    /// Context id; 2 is the host.
    pub cid: u32,
    /// Port of the peer.
    pub port: u32,
}

/// A listening socket on one port.
pub struct VsockListener(AsyncFd<OwnedFd>);

impl VsockListener {
    /// Listens on `port` for any peer.
    ///
    /// # Errors
    /// The kernel's: EADDRINUSE, or no vsock transport.
    pub fn bind(port: u32) -> io::Result<Self> {
        let fd = socket(libc::SOCK_NONBLOCK)?;
        let address = address(ANY_CID, port);
        // SAFETY: `address` lives through the call and ADDRESS_LEN is its size; listen takes no pointer.
        let result = unsafe {
            match libc::bind(fd.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) {
                0 => libc::listen(fd.as_raw_fd(), 128),
                failed => failed,
            }
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(register(fd)?)) }
    }

    /// The next connection.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn accept(&self) -> io::Result<VsockStream> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(accepted) = guard.try_io(|fd| accept(fd.get_ref())) {
                let (fd, peer) = accepted?;
                return VsockStream::new(fd, peer);
            }
        }
    }
}

fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, VsockPeer)> {
    let mut peer = address(0, 0);
    let mut length = ADDRESS_LEN;
    // SAFETY: `peer` and `length` live through the call and the kernel writes at most `length` bytes; a non-negative
    // result is a descriptor nobody else owns.
    let fd = unsafe {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = libc::accept4(listener.as_raw_fd(), (&raw mut peer).cast(), &raw mut length, flags);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    Ok((fd, VsockPeer { cid: peer.svm_cid, port: peer.svm_port }))
}

/// A connection as tokio sees it.
#[derive(Debug)]
pub struct VsockStream {
    fd: AsyncFd<OwnedFd>,
    peer: VsockPeer,
    /// Of ours.
    port: u32,
    /// Its sender knows when nobody has one any more.
    _counted: Option<watch::Receiver<()>>,
}

impl VsockStream {
    /// Takes over what stands in for a connection from the host where there is no vsock.
    ///
    /// `fd`: a connected stream socket of any family that does not block.
    ///
    /// # Errors
    /// No reactor is running.
    pub fn from_host(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, VsockPeer { cid: HOST_CID, port: 0 })
    }

    fn new(fd: OwnedFd, peer: VsockPeer) -> io::Result<Self> {
        Ok(Self { fd: register(fd)?, peer, port: 0, _counted: None })
    }

    /// Came to this port of ours, and is open as long as `among` is there.
    #[must_use]
    pub fn counted(self, port: u32, among: watch::Receiver<()>) -> Self {
        Self { port, _counted: Some(among), ..self }
    }

    /// The port of ours that it came to.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Who is on the other end.
    pub fn peer(&self) -> VsockPeer {
        self.peer
    }
}

impl AsyncRead for VsockStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *space)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for VsockStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::writev(fd.get_ref(), parts)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    /// Each call is a packet, and an interrupt: the head of a frame goes along with the rest of it.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(self.fd.get_ref(), rustix::net::Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl tonic::transport::server::Connected for VsockStream {
    type ConnectInfo = VsockPeer;
    fn connect_info(&self) -> VsockPeer {
        self.peer
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn the_head_of_a_frame_goes_along_with_the_rest_of_it() {
        // What is written at once comes at once, and nothing else does.
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream = VsockStream::from_host(ours.into()).unwrap();
        assert!(stream.is_write_vectored());
        let parts = [io::IoSlice::new(b"head"), io::IoSlice::new(b" and body")];
        assert_eq!(stream.write_vectored(&parts).await.unwrap(), 13);
        let mut packet = [0; 32];
        let count = theirs.recv(&mut packet).unwrap();
        assert_eq!(&packet[..count], b"head and body");
        // A peer that is gone is an error of it too.
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        drop(theirs);
        let mut stream = VsockStream::from_host(ours.into()).unwrap();
        assert!(stream.write_vectored(&parts).await.is_err());
    }
}
