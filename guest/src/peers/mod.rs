//! Other guests that the workload talks to: a loopback port for each, behind which the agent ends RA-TLS.
//!
//! The way there is the host's, which sees nothing but TLS. The other guest proves itself first, and must be one that the spec names; then
//! this one does, where it is asked. No byte of the workload's leaves before both.
//! Trusts: nothing that comes over the line. Never: connects to anything but what the spec names, or leads there anybody but this guest.
//! Source: docs/design/protocol.md §4.11; docs/ingress.md.

mod judge;

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use coffer_guest_proto::ports;
use coffer_ratls::{
    AlertDescription, AttestedConnection, Attester, ConnectError, Dial, ForwardError, Forwarder, Identity,
    IdentityError, Purpose, StreamError, connect_and_verify,
};
use coffer_rim::{chain, sys::heap::keep_freed};
use coffer_spec::{Peer, WorkloadSpec};
use coffer_verifier::AttestationResult;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

pub use judge::{Gate, Judge};

use crate::{
    ending::{Ending, WorkloadStream},
    failure::{Code, Failure, OrFail},
    host::Host,
    log_ring::LogRing,
    notices::Notices,
    sys::vsock::VsockStream,
};

/// Streams of all peers together; each has its share.
const STREAMS: usize = 32;
/// How long it may take until a peer and this guest have proved themselves to each other.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a connection may bring that nobody has taken yet (HTTP/2's window), with its buffers.
const CONNECTION: u64 = (5 << 20) + (320 << 10);
/// What a stream has on its way to a peer.
const OUTGOING: u64 = 576 << 10;
const _: () = assert!(Peer::MOST as u64 * CONNECTION + STREAMS as u64 * OUTGOING <= Peer::MEMORY);

/// How the host is reached for one peer.
pub trait Road: Send + Sync + 'static {
    /// What comes of it.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// A line that the host leads on.
    fn open(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// A port of the host's.
pub struct HostPort(Host, u32);

impl Road for HostPort {
    type Io = VsockStream;

    async fn open(&self) -> io::Result<VsockStream> {
        let Self(host, port) = *self;
        tokio::task::spawn_blocking(move || host.connect(port)).await??.into_stream()
    }
}

/// Why a peer is not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The host does not lead there.
    #[error("unreachable: the host does not lead there")]
    Line(#[source] io::Error),
    /// Whoever answers says nothing, or not enough.
    #[error("no-answer: nothing was proved within {0:?}")]
    Late(Duration),
    /// No key.
    #[error("no key for a connection")]
    Identity(#[source] IdentityError),
    /// Whoever answers is none of the spec's guests, or does not take this one.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Makes connections to one peer.
pub struct Dialler<R> {
    road: R,
    port: u16,
    judge: Arc<Judge>,
    attester: Arc<dyn Attester>,
    patience: Duration,
}

impl<R: Road> Dialler<R> {
    /// To this peer, from the guest of this spec.
    pub fn new(road: R, peer: &Peer, spec: &WorkloadSpec, attester: Arc<dyn Attester>) -> Self {
        Self { road, port: peer.port, judge: Arc::new(Judge::new(&peer.guests, spec)), attester, patience: PATIENCE }
    }

    /// Waits that long and no longer.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    async fn connect(&self) -> Result<AttestedConnection<AttestationResult>, PeerError> {
        let stream = self.road.open().await.map_err(PeerError::Line)?;
        let identity = Identity::generate("coffer guest").map_err(PeerError::Identity)?;
        let connected = connect_and_verify(stream, &identity, Purpose::Ingress(self.port), self.judge.clone()).await?;
        Ok(connected.attesting(self.attester.clone()).await?)
    }
}

impl<R: Road> Dial for Dialler<R> {
    type Admitted = AttestationResult;
    type Error = PeerError;

    async fn dial(&self) -> Result<AttestedConnection<AttestationResult>, PeerError> {
        let connected = tokio::time::timeout(self.patience, self.connect()).await;
        connected.unwrap_or(Err(PeerError::Late(self.patience)))
    }
}

/// Opens the ports of a spec.
///
/// # Errors
/// `internal` if one cannot be opened.
pub async fn open(
    spec: &WorkloadSpec,
    host: Host,
    attester: &Arc<dyn Attester>,
    (logs, ending): (&Arc<LogRing>, &Ending),
) -> Result<(), Failure> {
    if !spec.peers.is_empty() {
        keep_freed();
    }
    let share = (STREAMS / spec.peers.len().max(1)).max(1);
    for (peer, index) in spec.peers.iter().zip(0..) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, peer.listen))
            .await
            .or_fail(Code::Internal, "listen for the workload")?;
        let dialler = Dialler::new(HostPort(host, ports::peer(index)), peer, spec, attester.clone());
        let notices = Notices::new(logs, format!("peer {}", peer.name));
        tokio::spawn(serve(listener, dialler, (share, ending.clone()), notices));
    }
    Ok(())
}

/// Leads the workload's programs to a peer, as many at once as `most`; says why one was not.
pub async fn serve<R: Road>(
    listener: TcpListener,
    dialler: Dialler<R>,
    (most, ending): (usize, Ending),
    notices: Notices,
) {
    let (lead, notices) = (Arc::new(Forwarder::new(dialler, None)), Arc::new(notices));
    let room = Arc::new(Semaphore::new(most));
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Whatever lets go of it from here on resets it, which no program takes for an end.
        if client.set_zero_linger().is_err() {
            continue;
        }
        let place = room.clone().try_acquire_owned();
        let (lead, notices, ending) = (lead.clone(), notices.clone(), ending.clone());
        tokio::spawn(async move {
            let _ = client.set_nodelay(true);
            // Before the client is let go of, so that whoever sees the reset finds the reason.
            match place {
                Err(_) => notices.say(&format!("too-many: {most} streams are open")).await,
                Ok(_place) => match lead.lead(WorkloadStream::new(client, ending)).await {
                    Ok(client) => whole(client.stream()),
                    Err((error, _client)) => notices.say(&why(&error)).await,
                },
            }
        });
    }
}

/// Everything was said on both sides: the end is one.
fn whole(client: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(client, None);
}

/// Without a word of TLS: a host that finds no such name hangs up.
fn ended(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// In words that whoever reads the output can look up.
fn why(error: &ForwardError<PeerError>) -> String {
    match error {
        ForwardError::Dial(error) => match &**error {
            PeerError::Connect(ConnectError::Rejected(refusal)) => format!("it is not admitted: {refusal}"),
            PeerError::Connect(ConnectError::Handshake(error)) if ended(error) => {
                "unreachable: the line ended before a word; the host does not find or reach its address, or no guest answers there".to_owned()
            }
            PeerError::Connect(error) if error.alert() == Some(AlertDescription::NoApplicationProtocol) => {
                "TLS handshake failed: it has no ingress for the port that was asked for; behind --peer, port= names its workload's own port, where that is not the address's".to_owned()
            }
            PeerError::Connect(error) if error.alert() == Some(AlertDescription::AccessDenied) => {
                "TLS handshake failed: nobody proves anything there; a port published with /tls is for browsers, one with /ra-tls for peers".to_owned()
            }
            PeerError::Connect(ConnectError::Refused(denial)) => format!("it does not admit this guest: {denial}"),
            error => chain(error),
        },
        ForwardError::Lapsed(lapsed) => format!("it did not prove itself once more: {}", chain(lapsed)),
        ForwardError::Stream(StreamError::Refused(refusal)) => format!("it gives no stream: {}", refusal.word()),
        ForwardError::Stream(error) => chain(error),
        _ => "a stream broke off".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_a_peer_for_another_port_hears_which_word_names_it() {
        let said = |alert| {
            let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
            why(&ForwardError::Dial(Arc::new(PeerError::Connect(ConnectError::Handshake(tls)))))
        };
        let port = said(AlertDescription::NoApplicationProtocol);
        assert!(port.contains("port=") && !port.contains("NoApplicationProtocol"), "{port}");
        let browsers = said(AlertDescription::AccessDenied);
        assert!(browsers.contains("/tls") && !browsers.contains("AccessDenied"), "{browsers}");
        assert!(said(AlertDescription::InternalError).starts_with("TLS handshake failed"));
    }
}
