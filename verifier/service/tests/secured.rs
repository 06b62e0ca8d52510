//! TLS, and client certificates in place of keys.

use std::path::Path;

use coffer_verifier_service::TlsEntry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use reqwest::{Certificate, Client, Identity};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::common::Running;

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key of a client, in PEM.
    fn pair(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn client(&self) -> Identity {
        let (certificate, key) = self.pair();
        Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap()
    }
}

/// A server's own certificate, and that of a CA of clients, as files.
fn identity(folder: &Path, ca: &Ca) -> TlsEntry {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.pem"), made.cert.pem()).unwrap();
    coffer_rim::file::write_private(&folder.join("tls-key.pem"), made.signing_key.serialize_pem().as_bytes()).unwrap();
    std::fs::write(folder.join("clients.pem"), ca.0.pem()).unwrap();
    TlsEntry {
        certificate: folder.join("tls.pem"),
        key: folder.join("tls-key.pem"),
        client_roots: Some(folder.join("clients.pem")),
    }
}

fn client(folder: &Path, identity: Option<Identity>) -> Client {
    let root = Certificate::from_pem(&std::fs::read(folder.join("tls.pem")).unwrap()).unwrap();
    let builder = Client::builder().tls_certs_only([root]);
    identity
        .map_or(builder, |identity| {
            Client::builder()
                .tls_certs_only([Certificate::from_pem(&std::fs::read(folder.join("tls.pem")).unwrap()).unwrap()])
                .identity(identity)
        })
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_under_a_listed_root_opens_as_a_key_does_and_no_other() {
    let (ca, other) = (Ca::new(), Ca::new());
    let elsewhere = tempfile::tempdir().unwrap();
    let entry = identity(elsewhere.path(), &ca);
    let service = Running::with(|file| {
        file.plain_http_for_this_machine_alone = false;
        file.tls = Some(entry);
    })
    .await;
    let url = |path: &str| format!("https://{}{path}", service.address);
    let status = async |client: &Client, key: Option<&str>| {
        let request = client.get(url("/v1/policies"));
        let request = key.map_or(request.try_clone().unwrap(), |key| request.bearer_auth(key));
        request.send().await.map(|response| response.status().as_u16())
    };
    let plain = client(elsewhere.path(), None);
    assert_eq!(status(&plain, None).await.unwrap(), 401);
    assert_eq!(status(&plain, Some(&service.key)).await.unwrap(), 200);
    assert_eq!(plain.get(url("/healthz")).send().await.unwrap().status(), 200, "what is open needs no certificate");
    assert_eq!(status(&client(elsewhere.path(), Some(ca.client())), None).await.unwrap(), 200);
    assert!(status(&client(elsewhere.path(), Some(other.client())), Some(&service.key)).await.is_err());
    assert!(service.client.get(service.url("/healthz")).send().await.is_err(), "no plain HTTP beside it");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_no_longer_than_the_roots_it_was_checked_under() {
    let (ca, other) = (Ca::new(), Ca::new());
    let elsewhere = tempfile::tempdir().unwrap();
    let entry = identity(elsewhere.path(), &ca);
    let mut service = Running::with(|file| {
        file.plain_http_for_this_machine_alone = false;
        file.tls = Some(entry);
    })
    .await;
    let url = format!("https://{}/v1/policies", service.address);
    let ask = async |client: &Client| client.get(&url).send().await.map(|response| response.status().as_u16());
    let (known, keyed) = (client(elsewhere.path(), Some(ca.client())), client(elsewhere.path(), None));
    let by_key = async |key: &str| keyed.get(&url).bearer_auth(key).send().await.unwrap().status().as_u16();
    assert_eq!((ask(&known).await.unwrap(), by_key(&service.key).await), (200, 200));
    service.reload(|_| {});
    assert_eq!(ask(&known).await.unwrap(), 200, "the roots are the same");
    std::fs::write(elsewhere.path().join("clients.pem"), other.0.pem()).unwrap();
    service.reload(|_| {});
    for _ in 0..3 {
        assert_ne!(ask(&known).await.ok(), Some(200), "neither on the old connection nor on a new one");
    }
    assert_eq!(by_key(&service.key).await, 200, "a key has nothing to do with it");
    assert_eq!(ask(&client(elsewhere.path(), Some(other.client()))).await.unwrap(), 200);
    service.reload(|file| file.tls.as_mut().unwrap().client_roots = None);
    assert_ne!(ask(&client(elsewhere.path(), Some(other.client()))).await.ok(), Some(200));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_not_taken_up_again_with_the_certificate_of_then() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let entry = identity(folder.path(), &ca);
    let service = Running::with(|file| {
        file.plain_http_for_this_machine_alone = false;
        file.tls = Some(entry);
    })
    .await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.path().join("tls.pem")).unwrap()).unwrap();
    let (certificate, key) = ca.pair();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let config = ClientConfig::builder().with_root_certificates(roots);
    // It keeps every ticket that it is given, as clients do.
    let config = config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    for _ in 0..3 {
        let stream = TcpStream::connect(service.address).await.unwrap();
        let mut stream = connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap();
        stream.write_all(b"GET /v1/policies HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.unwrap();
        assert!(said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
    service.stop().await;
}
