//! The workload, as clients of an ingress reach it: at the guest's own loopback, and nowhere else.
//!
//! Never: takes for the end of a stream what came of the workload's own end, where somebody outside wanted that ([`Ending`]).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use coffer_ratls::StreamRefusal;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::ending::Ending;

/// How long the workload may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the workload.
pub struct Workload {
    stream: TcpStream,
    ending: Ending,
}

impl Workload {
    /// Ends it by a reset, which no program takes for an end.
    pub fn break_off(self) {
        let _ = self.stream.set_zero_linger();
    }
}

impl AsyncRead for Workload {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.remaining();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let is_end = before > 0 && buf.remaining() == before;
        Poll::Ready(if is_end && self.ending.was_told() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) })
    }
}

impl AsyncWrite for Workload {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection to somebody who listens. Where nobody does, on a port of those that the kernel gives to clients, a connection may be given that
/// very port, and then meets itself: it would be open, answer each byte with itself, and keep the workload from the port.
async fn another(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    if stream.local_addr()? == stream.peer_addr()? {
        // No trace of it is to stay on the port either.
        stream.set_zero_linger()?;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// The workload, at the guest's loopback.
pub async fn connect(port: u16, ending: &Ending) -> Result<Workload, StreamRefusal> {
    let connect = async {
        match another((Ipv4Addr::LOCALHOST, port).into()).await {
            // It may listen at one address alone.
            Err(_) => another((Ipv6Addr::LOCALHOST, port).into()).await,
            connected => connected,
        }
    };
    match tokio::time::timeout(PATIENCE, connect).await {
        Ok(Ok(stream)) => {
            // Best effort: without it small answers wait.
            let _ = stream.set_nodelay(true);
            Ok(Workload { stream, ending: ending.clone() })
        }
        Ok(Err(_)) | Err(_) => Err(StreamRefusal::PortClosed),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn an_end_of_who_was_told_to_end_is_a_break_and_what_was_said_before_comes() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = async |ending: &Ending| {
            let mut near = connect(port, ending).await.unwrap();
            let (mut workload, _) = listener.accept().await.unwrap();
            workload.write_all(b"half").await.unwrap();
            drop(workload);
            let mut all = Vec::new();
            let end = near.read_to_end(&mut all).await;
            assert_eq!(all, b"half");
            end.map(drop).map_err(|error| error.kind())
        };
        let ending = Ending::default();
        assert_eq!(said(&ending).await, Ok(()));
        ending.is_told();
        assert_eq!(said(&ending).await, Err(io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn nobody_meets_himself() {
        // A port for clients, with nobody on it: the kernel gives it to one connection in so many thousands. Clients get every other
        // port, those of the first one's parity.
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let port: u16 = range.split_whitespace().next().unwrap().parse::<u16>().unwrap() + 2;
        let itself = async |bound: SocketAddr| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(bound)?;
            socket.connect(bound).await
        };
        // That there are such connections at all.
        let mut at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let met = loop {
            match itself(at).await {
                Ok(stream) => break stream,
                Err(_) => at.set_port(at.port() + 2),
            }
        };
        assert_eq!(met.local_addr().unwrap(), met.peer_addr().unwrap());
        met.set_zero_linger().unwrap();
        drop(met);
        for _ in 0..40_000 {
            if let Ok(stream) = another(at).await {
                panic!("{:?} is connected to {:?}", stream.local_addr(), stream.peer_addr());
            }
        }
    }
}
