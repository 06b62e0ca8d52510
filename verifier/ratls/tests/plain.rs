//! TLS for clients that know nothing of evidence: what is shown, to whom, and until when.

#[path = "../../../guest/src/ingress/browsers/issuer.rs"]
mod issuer;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use coffer_ratls::{PlainError, PlainKey, PlainTls};
use issuer::TestIssuer;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(20);
const PLACES: usize = 2;

/// One handshake as a browser makes it, and what it came to: the protocol agreed on.
async fn reaches(tls: &PlainTls, root: &[u8], name: &str, alpn: &[&str]) -> io::Result<Option<String>> {
    let (near, far) = duplex(64 << 10);
    let tls = tls.clone();
    tokio::spawn(async move {
        if let Ok(mut stream) = tls.accept(far, PATIENCE).await {
            let _ = stream.write_all(b"inside").await;
            let _ = stream.shutdown().await;
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(root.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, near).await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    assert_eq!(said, "inside");
    Ok(stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()))
}

fn shown(tls: &PlainTls, issuer: &TestIssuer, lasts: Duration) {
    let key = PlainKey::generate().unwrap();
    let chain = issuer.issue(key.request(), "web.example", lasts);
    tls.show(&key, chain, SystemTime::now()).unwrap();
}

#[tokio::test]
async fn whoever_says_nothing_is_not_waited_for_as_long_as_who_is_slow() {
    let (tls, issuer) = (PlainTls::new(PLACES).unwrap(), TestIssuer::new());
    shown(&tls, &issuer, Duration::from_hours(1));
    let long = Duration::from_mins(5);
    for said in [b"".as_slice(), &[0x16, 3, 1, 0, 200, 1, 0]] {
        let (mut near, far) = duplex(64 << 10);
        near.write_all(said).await.unwrap();
        let accepted = tokio::time::timeout(PATIENCE, tls.accept(far, long)).await.expect("it is waited for");
        assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

#[tokio::test]
async fn however_many_say_nothing_whoever_speaks_is_heard() {
    let (tls, issuer) = (PlainTls::new(PLACES).unwrap(), TestIssuer::new());
    shown(&tls, &issuer, Duration::from_hours(1));
    // Each comes again as soon as it is hung up on, with a beginning that is none yet.
    for _ in 0..2 * PLACES {
        let tls = tls.clone();
        tokio::spawn(async move {
            loop {
                let (mut near, far) = duplex(64 << 10);
                near.write_all(&[0x16, 3, 1, 0, 200, 1, 0]).await.unwrap();
                let _ = tls.accept(far, PATIENCE).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..3 {
        reaches(&tls, &issuer.root_der, "web.example", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_is_shown_to_who_asks_for_its_name_and_to_nobody_else() {
    let (tls, issuer) = (PlainTls::new(PLACES).unwrap(), TestIssuer::new());
    assert!(reaches(&tls, &issuer.root_der, "web.example", &[]).await.is_err(), "there is none yet");
    shown(&tls, &issuer, Duration::from_hours(1));
    assert_eq!(reaches(&tls, &issuer.root_der, "web.example", &[]).await.unwrap(), None);
    let agreed = reaches(&tls, &issuer.root_der, "WEB.example", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(agreed.as_deref(), Some("http/1.1"));
    // Another name; an address, which no client names in its first message; protocols of RA-TLS's.
    for (name, alpn) in [
        ("other.example", &[][..]),
        ("127.0.0.1", &[]),
        ("web.example", &["coffer-ingress/1/8080"]),
        ("web.example", &["coffer-control/1"]),
        ("web.example", &["h2"]),
    ] {
        assert!(reaches(&tls, &issuer.root_der, name, alpn).await.is_err(), "{name} {alpn:?}");
    }
}

#[tokio::test]
async fn what_is_no_certificate_of_the_key_is_not_shown_and_the_last_one_stays() {
    let (tls, issuer) = (PlainTls::new(PLACES).unwrap(), TestIssuer::new());
    shown(&tls, &issuer, Duration::from_hours(1));
    let key = PlainKey::generate().unwrap();
    let another = PlainKey::generate().unwrap();
    let hour = Duration::from_hours(1);
    let of_another = issuer.issue(another.request(), "web.example", hour);
    let now = SystemTime::now();
    assert!(matches!(tls.show(&key, of_another, now), Err(PlainError::Key(_))));
    assert!(matches!(tls.show(&key, Vec::new(), now), Err(PlainError::Certificate(_))));
    assert!(matches!(tls.show(&key, vec![b"none".to_vec()], now), Err(PlainError::Certificate(_))));
    let ended = issuer.issue(key.request(), "web.example", hour);
    assert!(matches!(tls.show(&key, ended, now + 2 * hour), Err(PlainError::Certificate("has ended"))));
    reaches(&tls, &issuer.root_der, "web.example", &[]).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_shown_no_more() {
    let (tls, issuer) = (PlainTls::new(PLACES).unwrap(), TestIssuer::new());
    shown(&tls, &issuer, Duration::from_secs(2));
    let until = Instant::now() + PATIENCE;
    // Whichever end minds first: at the latest ours does.
    while reaches(&tls, &issuer.root_der, "web.example", &[]).await.is_ok() {
        assert!(Instant::now() < until, "shown after its last second");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shown(&tls, &issuer, Duration::from_hours(1));
    reaches(&tls, &issuer.root_der, "web.example", &[]).await.unwrap();
}
