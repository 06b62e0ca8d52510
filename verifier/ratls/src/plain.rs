//! TLS for clients that know nothing of evidence, in front of a port whose spec names it: a certificate that others issue, no client
//! certificate, and no connection of this crate's.
//!
//! Trusts: the chain it is given, for the names in it. Never: answers to another name or to none, offers a protocol of RA-TLS's, shows a
//! certificate after its last second, keeps a session.
//! Source: docs/design/protocol.md §4; RFC 8446, RFC 6066 §3.

use std::{
    fmt, io,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    client::verify_server_name,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, rustls::server::Acceptor, server::TlsStream};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    places::{PATIENCE, Places, Source},
    provider::provider,
    tls::TlsConfigError,
};

/// Clients of such a port have no names, and come from one place.
const ANYWHERE: Source = 0;
/// The one protocol that is agreed on by name; a client that names none speaks what the workload speaks.
const HTTP: &[u8] = b"http/1.1";

/// Why a chain is not shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlainError {
    /// The key or the request could not be made.
    #[error("no key, or no request for a certificate")]
    Make(#[source] rcgen::Error),
    /// The leaf is none of this key's, or no certificate.
    #[error("the certificate is not this key's, or none")]
    Key(#[source] rustls::Error),
    /// It cannot be read, or has ended.
    #[error("the certificate {0}")]
    Certificate(&'static str),
}

/// A key made here, and the request for a certificate of it.
pub struct PlainKey {
    key: KeyPair,
    request: Vec<u8>,
}

impl PlainKey {
    /// A P-256 key and a PKCS #10 request without names: who issues says which.
    ///
    /// # Errors
    /// [`PlainError::Make`].
    pub fn generate() -> Result<Self, PlainError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(PlainError::Make)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(PlainError::Make)?;
        Ok(Self { request: request.der().to_vec(), key })
    }

    /// The request, DER.
    pub fn request(&self) -> &[u8] {
        &self.request
    }
}

/// What a port shows now.
#[derive(Default)]
struct Current(RwLock<Option<Shown>>);

#[derive(Clone)]
struct Shown {
    key: Arc<CertifiedKey>,
    leaf: CertificateDer<'static>,
    until: SystemTime,
}

// Keys are nobody's to print.
impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = ServerName::try_from(hello.server_name()?).ok()?;
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let leaf = ParsedCertificate::try_from(&shown.leaf).ok()?;
        let fits = SystemTime::now() < shown.until && verify_server_name(&leaf, &name).is_ok();
        fits.then_some(shown.key)
    }
}

/// The TLS of one port.
#[derive(Clone)]
pub struct PlainTls {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    strangers: Places,
}

impl PlainTls {
    /// Without a certificate, so that every handshake is refused. Of those whose handshake is not done there may be so many.
    ///
    /// # Errors
    /// As [`crate::ServerTls::new`].
    pub fn new(strangers: usize) -> Result<Self, TlsConfigError> {
        let current = Arc::<Current>::default();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![HTTP.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), current, strangers: Places::new(strangers) })
    }

    /// Shows this chain from now on, the leaf first; gives when it ends.
    ///
    /// # Errors
    /// [`PlainError`]; what was shown before is shown on.
    pub fn show(&self, key: &PlainKey, chain: Vec<Vec<u8>>, now: SystemTime) -> Result<SystemTime, PlainError> {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let leaf = chain.first().ok_or(PlainError::Certificate("is missing"))?.clone();
        let until = ends(&leaf)?;
        if until <= now {
            return Err(PlainError::Certificate("has ended"));
        }
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.key.serialize_der()));
        let key = CertifiedKey::from_der(chain, private, &provider()).map_err(PlainError::Key)?;
        let shown = Shown { key: Arc::new(key), leaf, until };
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(until)
    }

    /// The handshake, once there is a place for it.
    ///
    /// # Errors
    /// The client's; or that it took longer than `patience`, or longer than a moment while others waited.
    pub async fn accept<IO>(&self, stream: IO, patience: Duration) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let waited = timeout(patience, self.strangers.wait(ANYWHERE)).await.map_err(|_| late())?;
        let place = waited.ok_or_else(|| io::Error::from(io::ErrorKind::ResourceBusy))?;
        let eviction = place.eviction();
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let accepted = async {
            // Whoever says nothing at all is not waited for as long as who is slow.
            let hello = timeout(PATIENCE, hello).await.map_err(|_| late())??;
            hello.into_stream(self.config.clone()).await
        };
        tokio::select! {
            accepted = timeout(patience, Box::pin(accepted)) => accepted.map_err(|_| late())?,
            () = eviction.happens() => Err(late()),
        }
    }
}

fn ends(leaf: &CertificateDer<'_>) -> Result<SystemTime, PlainError> {
    let unreadable = || PlainError::Certificate("cannot be read");
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).map_err(|_| unreadable())?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(unreadable)
}
