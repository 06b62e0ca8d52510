//! What whoever answers at an address shows of its guest: evidence for the very connection where it can be challenged, else that in
//! its certificate.
//!
//! Trusts: nobody. The evidence it gives is bound to this end's own view of the connection, and not judged yet.
//! Never: sends anything but a handshake and a challenge, takes a certificate's name for a guest's, takes evidence that is not said to
//! be of the key that the peer showed to hold.
//! Source: docs/ra-tls.md; docs/design/protocol.md §4.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coffer_ratls::{
    Appraiser, ConnectError, Identity, Purpose, Refusal, certificate_cmw, connect_and_verify, peer_certificate,
};
use coffer_rim::{Class, Failure, Reason};
use coffer_verifier::abi::{Report, ReportData, SpkiDigest, WorkloadDigest};
use coffer_verifier::binding::certificate_report_data;
use coffer_verifier::evidence::CmwError;
use coffer_verifier::{Code, Evidence};
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What it means that evidence is not of the connection that it came on.
pub const SOMEBODY_BETWEEN: &str =
    "somebody stands between you and the guest, or shows evidence that was made for others";

/// What the address begins with at which owners reach a guest.
pub const OWNERS_SCHEME: &str = "coffer://";

/// `https://HOST:PORT` or `coffer://HOST:PORT`, and nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// Why a text is no address of a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address of a {}", if *owners { "guest, which is coffer://HOST:PORT" } else { "TLS server" })]
pub struct AddressError {
    text: String,
    owners: bool,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError { text: text.to_owned(), owners: false };
        let rest = text.strip_prefix("https://").ok_or_else(wrong)?;
        Self::read(rest, Some("443")).ok_or_else(wrong)
    }
}

impl Address {
    /// Reads one at which owners reach a guest.
    ///
    /// # Errors
    /// It is none, or says no port.
    pub fn of_owners(text: &str) -> Result<Self, AddressError> {
        let read = text.strip_prefix(OWNERS_SCHEME).and_then(|rest| Self::read(rest, None));
        read.ok_or_else(|| AddressError { text: text.to_owned(), owners: true })
    }

    /// Behind the scheme. `port`: where none is said.
    fn read(rest: &str, otherwise: Option<&str>) -> Option<Self> {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(inside) => {
                let (host, behind) = inside.split_once(']')?;
                let address: std::net::Ipv6Addr = host.parse().ok()?;
                (address.to_string(), if behind.is_empty() { otherwise } else { behind.strip_prefix(':') })
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host.to_owned(), Some(port)),
                None => (rest.to_owned(), otherwise),
            },
        };
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        let digits = port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
        let port: u16 = digits.parse().ok().filter(|port| *port > 0)?;
        let is_name = host.chars().all(named) && ServerName::try_from(host.as_str()).is_ok();
        is_name.then_some(Self { host, port })
    }

    /// Connects to it.
    ///
    /// # Errors
    /// The kernel's, or the resolver's.
    pub async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// The addresses of its name.
    ///
    /// # Errors
    /// The resolver's.
    pub async fn resolved(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Evidence that a peer showed, and what its report has to state to be of this connection.
#[derive(Debug)]
pub struct Shown {
    /// Nobody has judged it.
    pub evidence: Evidence,
    /// What REPORT_DATA must be: of the connection and its challenge, or of the certificate's key.
    pub report_data: ReportData,
    /// The key that the peer showed to hold.
    pub key: SpkiDigest,
    /// Why it was not challenged: the evidence is that in its certificate.
    pub not_challenged: Option<ConnectError>,
}

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its name's address, and the connection.
    Connection,
    /// The handshake, and the answer to the challenge.
    Challenge,
    /// Another handshake, for its certificate's sake.
    Certificate,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connection => "to take the connection",
            Self::Challenge => "to end a TLS handshake and answer the challenge",
            Self::Certificate => "to end a TLS handshake and show its certificate",
        })
    }
}

/// Why a peer shows nothing that could be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Nobody answers.
    #[error("{address} does not answer")]
    Unreachable {
        /// Which address.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answers, and does not come to an end.
    #[error("{address} showed nothing within {} s: it was waited for {phase}", .patience.as_secs())]
    Slow {
        /// Which address.
        address: Address,
        /// What it did not come to an end with.
        phase: Phase,
        /// How long it had.
        patience: Duration,
    },
    /// It takes connections, and says nothing.
    #[error("{address} takes connections and says nothing within {} s", .waited.as_secs())]
    Silent {
        /// Which address.
        address: Address,
        /// How long it had.
        waited: Duration,
    },
    /// What answers speaks no TLS 1.3.
    #[error("{address} does not complete a TLS 1.3 handshake")]
    NoTls {
        /// Which address.
        address: Address,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// It agreed to be challenged, and then was not a guest that answers.
    #[error("{address} does not answer the challenge that it agreed to")]
    Challenge {
        /// Which address.
        address: Address,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// It answered with evidence that is not of this connection.
    #[error("{address} answers the challenge with evidence that is not of this connection: {}", .refusal.detail)]
    NotOfThisConnection {
        /// Which address.
        address: Address,
        /// Why.
        refusal: Refusal,
    },
    /// It is some TLS server.
    #[error("{address} presents no evidence: it cannot be challenged ({}), and its certificate carries none", coffer_rim::chain(.not_challenged))]
    NoEvidence {
        /// Which address.
        address: Address,
        /// Why it was not challenged.
        not_challenged: ConnectError,
    },
    /// Its certificate has the extension, and no evidence in it.
    #[error("the certificate of {address} carries no evidence that can be read")]
    Form {
        /// Which address.
        address: Address,
        /// Why.
        #[source]
        source: CmwError,
    },
    /// This end.
    #[error("this end failed")]
    Internal(#[source] ConnectError),
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        let (class, code, hint) = match &error {
            EndpointError::Unreachable { .. } | EndpointError::Challenge { .. } => (Class::Unreachable, None, None),
            EndpointError::Slow { .. } => (Class::Unreachable, None, Some("--timeout gives it longer")),
            EndpointError::Silent { .. } => (
                Class::Unreachable,
                None,
                Some(
                    "is it the port of a guest, or of a TLS server? no answer is waited for longer, whatever --timeout says",
                ),
            ),
            EndpointError::NoTls { source, .. } if has_no_certificate(source) => (
                Class::Unreachable,
                None,
                Some(
                    "it speaks TLS, and has no certificate for this name: a port published with /tls answers to a name of its certificate \
                     alone, and shows no evidence; verify one that is published with /ra-tls",
                ),
            ),
            EndpointError::NoTls { .. } => {
                (Class::Unreachable, None, Some("is it the port of a guest, or of a TLS server?"))
            }
            EndpointError::NotOfThisConnection { refusal, .. } => {
                (Class::NotAuthentic, Some(refusal.code), Some(SOMEBODY_BETWEEN))
            }
            EndpointError::NoEvidence { .. } => {
                let hint =
                    "for a port of a box, --guest-port names the workload's own port; any other server proves nothing";
                (Class::NotAuthentic, Some("no-evidence"), Some(hint))
            }
            EndpointError::Form { .. } => (Class::NotAuthentic, Some(Code::EvidenceMalformed.as_str()), None),
            EndpointError::Internal(_) => (Class::Internal, None, None),
        };
        let mut failure = Self::caused(class, &error);
        failure.hint = hint.map(str::to_owned);
        failure.reason = code.map(|code| Reason { code: code.to_owned(), denial_id: None });
        failure
    }
}

/// It was asked by an address, which is no name that TLS tells it, or by one of another's.
fn has_no_certificate(error: &ConnectError) -> bool {
    matches!(error.alert(), Some(AlertDescription::AccessDenied | AlertDescription::UnrecognisedName))
}

/// Takes down what the connection bound, and leaves judging to its caller, who says nothing on the connection before.
#[derive(Default)]
struct Taken(Mutex<Option<(Evidence, ReportData)>>);

impl Appraiser for Taken {
    type Admitted = ();

    fn appraise(&self, evidence: &Evidence, expected: &ReportData) -> Result<(), Refusal> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((evidence.clone(), *expected));
        Ok(())
    }
}

/// Who is asked, and how.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Where.
    pub address: Address,
    /// Port of the workload that the RA-TLS there leads to.
    pub guest_port: Option<u16>,
    /// How long all of it may take.
    pub patience: Duration,
}

impl Asking {
    /// Challenges the peer; where it cannot be, reads its certificate on another connection.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn look(&self, identity: &Identity) -> Result<Shown, EndpointError> {
        let phase = Cell::new(Phase::Connection);
        let shown = timeout(self.patience, self.shown(identity, &phase)).await;
        shown.unwrap_or_else(|_| {
            Err(EndpointError::Slow { address: self.address.clone(), phase: phase.get(), patience: self.patience })
        })
    }

    async fn shown(&self, identity: &Identity, phase: &Cell<Phase>) -> Result<Shown, EndpointError> {
        let address = || self.address.clone();
        let taken = Arc::new(Taken::default());
        let purpose = Purpose::Ingress(self.guest_port.unwrap_or(self.address.port));
        let stream = self.dial().await?;
        phase.set(Phase::Challenge);
        let connected = connect_and_verify(stream, identity, purpose, Arc::clone(&taken)).await;
        let not_challenged = match connected {
            Ok(connection) => {
                let key = *connection.facts().peer_spki();
                let bound = taken.0.lock().unwrap_or_else(PoisonError::into_inner).take();
                let missing = || ConnectError::Internal("evidence was taken and is not there".to_owned());
                let (evidence, report_data) = bound.ok_or_else(|| EndpointError::Internal(missing()))?;
                return Ok(Shown { evidence, report_data, key, not_challenged: None });
            }
            Err(ConnectError::Rejected(refusal)) => {
                return Err(EndpointError::NotOfThisConnection { address: address(), refusal });
            }
            Err(source @ (ConnectError::Config(_) | ConnectError::Internal(_))) => {
                return Err(EndpointError::Internal(source));
            }
            // It speaks another protocol, or takes others than us: what its certificate says is left.
            Err(
                source @ (ConnectError::Handshake(_)
                | ConnectError::Facts(_)
                | ConnectError::KeyNotTaken(_)
                | ConnectError::HungUp(_)
                | ConnectError::NoPlace),
            ) => source,
            Err(source) => return Err(self.unanswered(source)),
        };
        phase.set(Phase::Connection);
        let stream = self.dial().await?;
        phase.set(Phase::Certificate);
        let presented = match peer_certificate(stream, &self.address.host).await {
            Ok(presented) => presented,
            Err(ConnectError::Timeout(waited)) => return Err(EndpointError::Silent { address: address(), waited }),
            Err(source) => return Err(EndpointError::NoTls { address: address(), source }),
        };
        let Some(cmw) = certificate_cmw(&presented.der) else {
            return Err(EndpointError::NoEvidence { address: address(), not_challenged });
        };
        let evidence = Evidence::from_cmw(&cmw).map_err(|source| EndpointError::Form { address: address(), source })?;
        // A spec is left out where it does not fit; HOST_DATA is its digest, and the judge compares one that came. A report that is
        // none gets the judge's own word.
        let workload = Report::parse(&evidence.report).map(|report| *report.host_data().as_bytes()).unwrap_or_default();
        let report_data = certificate_report_data(&presented.spki, &WorkloadDigest::new(workload));
        Ok(Shown { evidence, report_data, key: presented.spki, not_challenged: Some(not_challenged) })
    }

    /// Silence says nothing of what it would have agreed to.
    fn unanswered(&self, source: ConnectError) -> EndpointError {
        let address = self.address.clone();
        match source {
            ConnectError::Timeout(waited) => EndpointError::Silent { address, waited },
            source => EndpointError::Challenge { address, source },
        }
    }

    async fn dial(&self) -> Result<TcpStream, EndpointError> {
        let unreachable = |source| EndpointError::Unreachable { address: self.address.clone(), source };
        self.address.dial().await.map_err(unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_no_broken_word() {
        let address: Address = "https://guest.example:1".parse().unwrap();
        let asking = Asking { address, guest_port: None, patience: Duration::from_secs(40) };
        let failure = Failure::from(asking.unanswered(ConnectError::Timeout(Duration::from_secs(15))));
        assert_eq!(failure.class, Class::Unreachable);
        assert!(
            failure.message.contains("says nothing within 15 s") && !failure.message.contains("agreed"),
            "{failure:?}"
        );
        let failure = Failure::from(asking.unanswered(ConnectError::Malformed("a word")));
        assert!(failure.message.contains("agreed"), "{failure:?}");
    }

    #[test]
    fn a_server_without_a_certificate_for_the_name_is_a_tls_server_all_the_same() {
        let hint = |alert| {
            let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
            let address: Address = "https://127.0.0.1:443".parse().unwrap();
            Failure::from(EndpointError::NoTls { address, source: ConnectError::Handshake(tls) }).hint.unwrap()
        };
        let named = hint(AlertDescription::AccessDenied);
        assert!(named.contains("name of its certificate") && !named.contains("is it the port"), "{named}");
        assert!(hint(AlertDescription::HandshakeFailure).contains("is it the port"));
    }

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_behind_it() {
        for (text, shown) in [
            ("https://guest.example:8443", "guest.example:8443"),
            ("https://guest.example:8443/", "guest.example:8443"),
            ("https://guest.example", "guest.example:443"),
            ("https://127.0.0.1:1", "127.0.0.1:1"),
            ("https://[::1]:8443", "[::1]:8443"),
            ("https://[::1]", "[::1]:443"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for text in [
            "http://guest.example:80",
            "guest.example:80",
            "https://",
            "https://:1",
            "https://guest.example:0",
            "https://guest.example:65536",
            "https://guest.example:+1",
            "https://guest.example:1/path",
            "https://guest.example/path",
            "https://guest.example?x",
            "https://user@guest.example:1",
            "https://[::1",
            "https://[::1]x",
            "https://[guest]:1",
            "https://::1:1",
            "https://gu\u{1b}est:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn at_the_address_of_owners_a_port_is_said() {
        for (text, shown) in
            [("coffer://guest.example:7443", "guest.example:7443"), ("coffer://[::1]:7443/", "[::1]:7443")]
        {
            assert_eq!(Address::of_owners(text).map(|address| address.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for text in
            ["coffer://guest.example", "coffer://[::1]", "https://guest.example:1", "coffer://", "coffer://a:1/b"]
        {
            let error = Address::of_owners(text).unwrap_err();
            assert!(error.to_string().contains("coffer://HOST:PORT"), "{error}");
        }
    }
}
