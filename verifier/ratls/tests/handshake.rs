//! What the TLS handshake itself must refuse, on either end.

#[path = "../../../tests/attacker_tls.rs"]
mod attacker_tls;
mod common;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use attacker_tls::{Anything, attacker_client, attacker_server, begins_anew, certified, with_tickets};
use coffer_ratls::{
    ClientRule, ClientTls, ConnectError, FactsError, Identity, PeerPin, Purpose, ServeLimits, ServerTls,
    certificate_spki, connect_and_attest, connect_pinned, peer_certificate, serve,
};
use coffer_verifier::{abi::SpkiDigest, binding::Role};
use common::{Credulous, Guest, Raw, Server};
use rustls::{
    ClientConfig, HandshakeKind,
    crypto::aws_lc_rs::default_provider,
    pki_types::{PrivateKeyDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS12,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

async fn outcome(stream: DuplexStream, config: ClientConfig) -> io::Result<()> {
    let name = ServerName::try_from("peer.invalid").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // The HTTP/2 preface and an empty SETTINGS frame: a server that accepted us answers with its own.
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await?;
    let mut first = [0; 9];
    tls.read_exact(&mut first).await.map(drop)
}

fn broker() -> Server {
    Server::broker(Arc::new(Credulous::default()))
}

#[tokio::test]
async fn the_attackers_tools_work_when_nothing_is_wrong() {
    let identity = Identity::generate("client").unwrap();
    outcome(broker().dial(), attacker_client(Some(certified(&identity, None)), Purpose::Kbs.alpn())).await.unwrap();
}

#[tokio::test]
async fn no_two_connections_and_no_two_roles_share_keying_material() {
    let client_id = Identity::generate("client").unwrap();
    let server = broker();
    let one = Raw::connect_as(&client_id, &server, Purpose::Kbs).await.facts;
    let two = Raw::connect_as(&client_id, &server, Purpose::Kbs).await.facts;
    assert_eq!(one.own_spki(), &client_id.spki());
    assert_eq!(one.peer_spki(), &server.spki);
    for role in [Role::Client, Role::Server] {
        assert_ne!(one.exporter(role), two.exporter(role), "exporters differ between connections");
    }
    assert_ne!(one.exporter(Role::Client), one.exporter(Role::Server), "and between roles");
}

#[tokio::test]
async fn a_server_refuses_tls_1_2() {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(
            &Identity::generate("client").unwrap(),
            None,
        ))));
    config.alpn_protocols = vec![Purpose::Kbs.alpn()];
    let error = outcome(broker().dial(), config).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn a_server_refuses_a_client_without_certificate() {
    let error = outcome(broker().dial(), attacker_client(None, Purpose::Kbs.alpn())).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn a_server_refuses_a_certificate_whose_key_the_client_does_not_hold() {
    let (victim, attacker) = (Identity::generate("victim").unwrap(), Identity::generate("attacker").unwrap());
    let stolen = certified(&victim, Some(&attacker));
    assert!(outcome(broker().dial(), attacker_client(Some(stolen), Purpose::Kbs.alpn())).await.is_err());
}

#[tokio::test]
async fn a_server_refuses_keys_that_are_not_p384() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
    let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let key = default_provider().key_provider.load_private_key(key).unwrap();
    let p256 = CertifiedKey::new(vec![certificate.der().clone()], key);
    assert!(outcome(broker().dial(), attacker_client(Some(p256), Purpose::Kbs.alpn())).await.is_err());
}

#[tokio::test]
async fn a_server_refuses_another_alpn_and_none() {
    let identity = Identity::generate("client").unwrap();
    for alpn in [vec![Purpose::Control.alpn()], vec![b"h2".to_vec()], vec![]] {
        let mut config = attacker_client(Some(certified(&identity, None)), Purpose::Kbs.alpn());
        config.alpn_protocols = alpn.clone();
        assert!(outcome(broker().dial(), config).await.is_err(), "{alpn:?}");
    }
}

#[tokio::test]
async fn a_server_with_pins_refuses_other_keys() {
    let (friend, stranger) = (Identity::generate("friend").unwrap(), Identity::generate("stranger").unwrap());
    let server_id = Identity::generate("server").unwrap();
    let tls = ServerTls::with_alpn(&server_id, ClientRule::Spki(vec![friend.spki()]), &Purpose::Kbs.alpn()).unwrap();
    for (identity, admitted) in [(friend, true), (stranger, false)] {
        let (near, far) = duplex(64 * 1024);
        let incoming = tokio_stream::iter([Ok::<_, io::Error>(far)]);
        let routes = tonic::service::Routes::default();
        let server = tokio::spawn(coffer_ratls::serve_pinned(
            incoming,
            tls.clone(),
            routes,
            ServeLimits::default(),
            std::future::pending(),
        ));
        let result = outcome(near, attacker_client(Some(certified(&identity, None)), Purpose::Kbs.alpn())).await;
        assert_eq!(result.is_ok(), admitted);
        server.abort();
    }
}

#[tokio::test]
async fn a_server_without_attestation_must_pin_its_clients() {
    let identity = Identity::generate("server").unwrap();
    let tls = ServerTls::new(&identity, ClientRule::AttestedAfter, Purpose::Kbs).unwrap();
    let incoming = tokio_stream::empty::<io::Result<DuplexStream>>();
    let routes = tonic::service::Routes::default();
    let result =
        coffer_ratls::serve_pinned(incoming, tls, routes, ServeLimits::default(), std::future::pending()).await;
    assert!(matches!(result, Err(coffer_ratls::ServeError::NotPinned)));
}

#[tokio::test]
async fn no_session_is_ever_resumed() {
    let server = broker();
    let connector = with_tickets(&Identity::generate("client").unwrap(), Purpose::Kbs.alpn()).await;
    for _ in 0..3 {
        begins_anew(&connector, server.dial()).await;
    }
}

#[tokio::test]
async fn no_client_comes_back_with_a_ticket() {
    let (server, kinds) = (Identity::generate("server").unwrap(), Mutex::default());
    let tls = ClientTls::new(&Identity::generate("client").unwrap(), PeerPin::Spki(vec![server.spki()]), Purpose::Kbs);
    let tls = tls.unwrap();
    for _ in 0..3 {
        let (near, far) = duplex(64 * 1024);
        let served = attacker_server(certified(&server, None), vec![Purpose::Kbs.alpn()], far, true, &kinds);
        let ((), _kept) = tokio::join!(served, async { connect_pinned(near, &tls).await.unwrap() });
    }
    assert_eq!(*kinds.lock().unwrap(), [HandshakeKind::Full; 3]);
}

async fn client_outcome(key: CertifiedKey, alpn: Vec<Vec<u8>>, pin: PeerPin) -> Result<(), ConnectError> {
    let (near, far) = duplex(64 * 1024);
    tokio::spawn(async move { attacker_server(key, alpn, far, true, &Mutex::default()).await });
    let tls = ClientTls::new(&Identity::generate("client").unwrap(), pin, Purpose::Kbs).unwrap();
    connect_pinned(near, &tls).await.map(drop)
}

#[tokio::test]
async fn a_client_refuses_a_server_that_chose_no_alpn() {
    let identity = Identity::generate("server").unwrap();
    let good = client_outcome(certified(&identity, None), vec![Purpose::Kbs.alpn()], PeerPin::AttestedAfter).await;
    assert!(good.is_ok());
    let none = client_outcome(certified(&identity, None), vec![], PeerPin::AttestedAfter).await;
    assert!(matches!(none, Err(ConnectError::Facts(FactsError::Alpn { .. }))), "{none:?}");
    let other = client_outcome(certified(&identity, None), vec![Purpose::Control.alpn()], PeerPin::AttestedAfter).await;
    assert!(other.is_err());
}

#[tokio::test]
async fn a_client_refuses_every_key_but_the_pinned_ones() {
    let (genuine, other) = (Identity::generate("genuine").unwrap(), Identity::generate("other").unwrap());
    let alpn = vec![Purpose::Kbs.alpn()];
    let pins = PeerPin::Spki(vec![SpkiDigest::new([1; 32]), genuine.spki()]);
    assert!(client_outcome(certified(&genuine, None), alpn.clone(), pins.clone()).await.is_ok());
    match client_outcome(certified(&other, None), alpn.clone(), pins).await {
        Err(ConnectError::PinMismatch { found, expected }) => {
            assert_eq!(found, other.spki());
            assert!(expected.contains(&genuine.spki()));
        }
        unexpected => panic!("{unexpected:?}"),
    }
    let nobody = client_outcome(certified(&genuine, None), alpn, PeerPin::Spki(vec![])).await;
    assert!(matches!(nobody, Err(ConnectError::PinMismatch { .. })), "an empty list admits nobody");
}

#[tokio::test]
async fn a_client_refuses_the_pinned_certificate_without_its_key() {
    let (genuine, attacker) = (Identity::generate("genuine").unwrap(), Identity::generate("attacker").unwrap());
    let stolen = certified(&genuine, Some(&attacker));
    assert_eq!(certificate_spki(stolen.end_entity_cert().unwrap()), Some(genuine.spki()));
    let alpn = vec![Purpose::Kbs.alpn()];
    for pin in [PeerPin::Spki(vec![genuine.spki()]), PeerPin::AttestedAfter] {
        let result = client_outcome(certified(&genuine, Some(&attacker)), alpn.clone(), pin).await;
        assert!(matches!(result, Err(ConnectError::Handshake(_))), "{result:?}");
    }
}

#[tokio::test]
async fn a_certificate_is_looked_at_of_a_peer_that_holds_its_key_and_of_no_other() {
    let (genuine, attacker) = (Identity::generate("genuine").unwrap(), Identity::generate("attacker").unwrap());
    let shown = |key: CertifiedKey| async {
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(async move { attacker_server(key, Vec::new(), far, true, &Mutex::default()).await });
        peer_certificate(near, "guest.example").await
    };
    let good = shown(certified(&genuine, None)).await.unwrap();
    assert_eq!((good.spki, good.der.as_slice()), (genuine.spki(), genuine.certificate_der()));
    let stolen = shown(certified(&genuine, Some(&attacker))).await;
    assert!(matches!(stolen, Err(ConnectError::Handshake(_))), "{stolen:?}");
    let (near, far) = duplex(64);
    drop(far);
    assert!(matches!(peer_certificate(near, "guest.example").await, Err(ConnectError::Handshake(_))));
}

#[tokio::test]
async fn a_guest_sends_no_evidence_to_a_broker_it_does_not_pin() {
    let server = broker();
    let identity = Identity::generate("guest").unwrap();
    let pins = vec![SpkiDigest::new([3; 32])];
    let result = connect_and_attest(server.dial(), &identity, Purpose::Kbs, pins, Arc::new(Guest)).await;
    assert!(matches!(result.err(), Some(ConnectError::PinMismatch { .. })));
}

#[tokio::test]
async fn the_post_quantum_group_is_taken_first() {
    let server = broker();
    let identity = Identity::generate("client").unwrap();
    let name = ServerName::try_from("peer.invalid").unwrap();
    let config = attacker_client(Some(certified(&identity, None)), Purpose::Kbs.alpn());
    let tls = TlsConnector::from(Arc::new(config)).connect(name, server.dial()).await.unwrap();
    let group = tls.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}

fn tight() -> ServeLimits {
    ServeLimits {
        handshake: Duration::from_millis(300),
        unattested: 2,
        unattested_lifetime: Duration::from_millis(600),
        connections: 8,
        ..ServeLimits::default()
    }
}

fn tight_broker() -> Server {
    let appraiser = Arc::new(Credulous::default());
    let attestation = coffer_ratls::AttestationService::verifier(appraiser);
    Server::with_limits(attestation, ClientRule::AttestedAfter, Purpose::Kbs, tight())
}

#[tokio::test]
async fn a_silent_stranger_is_hung_up_on() {
    let server = tight_broker();
    let mut silent = server.dial();
    let read = tokio::time::timeout(Duration::from_mins(1), silent.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "closed after the handshake timeout");
}

#[tokio::test]
async fn a_connection_that_never_attests_is_closed_and_one_that_does_stays() {
    let server = tight_broker();
    let mut idle = Raw::connect(&server, Purpose::Kbs).await;
    let mut busy = Raw::connect(&server, Purpose::Kbs).await;
    assert_eq!(common::code(busy.attempt(|_| {}).await), "admitted");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(idle.client.challenge(coffer_ratls::proto::ChallengeRequest {}).await.is_err());
    busy.challenge().await;
}

#[tokio::test]
async fn strangers_beyond_the_bound_wait_until_others_are_known_or_gone() {
    let server = tight_broker();
    let (_one, _two) = (server.dial(), server.dial()); // two silent strangers fill the places
    tokio::task::yield_now().await;
    let start = std::time::Instant::now();
    Raw::connect(&server, Purpose::Kbs).await;
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    // Attested ones hold no place.
    let mut known = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::connect(&server, Purpose::Kbs).await;
        assert_eq!(common::code(raw.attempt(|_| {}).await), "admitted");
        known.push(raw);
    }
}

#[tokio::test]
async fn a_broken_accept_does_not_end_the_server() {
    let identity = Identity::generate("server").unwrap();
    let tls = ServerTls::new(&identity, ClientRule::AttestedAfter, Purpose::Kbs).unwrap();
    let (near, far) = duplex(64 * 1024);
    let incoming = tokio_stream::iter([Err(io::Error::other("out of descriptors")), Ok(far)]);
    let attestation = coffer_ratls::AttestationService::verifier(Arc::new(Credulous::default()));
    let routes = tonic::service::Routes::default();
    let server =
        tokio::spawn(serve(incoming, tls, attestation, routes, ServeLimits::default(), std::future::pending()));
    let client = Identity::generate("client").unwrap();
    outcome(near, attacker_client(Some(certified(&client, None)), Purpose::Kbs.alpn())).await.unwrap();
    server.abort();
}
