//! rustls configurations: TLS 1.3 alone, no resumption, both sides with a certificate, keys pinned or collected.
//!
//! The certificate verifiers here decide by key. What they never leave out is CertificateVerify: the peer holds the key
//! it shows, checked by the provider on every handshake.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use coffer_verifier::abi::SpkiDigest;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
    version::TLS13,
};
use tokio::sync::watch;

use crate::{
    facts::Purpose,
    identity::{Identity, IdentityError, certificate_spki},
    provider::provider,
};

/// Whom a client expects at the other end. There is no "whoever answers".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerPin {
    /// One of these keys, else the handshake fails. An empty list admits nobody.
    Spki(Vec<SpkiDigest>),
    /// Any key; the connection is worth nothing until the peer's evidence for it has been admitted.
    AttestedAfter,
}

/// Keys that may change while a server runs; clones are one list.
#[derive(Clone, Debug, Default)]
pub struct KeyList(Arc<watch::Sender<BTreeSet<SpkiDigest>>>);

impl KeyList {
    /// Lists these keys, and no others, from the next handshake on. Connections of those that are listed no more are closed after
    /// a second.
    pub fn replace(&self, keys: impl IntoIterator<Item = SpkiDigest>) {
        self.0.send_replace(keys.into_iter().collect());
    }

    /// True if a key is listed now.
    pub fn contains(&self, key: &SpkiDigest) -> bool {
        self.0.borrow().contains(key)
    }

    /// Ends when a key is not listed.
    pub async fn unlisted(&self, key: SpkiDigest) {
        let mut list = self.0.subscribe();
        // The sender is this list itself.
        let _ = list.wait_for(|keys| !keys.contains(&key)).await;
    }

    /// Ends when a key is listed no more, and what was begun has had time to come to its end.
    pub(crate) async fn gone(self, key: SpkiDigest) {
        self.unlisted(key).await;
        tokio::time::sleep(FAREWELL).await;
    }
}

/// How long a connection stays whose key is listed no more: an answer that tells of it still gets there.
const FAREWELL: Duration = Duration::from_secs(1);

impl PartialEq for KeyList {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for KeyList {}

/// Whom a server lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRule {
    /// One of the keys that are listed at the handshake, else it fails.
    Listed(KeyList),
    /// One of these keys, else the handshake fails. An empty list admits nobody.
    Spki(Vec<SpkiDigest>),
    /// Any key; handlers demand [`crate::attested`] evidence.
    AttestedAfter,
    /// Any key; handlers decide call by call what [`crate::ConnectionState::peer_spki`] may do.
    AuthorizedPerCall,
}

/// Why a configuration could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// The identity is unusable.
    #[error("identity is unusable")]
    Identity(#[from] IdentityError),
    /// rustls refused.
    #[error("TLS configuration refused")]
    Rustls(#[from] Error),
}

/// The peer's key is none of those pinned. Travels inside the handshake error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("peer key {found} is none of the {} pinned", expected.len())]
pub(crate) struct PinMismatch {
    pub(crate) found: SpkiDigest,
    pub(crate) expected: Vec<SpkiDigest>,
}

impl PinMismatch {
    /// In the error of a handshake, if that is why it failed.
    pub(crate) fn of(error: &std::io::Error) -> Option<&Self> {
        match error.get_ref()?.downcast_ref::<Error>()? {
            Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
            _ => None,
        }
    }
}

/// A server's TLS configuration.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) own_spki: SpkiDigest,
    pub(crate) alpn: Vec<u8>,
    pub(crate) rule: ClientRule,
}

impl ServerTls {
    /// For one purpose of RA-TLS.
    ///
    /// # Errors
    /// [`TlsConfigError`].
    pub fn new(identity: &Identity, rule: ClientRule, purpose: Purpose) -> Result<Self, TlsConfigError> {
        Self::with_alpn(identity, rule, &purpose.alpn())
    }

    /// For a protocol that is not RA-TLS but wants the same handshake, such as an admin API between pinned keys.
    ///
    /// # Errors
    /// [`TlsConfigError`].
    pub fn with_alpn(identity: &Identity, rule: ClientRule, alpn: &[u8]) -> Result<Self, TlsConfigError> {
        let provider = provider();
        let pins = match &rule {
            ClientRule::Spki(pins) => Keys::Pinned(pins.clone()),
            ClientRule::Listed(list) => Keys::Listed(list.clone()),
            ClientRule::AttestedAfter | ClientRule::AuthorizedPerCall => Keys::Collected,
        };
        let verifier = Arc::new(KeyVerifier { keys: pins, provider: provider.clone() });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), own_spki: identity.spki(), alpn: alpn.to_vec(), rule })
    }
}

/// A client's TLS configuration.
#[derive(Clone)]
pub struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) own_spki: SpkiDigest,
    pub(crate) alpn: Vec<u8>,
}

impl ClientTls {
    /// For one purpose of RA-TLS.
    ///
    /// # Errors
    /// [`TlsConfigError`].
    pub fn new(identity: &Identity, pin: PeerPin, purpose: Purpose) -> Result<Self, TlsConfigError> {
        Self::with_alpn(identity, pin, &purpose.alpn())
    }

    /// For a protocol that is not RA-TLS but wants the same handshake.
    ///
    /// # Errors
    /// [`TlsConfigError`].
    pub fn with_alpn(identity: &Identity, pin: PeerPin, alpn: &[u8]) -> Result<Self, TlsConfigError> {
        let provider = provider();
        let keys = match pin {
            PeerPin::Spki(pins) => Keys::Pinned(pins),
            PeerPin::AttestedAfter => Keys::Collected,
        };
        let verifier = Arc::new(KeyVerifier { keys, provider: provider.clone() });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        // The peer is named by its key; a host name would only tell the path who talks to whom.
        config.enable_sni = false;
        Ok(Self { config: Arc::new(config), own_spki: identity.spki(), alpn: alpn.to_vec() })
    }
}

#[derive(Debug)]
enum Keys {
    Pinned(Vec<SpkiDigest>),
    Listed(KeyList),
    Collected,
}

#[derive(Debug)]
struct KeyVerifier {
    keys: Keys,
    provider: Arc<CryptoProvider>,
}

impl KeyVerifier {
    fn admit(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let found = certificate_spki(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        match &self.keys {
            Keys::Pinned(expected) if !expected.contains(&found) => {
                let mismatch = PinMismatch { found, expected: expected.clone() };
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch)))))
            }
            Keys::Listed(list) if !list.contains(&found) => {
                let mismatch = PinMismatch { found, expected: Vec::new() };
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch)))))
            }
            Keys::Pinned(_) | Keys::Listed(_) | Keys::Collected => Ok(()),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }
}

/// Identities are P-384; nothing else is offered or taken.
fn schemes() -> Vec<SignatureScheme> {
    vec![SignatureScheme::ECDSA_NISTP384_SHA384]
}

pub(crate) fn tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.admit(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.admit(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
