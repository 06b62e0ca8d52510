//! A host that sends what it may not, too much, and never the end of it.

use std::collections::BTreeSet;

use coffer_guest_proto::{METHODS, Shown, exec_client::ExecClient};
use hyper::body::{Bytes, Frame};
use tokio::{io::duplex, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, service::Routes, transport::Channel};
use tower::ServiceExt as _;

use super::*;
use crate::agent::{
    serve,
    tests::{World, channel, world},
};

/// Whatever a test waits for comes, or never does.
const LONG: Duration = Duration::from_mins(10);

async fn host(world: &World) -> Channel {
    let routes = Routes::new(serve::control(&world.agent, Door::Host));
    channel(routes.add_service(serve::exec(&world.agent, Door::Host))).await
}

fn prefix(length: u32) -> Bytes {
    Bytes::from([&[0][..], &length.to_be_bytes()].concat())
}

/// A request that begins so, and goes on as its sender says.
fn request(method: &str, begin: Bytes) -> (Request<Body>, mpsc::Sender<Result<Frame<Bytes>, Status>>) {
    let (sender, receiver) = mpsc::channel(4);
    sender.try_send(Ok(Frame::data(begin))).unwrap();
    let body = Body::new(http_body_util::StreamBody::new(ReceiverStream::new(receiver)));
    let request = Request::post(format!("http://guest.invalid{method}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    (request.body(body).unwrap(), sender)
}

async fn status(channel: &Channel, request: Request<Body>) -> (Code, String) {
    let answer = timeout(LONG, channel.clone().oneshot(request)).await.expect("an answer").unwrap();
    let status = Status::from_header_map(answer.headers()).expect("no more than a status");
    (status.code(), status.message().to_owned())
}

fn is_owners(method: &str) -> bool {
    method.starts_with("/coffer.agent.v1.Owner/")
}

#[test]
fn every_method_has_its_line_and_nothing_else_has() {
    for method in METHODS {
        assert!(needs(method).is_some(), "{method}");
    }
    for other in
        ["", "/", "/coffer.agent.v1.Control/", "/coffer.agent.v1.Control/state", "/coffer.agent.v1.Owner/Seal/"]
    {
        assert!(needs(other).is_none(), "{other}");
    }
}

#[test]
fn a_call_without_a_value_takes_no_turn_of_those_with_one() {
    let owners = METHODS.iter().filter(|method| is_owners(method));
    let (with, without): (Vec<_>, Vec<_>) = owners.partition(|method| has_value(method));
    let names = |methods: Vec<&&str>| {
        methods.iter().map(|it| it.rsplit('/').next().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(with), ["Inject", "Reseal", "Seal", "Unseal"].map(String::from).into());
    assert_eq!(names(without), ["Evidence", "Owners", "PutOwners", "Refresh"].map(String::from).into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_may_nothing_is_answered_before_its_request_has_come() {
    let world = world("none").await;
    let channel = host(&world).await;
    for method in METHODS.iter().filter(|method| !method.ends_with("/State")) {
        let (request, _goes_on) = request(method, prefix(4 << 20));
        let (code, words) = status(&channel, request).await;
        if is_owners(method) {
            assert_eq!(code, Code::Unimplemented, "{method}");
        } else {
            assert_eq!(code, Code::PermissionDenied, "{method}");
            assert!(words.starts_with("host-may-not:"), "{method}: {words}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_long_is_refused_at_its_length() {
    let world = world("stop,stats,logs,exec").await;
    let channel = host(&world).await;
    for method in METHODS.iter().filter(|method| !is_owners(method)) {
        let (request, _goes_on) = request(method, prefix(u32::try_from(START).unwrap() + 1));
        let (code, words) = status(&channel, request).await;
        assert_eq!((code, words.as_str()), (Code::OutOfRange, "request-too-long"), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_come_whole_end_and_keep_others_out_no_longer() {
    let world = world("exec").await;
    let short = Duration::from_millis(100);
    let routes = Routes::new(serve::control(&world.agent, Door::Host).within(short));
    let channel = channel(routes.add_service(serve::exec(&world.agent, Door::Host).within(short))).await;
    let mut halves = Vec::new();
    for method in ["/coffer.agent.v1.Exec/Run"; STARTING].iter().chain(&["/coffer.agent.v1.Control/Signal"]) {
        let (request, goes_on) = request(method, prefix(1000));
        let channel = channel.clone();
        halves.push((tokio::spawn(async move { status(&channel, request).await }), goes_on));
    }
    for (half, _goes_on) in halves {
        let (code, words) = half.await.unwrap();
        assert_eq!((code, words.as_str()), (Code::DeadlineExceeded, "request-late"));
    }
    // All places were taken, and are free again.
    let mut late = world;
    late.client = ExecClient::new(channel);
    timeout(LONG, late.attach(Shown::Not)).await.expect("an answer").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_hung_up_on_until_one_goes() {
    use tokio::io::AsyncReadExt as _;
    let world = world("none").await;
    let (sender, receiver) = mpsc::channel(1);
    let routes = Routes::new(serve::control(&world.agent, Door::Host));
    tokio::spawn(serve::take(ReceiverStream::new(receiver), 2, routes));
    let come = async || {
        let (near, far) = duplex(1 << 10);
        sender.send(Ok::<_, std::io::Error>(far)).await.unwrap();
        near
    };
    let (one, _other, mut more) = (come().await, come().await, come().await);
    let ended = timeout(LONG, more.read(&mut [0; 64])).await.expect("an end").unwrap();
    assert_eq!(ended, 0);
    drop(one);
    let spoken = async {
        loop {
            let mut again = come().await;
            // The server's settings, or its end.
            if again.read(&mut [0; 64]).await.unwrap() > 0 {
                break;
            }
        }
    };
    timeout(LONG, spoken).await.expect("a place");
}
