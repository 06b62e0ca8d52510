//! Attested ingress: RA-TLS that ends here, in front of TCP ports of the workload.
//!
//! Each port of the spec has a line of its own from the host and a purpose of its own, so that a connection for one port is none for another.
//! Trusts: nothing that comes over the line. Never: hands on a byte of a client that was not given evidence on its connection, opens a
//! port that the spec does not name, connects to anything but the guest's own loopback.
//! Source: docs/design/protocol.md §4; docs/ingress.md.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use coffer_guest_proto::ports;
use coffer_ratls::{
    AttestationService, Attester, Behind, ClientRule, ConnectionState, Identity, Purpose, ServeLimits, ServerTls,
    StreamRefusal, Streams,
};
use coffer_spec::{Ingress, IngressClients};
use tokio::{
    io::{self, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::service::Routes;

use crate::{
    failure::{Code, Failure, OrFail},
    host::Ports,
};

/// Connections of all ports together, of which a quarter may have been given no evidence yet.
const CONNECTIONS: usize = 64;
/// Streams of all ports together.
const STREAMS: usize = 64;
/// What a stream, and a connection, may have sent that the workload has not taken.
const WINDOWS: (u32, u32) = (256 << 10, 512 << 10);
/// What the agent needs at most where every connection and stream is filled: towards the workload, and from it, what HTTP/2 takes
/// of a stream before its client reads (400 KiB) with the pieces that wait.
pub const MEMORY: u64 = (CONNECTIONS as u64 * WINDOWS.1 as u64) + STREAMS as u64 * (576 << 10);
/// How long the workload may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the ports of a spec.
///
/// # Errors
/// `internal` if one cannot be opened.
pub fn open(all: &[Ingress], ports: &Ports, identity: &Identity, attester: &Arc<dyn Attester>) -> Result<(), Failure> {
    let connections = CONNECTIONS / all.len().max(1);
    let unattested = (connections / 4).max(1);
    let limits = ServeLimits { unattested, connections, windows: WINDOWS, ..ServeLimits::default() };
    let room = Arc::new(Semaphore::new(STREAMS));
    for Ingress { port, clients } in all {
        let rule = match clients {
            IngressClients::Anyone => ClientRule::AuthorizedPerCall,
            IngressClients::Keys(keys) => ClientRule::Spki(keys.clone()),
        };
        let tls = ServerTls::new(identity, rule, Purpose::Ingress(*port)).or_fail(Code::Internal, "configure TLS")?;
        let incoming = ports.open(ports::ingress(*port)).or_fail(Code::Internal, "listen for clients")?;
        let behind = Loopback { port: *port, room: room.clone() };
        tokio::spawn(coffer_ratls::serve(
            incoming,
            tls,
            AttestationService::attester(attester.clone()),
            Routes::new(Streams::new(behind)),
            limits,
            std::future::pending(),
        ));
    }
    Ok(())
}

/// A port of the workload's.
struct Loopback {
    port: u16,
    room: Arc<Semaphore>,
}

impl Behind for Loopback {
    type Io = Taken;

    async fn open(&self, _: &ConnectionState) -> Result<Taken, StreamRefusal> {
        let place = self.room.clone().try_acquire_owned().map_err(|_| StreamRefusal::TooMany)?;
        let connect = async {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await {
                // It may listen at one address alone.
                Err(_) => TcpStream::connect((Ipv6Addr::LOCALHOST, self.port)).await,
                connected => connected,
            }
        };
        match tokio::time::timeout(PATIENCE, connect).await {
            Ok(Ok(stream)) => {
                // Best effort: without it small answers wait.
                let _ = stream.set_nodelay(true);
                Ok(Taken { stream, _place: place })
            }
            Ok(Err(_)) | Err(_) => Err(StreamRefusal::PortClosed),
        }
    }

    /// By a reset, which no program takes for an end.
    fn break_off(io: Taken) {
        let _ = io.stream.set_zero_linger();
    }
}

/// A connection to the workload, and its place among them.
struct Taken {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Taken {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
