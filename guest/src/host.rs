//! The lines between a guest and its host: vsock ports in a machine, Unix sockets where there is none.
//!
//! In namespaces each port the host listens on is a socket of its own, and the guest is reached on one socket that speaks
//! the hybrid protocol as monitors do: `CONNECT <port>\n`, answered by `OK <port>\n`.
//! Trusts: nothing that comes over a line.

use std::{
    collections::HashMap,
    io,
    os::{fd::OwnedFd, unix::net},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coffer_machine::{namespaces, vsock::HOST_CID};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::sys::vsock::{self, Line, VsockListener, VsockStream};

/// How the host is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Over vsock.
    Vsock,
    /// Over sockets in [`namespaces::LINES`].
    Sockets,
}

impl Host {
    /// How long what was sent may take to leave a guest that ends, where nobody says that it has come: whoever has it hangs up, and
    /// is not waited for longer. What was written a socket keeps for its reader; a machine that is reset does not.
    pub const fn farewell(self) -> Duration {
        match self {
            Self::Vsock => Duration::from_secs(1),
            Self::Sockets => Duration::from_millis(200),
        }
    }

    /// Connects to a port of the host's and blocks until it accepted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(self, port: u32) -> io::Result<Line> {
        match self {
            Self::Vsock => vsock::connect(HOST_CID, port),
            Self::Sockets => {
                let socket = net::UnixStream::connect(format!("{}/{port}", namespaces::LINES))?;
                Ok(OwnedFd::from(socket).into())
            }
        }
    }
}

/// Connections of the host to one port.
pub type Incoming = ReceiverStream<io::Result<VsockStream>>;

/// The guest's own ports.
pub struct Ports {
    way: Way,
    /// Each connection has a receiver.
    open: watch::Sender<()>,
}

enum Way {
    /// Of vsock.
    Vsock,
    /// All behind one socket.
    Socket(Arc<Switchboard>),
}

impl Ports {
    /// Ports of vsock.
    pub fn of_vsock() -> Self {
        Self { way: Way::Vsock, open: watch::Sender::new(()) }
    }

    /// Ports behind a socket; the event loop must run.
    ///
    /// # Errors
    /// The descriptor is no listening socket.
    pub fn behind(listener: OwnedFd) -> io::Result<Self> {
        let listener = net::UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let board = Arc::new(Switchboard::default());
        tokio::spawn(Arc::clone(&board).serve(listener));
        Ok(Self { way: Way::Socket(board), open: watch::Sender::new(()) })
    }

    /// Opens a port for the host, and nobody else is on its line.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self, port: u32) -> io::Result<Incoming> {
        let (sender, receiver) = mpsc::channel(4);
        let accepted = Accepted { port, sender, open: self.open.clone() };
        match &self.way {
            Way::Vsock => drop(tokio::spawn(from_vsock(VsockListener::bind(port)?, accepted))),
            Way::Socket(board) => board.put(port, accepted),
        }
        Ok(ReceiverStream::new(receiver))
    }

    /// Until no connection is open.
    pub async fn hung_up(&self) {
        self.open.closed().await;
    }
}

/// Takes connections to one port.
#[derive(Clone)]
struct Accepted {
    port: u32,
    sender: mpsc::Sender<io::Result<VsockStream>>,
    open: watch::Sender<()>,
}

impl Accepted {
    /// Whether anybody takes them.
    async fn put(&self, stream: VsockStream) -> bool {
        self.sender.send(Ok(stream.counted(self.port, self.open.subscribe()))).await.is_ok()
    }
}

/// How long nothing is accepted after that failed: out of descriptors, or the like.
const PAUSE: Duration = Duration::from_millis(100);

async fn from_vsock(listener: VsockListener, accepted: Accepted) {
    loop {
        match listener.accept().await {
            Ok(stream) if stream.peer().cid != HOST_CID => {}
            Ok(stream) => {
                if !accepted.put(stream).await {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Which port is whose.
#[derive(Default)]
pub struct Switchboard {
    ports: Mutex<HashMap<u32, Accepted>>,
}

/// Connections that have not said their port yet.
const UNSAID: usize = 64;
/// How long saying it may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest line: `CONNECT`, a space and ten digits, and some room.
const LONGEST: usize = 32;

impl Switchboard {
    fn put(&self, port: u32, accepted: Accepted) {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).insert(port, accepted);
    }

    fn find(&self, port: u32) -> Option<Accepted> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).get(&port).cloned()
    }

    async fn serve(self: Arc<Self>, listener: UnixListener) {
        let unsaid = Arc::new(Semaphore::new(UNSAID));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&unsaid).try_acquire_owned() else { continue };
            let board = Arc::clone(&self);
            tokio::spawn(async move {
                // Whoever says nothing, or names a port that nobody opened, is hung up on.
                let _ = tokio::time::timeout(PATIENCE, board.connect(stream)).await;
                drop(permit);
            });
        }
    }

    async fn connect(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            // One byte at a time: what follows the line belongs to the port's protocol.
            match stream.read_u8().await? {
                b'\n' => break,
                byte if line.len() < LONGEST => line.push(byte),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        let port = line.strip_prefix(b"CONNECT ").and_then(|port| std::str::from_utf8(port).ok()?.parse().ok());
        let port = port.ok_or(io::ErrorKind::InvalidData)?;
        let accepted = self.find(port).ok_or(io::ErrorKind::ConnectionRefused)?;
        stream.write_all(format!("OK {port}\n").as_bytes()).await?;
        let stream = VsockStream::from_host(stream.into_std()?.into())?;
        if accepted.put(stream).await { Ok(()) } else { Err(io::ErrorKind::ConnectionAborted.into()) }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    fn board() -> (tempfile::TempDir, Ports, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock.sock");
        let listener = net::UnixListener::bind(&path).unwrap();
        (dir, Ports::behind(listener.into()).unwrap(), path)
    }

    #[tokio::test]
    async fn a_port_behind_the_socket_gets_its_connections_and_every_byte_behind_the_line() {
        let (_dir, ports, path) = board();
        let (mut one, mut other) = (ports.open(4088).unwrap(), ports.open(4089).unwrap());
        for (port, incoming) in [(4089, &mut other), (4088, &mut one)] {
            let mut host = UnixStream::connect(&path).await.unwrap();
            host.write_all(format!("CONNECT {port}\nhello").as_bytes()).await.unwrap();
            let mut guest = incoming.next().await.unwrap().unwrap();
            assert_eq!((guest.peer().cid, guest.port()), (HOST_CID, port));
            let mut said = [0; 5];
            guest.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"hello");
            guest.write_all(b"well").await.unwrap();
            let mut answer = vec![0; format!("OK {port}\nwell").len()];
            host.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, format!("OK {port}\nwell").as_bytes());
            guest.shutdown().await.unwrap();
            assert_eq!(host.read(&mut said).await.unwrap(), 0, "its end is heard");
        }
    }

    #[tokio::test]
    async fn all_have_hung_up_when_the_last_one_has_and_not_before() {
        let (_dir, ports, path) = board();
        let mut incoming = ports.open(7).unwrap();
        ports.hung_up().await;
        let mut guests = Vec::new();
        for _ in 0..2 {
            let mut host = UnixStream::connect(&path).await.unwrap();
            host.write_all(b"CONNECT 7\n").await.unwrap();
            guests.push(incoming.next().await.unwrap().unwrap());
        }
        while let Some(guest) = guests.pop() {
            assert!(tokio::time::timeout(Duration::from_millis(50), ports.hung_up()).await.is_err());
            drop(guest);
        }
        ports.hung_up().await;
    }

    #[tokio::test]
    async fn what_names_no_open_port_is_hung_up_on() {
        let (_dir, ports, path) = board();
        let _open = ports.open(1).unwrap();
        for line in ["CONNECT 2\n", "connect 1\n", "CONNECT 99999999999\n", "CONNECT \n", &"0".repeat(99)] {
            let mut host = UnixStream::connect(&path).await.unwrap();
            host.write_all(line.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // Hung up on with bytes unread, which a Unix socket tells as a reset.
            let _ = host.read_to_end(&mut answer).await;
            assert!(answer.is_empty(), "{line}");
        }
    }
}
