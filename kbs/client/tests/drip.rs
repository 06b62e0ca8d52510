//! A broker that takes a call and sends a byte of its answer now and then holds nobody for longer than was said.

mod common;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body, response::Response};
use coffer_kbs_client::{ALPN_ADMIN, AdminClient, AdminProfile, BrokerClient, ClientError};
use coffer_ratls::{AttestationService, ClientRule, Identity, Purpose, ServeLimits, ServerTls, serve, serve_pinned};
use common::{Everything, Guest};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::service::Routes;

/// How long these clients wait; a broker that drips would take an hour.
const LONGEST: Duration = Duration::from_millis(300);

/// The head of a message of a megabyte, and then a byte of it each 10 ms.
fn drip() -> Response {
    let head = tokio_stream::once(vec![0, 0, 16, 0, 0]);
    let bytes = tokio_stream::iter(0..360_000).throttle(Duration::from_millis(10)).map(|_| vec![0]);
    let body = Body::from_stream(head.chain(bytes).map(Ok::<_, Infallible>));
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

fn dripping() -> Routes {
    Router::new().fallback(|| async { drip() }).into()
}

fn is_slow<T>(said: Result<T, ClientError>) {
    let error = said.err().expect("an answer that nobody sent");
    assert!(matches!(error, ClientError::Slow { within } if within == LONGEST), "{error:?}");
    assert_eq!(error.to_string(), "key broker did not answer within 0.3 s");
    assert!(error.hint().unwrap().contains("done all the same"));
}

#[tokio::test]
async fn an_admin_call_ends_with_its_time() {
    let (broker, operator) = (Identity::generate("broker").unwrap(), Identity::generate("operator").unwrap());
    let tls = ServerTls::with_alpn(&broker, ClientRule::Spki(vec![operator.spki()]), ALPN_ADMIN).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let lines = TcpListenerStream::new(listener);
    tokio::spawn(serve_pinned(lines, tls, dripping(), ServeLimits::default(), std::future::pending()));
    let profile = AdminProfile { address, pins: vec![broker.spki()], identity: operator };
    let admin = AdminClient::connect(&profile).await.unwrap().waiting_at_most(LONGEST);
    // A call that answers with a value, one with a list, and one with nothing: all of them go through one gate.
    is_slow(admin.confirm_restored().await);
    is_slow(admin.list_references("acme").await);
    is_slow(admin.audit(5, 0).await);
    is_slow(admin.test_policy(coffer_kbs_client::kbs::admin::v1::TestPolicyRequest::default()).await);
}

#[tokio::test]
async fn a_guests_call_ends_with_its_time() {
    let broker = Identity::generate("broker").unwrap();
    let tls = ServerTls::new(&broker, ClientRule::AttestedAfter, Purpose::Kbs).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = AttestationService::verifier(Arc::new(Everything));
    let lines = TcpListenerStream::new(listener);
    tokio::spawn(serve(lines, tls, service, dripping(), ServeLimits::default(), std::future::pending()));
    let identity = Identity::generate("guest").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let client = BrokerClient::connect(stream, &identity, "acme", vec![broker.spki()], Arc::new(Guest)).await.unwrap();
    let client = client.waiting_at_most(LONGEST);
    is_slow(client.secret(&"kbs:///default/app/password".parse().unwrap()).await);
    is_slow(client.certificate("web", b"csr").await);
}
