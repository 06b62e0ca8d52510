//! The certificate that whoever answers shows, and holds the key of: for peers that cannot be challenged.
//!
//! Trusts: the handshake alone. A name, dates and an issuer are not looked at: evidence inside the certificate decides, or nobody.
//! Never: shows a certificate or a key of our own, agrees on a protocol, resumes a session, says a word behind the handshake.

use std::sync::Arc;

use coffer_verifier::abi::SpkiDigest;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    client::HANDSHAKE,
    connect_error::ConnectError,
    facts::FactsError,
    identity::certificate_spki,
    provider::provider,
    tls::{TlsConfigError, tls12},
};

/// The certificate of a peer that holds its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The whole certificate, DER. Nobody believes it yet.
    pub der: Vec<u8>,
    /// SHA-256 of its SubjectPublicKeyInfo: the key that signed this handshake.
    pub spki: SpkiDigest,
}

/// Does a TLS 1.3 handshake on `stream` for the certificate's sake, and closes it. `host`: the name or address that was dialled; a name
/// is sent (SNI), for servers that have several.
///
/// # Errors
/// [`ConnectError::Handshake`], [`ConnectError::Timeout`], or [`ConnectError::Facts`] of a certificate that cannot be read.
pub async fn peer_certificate<IO>(stream: IO, host: &str) -> Result<PeerCertificate, ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned()).map_err(|error| ConnectError::Internal(error.to_string()))?;
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsConfigError::from)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey { provider }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let connected = timeout(HANDSHAKE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    let stream = connected.map_err(|_| ConnectError::Timeout(HANDSHAKE))?.map_err(ConnectError::Handshake)?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let der = chain.first().ok_or(FactsError::PeerCertificate)?.to_vec();
    let spki = certificate_spki(&der).ok_or(FactsError::PeerCertificate)?;
    Ok(PeerCertificate { der, spki })
}

/// Takes any certificate, of a peer that holds its key.
#[derive(Debug)]
struct AnyKey {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let readable = certificate_spki(end_entity).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding));
        readable.map(|_| ServerCertVerified::assertion())
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
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
