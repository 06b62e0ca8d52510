//! The client of a guest's ingress: a connection on which the guest has proved itself, and streams to a port of its workload.
//!
//! Trusts: the references, anchors and policy its caller names. Believes nothing of an address: whoever answers there must be the guest.
//! Never: sends a byte of a stream to a guest whose evidence for this very connection was not admitted, nor goes on with one that
//! did not show it again in time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coffer_ratls::{
    ConnectError, Dial, Foreign, ForwardError, Identity, Lapsed, Purpose, StreamError, StreamRefusal,
    connect_and_verify, open_stream,
};
use coffer_rim::{Class, Failure, chain};
use coffer_verifier::{AttestationResult, Code, EvidencePolicy, ExpectedGuest, Pair, TrustAnchors};
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::owner_access::{Findings, GuestAppraiser, OwnerConnection};

/// Which guest is expected where.
pub struct Peer {
    /// `host:port` that leads to it.
    pub address: String,
    /// Port of its workload.
    pub port: u16,
    /// Guests that it may be: one of these pairs, and no other.
    pub guests: Vec<Pair>,
    /// Roots that are believed.
    pub anchors: TrustAnchors,
    /// Policy on top, which can only narrow.
    pub policy: EvidencePolicy,
    /// Who asks.
    pub identity: Identity,
}

/// How long the way there may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Streams at once.
const STREAMS: usize = 64;

/// Why there is no way to the workload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngressError {
    /// Nobody answers.
    #[error("{address} does not answer")]
    Unreachable {
        /// Which address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Whoever answers does not speak the ingress of that port.
    #[error("{address} offers no ingress for port {port}")]
    Connect {
        /// Which address.
        address: String,
        /// Port of the workload.
        port: u16,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// Its evidence was judged and is not good enough.
    #[error("the guest at {address} is not admitted: {}", .findings.appraisal.why())]
    NotAdmitted {
        /// Which address.
        address: String,
        /// What was found.
        findings: Box<Findings>,
    },
    /// It is the guest, and gives no stream.
    #[error("the guest at {address} gives no way to port {port} of its workload")]
    Stream {
        /// Which address.
        address: String,
        /// Port of the workload.
        port: u16,
        /// Why.
        #[source]
        source: StreamError,
    },
    /// It is there, and takes listed clients alone.
    #[error("port {port} of the guest at {address} takes listed clients alone, and this is none of them")]
    KeyNotTaken {
        /// Which address.
        address: String,
        /// Port of the workload.
        port: u16,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// It did not prove itself once more.
    #[error("the guest at {address} was challenged again and did not prove itself")]
    Lapsed {
        /// Which address.
        address: String,
        /// Why.
        #[source]
        source: Arc<ConnectError>,
    },
    /// A client's socket could not be made to tell a break.
    #[error("the client's socket failed")]
    Client(#[source] io::Error),
    /// A stream broke off.
    #[error("the stream broke off: bytes are missing")]
    Broken,
}

impl From<IngressError> for Failure {
    fn from(error: IngressError) -> Self {
        let class = match &error {
            IngressError::Unreachable { .. } | IngressError::Broken => Class::Unreachable,
            IngressError::Client(_) => Class::Internal,
            IngressError::NotAdmitted { findings, .. } => match findings.appraisal.verdict() {
                coffer_verifier::Verdict::Refused => Class::Refused,
                _ => Class::NotAuthentic,
            },
            IngressError::KeyNotTaken { .. } => Class::Refused,
            IngressError::Connect { source, .. } => class_of(source),
            IngressError::Lapsed { source, .. } => class_of(source),
            IngressError::Stream { source, .. } => match source {
                StreamError::Refused(StreamRefusal::NotAdmitted) => Class::Refused,
                _ => Class::Unreachable,
            },
        };
        let failure = Self::caused(class, &error);
        match &error {
            IngressError::Connect { source, .. } if source.alert() == Some(AlertDescription::AccessDenied) => failure.hint(
                "it looks like a port published with /tls, which is for browsers and shows no evidence: `coffer connect` takes one that \
                 is published with /ra-tls",
            ),
            IngressError::Connect { source: ConnectError::NoPlace, .. } => {
                failure.hint("all connections that one key may have there are open: end one, or come again")
            }
            IngressError::Connect { source, .. } => failure.hint(match source.foreign() {
                Some(Foreign::NoTls) => "what answers there speaks no TLS: it is another port than one published with /ra-tls",
                Some(Foreign::Silent) => {
                    "something takes connections there and says nothing: it is no port published with /ra-tls, or its guest is paused or \
                     very busy"
                }
                Some(Foreign::HungUp) => {
                    "something answered and hung up: it is no port published with /ra-tls, or the box behind it has just ended"
                }
                Some(Foreign::Refuses) | None => {
                    "--guest-port names the workload's own port, where it is not that of the address: that of the box, not that of its host"
                }
            }),
            IngressError::KeyNotTaken { .. } => failure
                .hint("--as-owner shows this installation's owner key, which `coffer owner show` prints; whose keys are listed, the guest's spec says"),
            IngressError::Stream { source: StreamError::Refused(StreamRefusal::PortClosed), .. } => {
                failure.hint("nothing listens on that port inside the guest, at its loopback address")
            }
            IngressError::NotAdmitted { findings, .. } => match findings.appraisal.reasons().first() {
                Some(reason) if reason.code == Code::Guest => failure.hint(
                    "it is a genuine guest, and none of those that --reference names: the file is of another workload or platform, or \
                     the address is not the box's",
                ),
                Some(reason) if reason.code == Code::UntrustedRoot => failure.hint(
                    "simulated evidence is believed with --allow-simulated alone, and that of another installation's simulator with \
                     --anchor FILE beside it",
                ),
                Some(reason) => failure.hint(reason.hint.to_string()),
                None => failure,
            },
            _ => failure,
        }
    }
}

fn class_of(error: &ConnectError) -> Class {
    match error {
        ConnectError::Rejected(_) => Class::NotAuthentic,
        ConnectError::Config(_) | ConnectError::Internal(_) => Class::Internal,
        _ => Class::Unreachable,
    }
}

impl Peer {
    /// Connects, and has the guest prove itself.
    ///
    /// # Errors
    /// [`IngressError`]; nothing was sent but a challenge.
    pub async fn connect(&self) -> Result<Attested, IngressError> {
        let address = || self.address.clone();
        let unreachable = |source| IngressError::Unreachable { address: address(), source };
        let stream = match timeout(PATIENCE, TcpStream::connect(&self.address)).await {
            Ok(connected) => connected.map_err(unreachable)?,
            Err(_) => return Err(unreachable(io::ErrorKind::TimedOut.into())),
        };
        let _ = stream.set_nodelay(true);
        let guests = ExpectedGuest::Admitted { pairs: self.guests.clone(), signers: Vec::new() };
        let appraiser = Arc::new(GuestAppraiser::new(self.anchors.clone(), self.policy.clone(), guests));
        let purpose = Purpose::Ingress(self.port);
        let connected = connect_and_verify(stream, &self.identity, purpose, Arc::clone(&appraiser)).await;
        match (connected, appraiser.findings()) {
            (Ok(connection), Some(findings)) => Ok(Attested { connection, findings }),
            (Err(ConnectError::Rejected(_)), Some(findings)) => {
                Err(IngressError::NotAdmitted { address: address(), findings: Box::new(findings) })
            }
            (Err(source @ ConnectError::KeyNotTaken(_)), _) => {
                Err(IngressError::KeyNotTaken { address: address(), port: self.port, source })
            }
            (Err(source), _) => Err(IngressError::Connect { address: address(), port: self.port, source }),
            // An admission without findings is no admission.
            (Ok(_), None) => Err(IngressError::Broken),
        }
    }

    fn no_stream(&self, source: StreamError) -> IngressError {
        IngressError::Stream { address: self.address.clone(), port: self.port, source }
    }

    fn lapsed(&self, lapsed: Lapsed) -> IngressError {
        IngressError::Lapsed { address: self.address.clone(), source: lapsed.0 }
    }
}

/// A connection whose guest is one of those expected.
pub struct Attested {
    connection: OwnerConnection,
    /// What was judged, and what was found.
    pub findings: Findings,
}

impl Attested {
    /// One stream, until the workload has said all it says: for a program that stands between two pipes.
    ///
    /// # Errors
    /// [`IngressError`].
    pub async fn pipe(
        &self,
        peer: &Peer,
        from: impl AsyncRead + Send + Unpin + 'static,
        to: impl AsyncWrite + Unpin,
    ) -> Result<(), IngressError> {
        let stream = open_stream(self.connection.channel()).await.map_err(|error| peer.no_stream(error))?;
        let kept = self.connection.kept(stream.until_answered(from, to)).await;
        kept.map_err(|lapsed| peer.lapsed(lapsed))?.map_err(|_| IngressError::Broken)
    }
}

/// From here on a client that is let go of is reset, whatever lets go of it: it takes nothing for an end that is none.
fn reset_unless_whole(client: &TcpStream) -> io::Result<()> {
    client.set_zero_linger()
}

impl Dial for Peer {
    type Admitted = AttestationResult;
    type Error = IngressError;

    async fn dial(&self) -> Result<OwnerConnection, IngressError> {
        Ok(self.connect().await?.connection)
    }
}

/// Clients of a local port, led to the workload, each by a stream of its own on one connection. A connection that is lost is made
/// anew for the next client, and proves itself anew.
pub struct Forwarder {
    peer: Arc<Peer>,
    lead: coffer_ratls::Forwarder<Arc<Peer>>,
}

impl Forwarder {
    /// For a peer that has proved itself once.
    pub fn new(peer: Peer, first: Attested) -> Self {
        let peer = Arc::new(peer);
        Self { peer: Arc::clone(&peer), lead: coffer_ratls::Forwarder::new(peer, Some(first.connection)) }
    }

    /// Serves until the future is dropped; `said` hears of each client that was not served.
    pub async fn serve(self, listener: TcpListener, said: impl Fn(SocketAddr, String) + Send + Sync + 'static) {
        let (all, said, room) = (Arc::new(self), Arc::new(said), Arc::new(Semaphore::new(STREAMS)));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let Ok((client, from)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (all, said) = (Arc::clone(&all), Arc::clone(&said));
            tokio::spawn(async move {
                let _ = client.set_nodelay(true);
                let served = match reset_unless_whole(&client) {
                    Ok(()) => all.serve_one(client).await,
                    Err(source) => Err(Arc::new(IngressError::Client(source))),
                };
                if let Err(error) = served {
                    said(from, chain(&*error));
                }
                drop(place);
            });
        }
    }

    /// What a client and the workload say to each other. Ends where the guest does not prove itself again; what it said before that
    /// was said by a guest that had.
    /// The client is one of [`reset_unless_whole`].
    async fn serve_one(&self, client: TcpStream) -> Result<(), Arc<IngressError>> {
        let client = self.lead.lead(client).await.map_err(|(error, _)| match error {
            ForwardError::Dial(error) => error,
            ForwardError::Lapsed(lapsed) => Arc::new(self.peer.lapsed(lapsed)),
            ForwardError::Stream(source) => Arc::new(self.peer.no_stream(source)),
            _ => Arc::new(IngressError::Broken),
        })?;
        // Everything was said on both sides: the end is one.
        let _ = rustix::net::sockopt::set_socket_linger(&client, None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_for_browsers_is_not_taken_for_another_port() {
        let hint = |alert| {
            let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
            let source = ConnectError::Handshake(tls);
            let failure = Failure::from(IngressError::Connect { address: "host:443".into(), port: 8080, source });
            assert_eq!(failure.class, Class::Unreachable);
            failure.hint.unwrap()
        };
        let browsers = hint(AlertDescription::AccessDenied);
        assert!(browsers.contains("/tls") && !browsers.contains("--guest-port"), "{browsers}");
        assert!(hint(AlertDescription::NoApplicationProtocol).contains("--guest-port"));
    }
}
