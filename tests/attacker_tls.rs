//! An attacker's end of a handshake: rustls that believes whatever it is shown, shows a key of the attacker's choice, and resumes sessions
//! where the other end lets it. Included by the tests of several crates.
#![allow(dead_code, reason = "each uses its part")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use coffer_ratls::Identity;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What both of rustls's traits ask of whoever looks at a signature: any will do.
macro_rules! any_signature {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    };
}

/// Believes any certificate: the attacker's end of a handshake.
#[derive(Debug)]
pub struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    any_signature!();
}

impl ClientCertVerifier for Anything {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    any_signature!();
}

/// Certificate of one identity, private key of another; with `None`, of the same.
pub fn certified(identity: &Identity, key_of: Option<&Identity>) -> CertifiedKey {
    let pem = key_of.unwrap_or(identity).to_pem();
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
    let key = default_provider().key_provider.load_private_key(key).unwrap();
    CertifiedKey::new(vec![CertificateDer::from(identity.certificate_der().to_vec())], key)
}

pub fn attacker_client(certificate: Option<CertifiedKey>, alpn: Vec<u8>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything));
    let mut config = match certificate {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn];
    config
}

/// Serves one connection, with tickets to come back with if so. What kind of handshake it was is noted.
pub async fn attacker_server(
    key: CertifiedKey,
    alpn: Vec<Vec<u8>>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    tickets: bool,
    kinds: &Mutex<Vec<HandshakeKind>>,
) {
    #[derive(Debug)]
    struct One(Arc<CertifiedKey>);
    impl ResolvesServerCert for One {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Anything))
        .with_cert_resolver(Arc::new(One(Arc::new(key))));
    config.alpn_protocols = alpn;
    config.send_tls13_tickets = if tickets { 4 } else { 0 };
    config.max_early_data_size = if tickets { 1 << 14 } else { 0 };
    config.session_storage = SESSIONS.get_or_init(|| rustls::server::ServerSessionMemoryCache::new(64)).clone();
    if let Ok(mut tls) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
        kinds.lock().unwrap().extend(tls.get_ref().1.handshake_kind());
        // Who says nothing has taken the tickets by then.
        let _ = tokio::time::timeout(Duration::from_millis(500), tls.read(&mut [0; 64])).await;
    }
}

/// What an attacker's servers know of those who were there before.
static SESSIONS: std::sync::OnceLock<Arc<rustls::server::ServerSessionMemoryCache>> = std::sync::OnceLock::new();

/// A client that keeps tickets and sends early data, and has tickets of a server under this very name, whose secrets it knows.
pub async fn with_tickets(identity: &Identity, alpn: Vec<u8>) -> TlsConnector {
    let mut config = attacker_client(Some(certified(identity, None)), alpn.clone());
    config.resumption = Resumption::in_memory_sessions(16);
    config.enable_early_data = true;
    let connector = TlsConnector::from(Arc::new(config));
    let kinds = Mutex::default();
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let served = attacker_server(certified(identity, None), vec![alpn.clone()], far, true, &kinds);
        let came = async {
            let mut tls = connector.connect(name(), near).await.unwrap();
            tls.write_all(b"here").await.unwrap();
            tls.shutdown().await.unwrap();
            // Tickets come behind the handshake.
            let _ = tls.read(&mut [0; 1]).await;
            assert!(tls.get_ref().1.tls13_tickets_received() > 0);
        };
        tokio::join!(served, came);
    }
    assert_eq!(*kinds.lock().unwrap(), [HandshakeKind::Full, HandshakeKind::Resumed], "there it comes back with one");
    connector
}

/// What every server is called here.
pub fn name() -> ServerName<'static> {
    ServerName::try_from("peer.invalid").unwrap()
}

/// That a server on this stream begins anew with one who has tickets, and gives none.
pub async fn begins_anew(connector: &TlsConnector, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut tls = connector.connect(name(), stream).await.unwrap();
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await.unwrap();
    tls.flush().await.unwrap();
    tls.read_exact(&mut [0; 9]).await.unwrap();
    let connection = tls.get_ref().1;
    assert_eq!(connection.tls13_tickets_received(), 0, "no ticket to come back with");
    assert_ne!(connection.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(!connection.is_early_data_accepted(), "no 0-RTT");
}
