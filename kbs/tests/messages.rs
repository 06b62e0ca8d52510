//! What comes in is bounded, and what is not taken has a word, an id and a line in the log.

use std::process::{Command, Stdio};

use crate::common::{Kbs, PATH, RawAdmin, TENANT, put};
use coffer_kbs_client::{
    AdminClient, AdminProfile, ClientError,
    kbs::{admin::v1, v1 as wire},
};
use coffer_ratls::{ClientTls, Denial, Identity, PeerPin, Purpose, connect_pinned};
use secrecy::SecretBox;
use tonic::{Request, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

async fn stranger(kbs: &Kbs) -> Channel {
    let stream = tokio::net::TcpStream::connect(kbs.addresses.listen).await.unwrap();
    let identity = Identity::generate("stranger").unwrap();
    let tls = ClientTls::new(&identity, PeerPin::Spki(vec![kbs.addresses.pin]), Purpose::Kbs).unwrap();
    connect_pinned(stream, &tls).await.unwrap().0
}

fn heard(status: &tonic::Status) -> String {
    let Denial { code, id } = Denial::of(status).unwrap_or_else(|| panic!("no refusal: {status:?}"));
    assert_eq!(id.len(), 16, "{status:?}");
    code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_too_long_and_one_that_is_none_get_a_word_and_an_id() {
    let kbs = Kbs::start().await;
    let channel = stranger(&kbs).await;
    let long = wire::GetSecretRequest { path: "x".repeat(20_000), version: None };
    let status = wire::broker_client::BrokerClient::new(channel.clone()).get_secret(long).await.unwrap_err();
    assert_eq!(heard(&status), "message-too-large");
    // A number where the path should be.
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let other = Request::new(wire::GenerationStep { expected: 1, next: 2 });
    let path = PathAndQuery::from_static("/coffer.kbs.v1.Broker/GetSecret");
    let codec = ProstCodec::<wire::GenerationStep, wire::GetSecretResponse>::default();
    let status = grpc.unary(other, path, codec).await.unwrap_err();
    assert_eq!(heard(&status), "message-undecodable");

    // A value that fits into a message, and is too large all the same.
    let (value, path) = (SecretBox::new(Box::new(vec![b'x'; (1 << 20) + 1])), PATH.parse().unwrap());
    let error = kbs.admin().await.put_secret(put(&path, &value)).await.map(|_| ()).unwrap_err();
    let hint = error.hint().unwrap();
    assert!(
        matches!(&error, ClientError::Refused { code, id } if code == "value-too-large" && id.len() == 16),
        "{error:?}"
    );
    assert!(hint.contains("1 MiB") && !hint.contains("audit"), "{hint}");

    // Not what the broker says itself: a field that is wrong is named.
    let value = SecretBox::new(Box::new(Vec::new()));
    let path = PATH.parse().unwrap();
    assert!(matches!(kbs.admin().await.put_secret(put(&path, &value)).await, Err(ClientError::Rejected { .. })));
    assert!(kbs.admin().await.list_secrets(TENANT, false).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn the_log_has_the_id() {
    let folder = tempfile::tempdir().unwrap();
    let (state, log) = (folder.path().join("state"), folder.path().join("log"));
    coffer_kbs::init(&state, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ready = folder.path().join("ready");
    let mut child = Command::new(env!("CARGO_BIN_EXE_coffer-kbs"))
        .args(["serve", "--state", &state.display().to_string(), "--ready-file", &ready.display().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    for _ in 0..600 {
        if ready.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let admin = AdminClient::connect(&AdminProfile::read(&state.join("admin.toml")).unwrap()).await.unwrap();
    admin.add_tenant(TENANT).await.unwrap();
    let (value, path) = (SecretBox::new(Box::new(vec![b'x'; 2 << 20])), PATH.parse().unwrap());
    let refused = admin.put_secret(put(&path, &value)).await;
    let log = std::fs::read_to_string(&log).unwrap();
    let _ = child.kill();
    let _ = child.wait();
    match refused {
        Err(error @ ClientError::Refused { .. }) => {
            assert!(error.hint().unwrap().contains("1 MiB"), "{error:?}");
            let ClientError::Refused { code, id } = error else { unreachable!() };
            assert_eq!(code, "message-too-large");
            assert!(log.contains(&id) && log.contains("the limit is"), "{id}: {log}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("stored"),
    }
}

/// Half a message takes memory until the rest comes: an operator's connection has one on its way, and others do not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_connection_has_one_message_on_its_way() {
    let kbs = Kbs::start().await;
    let profile = AdminProfile::read(&kbs.state().join("admin.toml")).unwrap();
    let connect = async || {
        let stream = tokio::net::TcpStream::connect(&profile.address).await.unwrap();
        let pin = PeerPin::Spki(profile.pins.clone());
        let tls = ClientTls::with_alpn(&profile.identity, pin, coffer_kbs_client::ALPN_ADMIN).unwrap();
        connect_pinned(stream, &tls).await.unwrap().0
    };
    let (one, other) = (connect().await, connect().await);
    let (rest, half) = tokio::sync::mpsc::channel::<v1::PutSecretRequest>(1);
    let mut grpc = tonic::client::Grpc::new(one.clone());
    grpc.ready().await.unwrap();
    let first = tokio::spawn(async move {
        let path = PathAndQuery::from_static("/coffer.kbs.admin.v1.Admin/PutSecret");
        let codec = ProstCodec::<v1::PutSecretRequest, v1::PutSecretResponse>::default();
        let half = Request::new(tokio_stream::wrappers::ReceiverStream::new(half));
        grpc.client_streaming(half, path, codec).await.map(|_| ())
    });
    let list = |channel| async move {
        let asked = v1::ListSecretsRequest { tenant: TENANT.into(), ..v1::ListSecretsRequest::default() };
        RawAdmin::new(channel).list_secrets(asked).await.map(|_| ())
    };
    // The half message has its turn once the server has seen it: what was let through before it does not count.
    let patience = std::time::Duration::from_secs(20);
    let waits =
        async { while tokio::time::timeout(std::time::Duration::from_millis(500), list(one.clone())).await.is_ok() {} };
    tokio::time::timeout(patience, waits).await.expect("a second message was taken beside the first");
    list(other).await.unwrap();
    drop(rest);
    assert!(first.await.unwrap().is_err(), "a message without an end was taken");
    tokio::time::timeout(patience, list(one)).await.unwrap().unwrap();
}
