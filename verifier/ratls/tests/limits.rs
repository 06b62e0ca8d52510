//! What one connection of a stranger's may make a server keep: heads, messages, and as many of each as are said.

mod common;

use std::{sync::Arc, time::Duration};

use coffer_ratls::{AttestationService, ClientRule, Purpose, ServeLimits};
use common::{Credulous, Guest, Raw, Server};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Frame};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::{Status, body::Body, transport::Channel};
use tower::{Service as _, ServiceExt as _};

const WAIT: Duration = Duration::from_secs(20);
const ATTEST: &str = "/coffer.attestation.v1.Attestation/Attest";

/// A call whose body the test sends piece by piece.
struct Call {
    pieces: mpsc::UnboundedSender<Bytes>,
    answer: tokio::task::JoinHandle<Result<http::Response<Body>, tonic::transport::Error>>,
}

fn request(body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(ATTEST);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request
}

fn begin(channel: &Channel) -> Call {
    let (pieces, from) = mpsc::unbounded_channel();
    let body = http_body_util::StreamBody::new(
        UnboundedReceiverStream::new(from).map(|piece| Ok::<_, Status>(Frame::data(piece))),
    );
    let (mut channel, request) = (channel.clone(), request(Body::new(body)));
    let answer = tokio::spawn(async move { channel.ready().await?.call(request).await });
    Call { pieces, answer }
}

/// A message as gRPC frames it.
fn framed(message: &[u8]) -> Bytes {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(message);
    framed.into()
}

fn challenge() -> Bytes {
    use prost::Message as _;
    let side = Some(coffer_ratls::proto::attest_request::Side::Challenge(vec![7; 32]));
    framed(&coffer_ratls::proto::AttestRequest { side }.encode_to_vec())
}

fn agent() -> Server {
    Server::with_limits(
        AttestationService::attester(Arc::new(Guest)),
        ClientRule::AuthorizedPerCall,
        Purpose::Control,
        ServeLimits { headers: 1 << 10, ..ServeLimits::default() },
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_longer_than_its_limit_is_refused_and_one_below_it_is_answered() {
    let server = agent();
    let raw = Raw::connect(&server, Purpose::Control).await;
    for (filling, refused) in [(500, false), (3000, true)] {
        let mut request = request(Body::new(http_body_util::Full::new(challenge())));
        request.headers_mut().insert("filling", HeaderValue::from_str(&"f".repeat(filling)).unwrap());
        let mut channel = raw.channel.clone();
        let answered = timeout(WAIT, async { channel.ready().await?.call(request).await }).await.unwrap();
        let status = answered.map(|answer| answer.status());
        if refused {
            assert!(!matches!(status, Ok(StatusCode::OK)), "{filling}: {status:?}");
        } else {
            assert!(matches!(status, Ok(StatusCode::OK)), "{filling}: {status:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_evidence_says_a_challenge_and_no_more() {
    let server = agent();
    let raw = Raw::connect(&server, Purpose::Control).await;
    let call = begin(&raw.channel);
    call.pieces.send(framed(&vec![0; 64 << 10])).unwrap();
    drop(call.pieces);
    let answer = timeout(WAIT, call.answer).await.unwrap().unwrap().unwrap();
    let status = Status::from_header_map(answer.headers()).expect("refused in its first words");
    assert_eq!((status.code(), status.message()), (tonic::Code::ResourceExhausted, "message-too-large"));
    // The broker takes evidence, which is long.
    let broker = Server::broker(Arc::new(Credulous::default()));
    let mut raw = Raw::connect(&broker, Purpose::Kbs).await;
    let long = raw.attempt(|fields| {
        fields.sent_spec = vec![b' '; 40 << 10];
        fields.bound_workload = coffer_verifier::abi::WorkloadDigest::of(&fields.sent_spec);
        fields.host_data = *fields.bound_workload.as_bytes();
    });
    timeout(WAIT, long).await.unwrap().unwrap();
}

// On one thread calls come in the order in which they were made.
#[tokio::test]
async fn a_connection_has_one_message_on_its_way_and_the_next_when_that_is_done() {
    let server = agent();
    let raw = Raw::connect(&server, Purpose::Control).await;
    let message = challenge();
    let first = begin(&raw.channel);
    first.pieces.send(message.slice(..6)).unwrap();
    // Whole, and not looked at: the first one has its turn.
    let mut second = begin(&raw.channel);
    second.pieces.send(message.clone()).unwrap();
    drop(second.pieces);
    assert!(timeout(Duration::from_millis(500), &mut second.answer).await.is_err(), "two messages were read at once");
    // Another connection does not wait for it.
    let other = Raw::connect(&server, Purpose::Control).await;
    let third = begin(&other.channel);
    third.pieces.send(message.clone()).unwrap();
    drop(third.pieces);
    timeout(WAIT, third.answer).await.unwrap().unwrap().unwrap();

    first.pieces.send(message.slice(6..)).unwrap();
    drop(first.pieces);
    let answered = timeout(WAIT, first.answer).await.unwrap().unwrap().unwrap();
    // Its answer waits for its reader, and the next message with it.
    let body = timeout(WAIT, answered.into_body().collect()).await.unwrap().unwrap();
    assert!(body.to_bytes().len() > 1000);
    timeout(WAIT, second.answer).await.unwrap().unwrap().unwrap();
}

#[test]
fn the_most_that_is_kept_is_the_sum_of_its_parts() {
    let limits =
        ServeLimits { connections: 32, windows: (256 << 10, 512 << 10), headers: 2 << 10, ..ServeLimits::default() };
    assert_eq!(limits.most_memory(), 32 * ((512 << 10) + 64 * (2 << 10) + (192 << 10)));
}
