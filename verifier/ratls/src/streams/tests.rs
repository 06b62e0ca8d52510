//! What an end is, with the other end of HTTP/2 in the test's hand: END_STREAM, and nothing else.

use h2::Reason;
use http::Uri;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, DuplexStream, duplex},
    sync::mpsc,
};
use tonic::{service::Routes, transport::Endpoint};

use super::*;

const HALF: &[u8] = b"half of it";

/// How the other end ends after some bytes.
#[derive(Clone, Copy, Debug)]
enum End {
    Stream,
    Reset(Reason),
    Connection(Reason),
}

const ENDS: [End; 5] = [
    End::Stream,
    End::Reset(Reason::NO_ERROR),
    End::Reset(Reason::CANCEL),
    End::Connection(Reason::NO_ERROR),
    End::Connection(Reason::CANCEL),
];

/// Hands each stream's incoming direction on, and says how it ended.
#[derive(Clone)]
struct Taken(mpsc::UnboundedSender<(DuplexStream, bool)>);

impl NamedService for Taken {
    const NAME: &'static str = "coffer.ingress.v1.Ingress";
}

impl Service<Request<Body>> for Taken {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = core::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (said, leader) = (self.0.clone(), Leader::<DuplexStream>::new());
        let (body, _) = local::said(leader.local());
        tokio::spawn(async move {
            let (near, far) = duplex(64);
            let ended = into(near, &mut request.into_body()).await.is_ok();
            drop(leader);
            said.send((far, ended)).unwrap();
        });
        core::future::ready(Ok(Response::new(body)))
    }
}

#[tokio::test]
async fn a_client_ends_its_direction_by_saying_so_alone() {
    for end in ENDS {
        let (said, mut hears) = mpsc::unbounded_channel();
        let (client, server) = duplex(64 << 10);
        let incoming = tokio_stream::iter([Ok::<_, io::Error>(server)]);
        let served = tonic::transport::Server::builder().add_routes(Routes::new(Taken(said)));
        tokio::spawn(served.serve_with_incoming(incoming));
        let (requests, connection) = h2::client::handshake(client).await.unwrap();
        let mut driven = tokio::spawn(connection);
        let mut requests = requests.ready().await.unwrap();
        let request = Request::post(Uri::from_static("http://guest/coffer.ingress.v1.Ingress/Open")).body(()).unwrap();
        let (response, mut body) = requests.send_request(request, false).unwrap();
        let _response = response.await.unwrap();
        body.send_data(Bytes::from_static(HALF), false).unwrap();
        match end {
            End::Stream => body.send_data(Bytes::new(), true).unwrap(),
            End::Reset(reason) => {
                turns().await;
                body.send_reset(reason);
            }
            End::Connection(_) => {
                turns().await;
                driven.abort();
                let _ = (&mut driven).await;
            }
        }
        let (mut far, ended) = timeout(PATIENCE, hears.recv()).await.unwrap().unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert!(HALF.starts_with(&got), "{got:?}");
        assert_eq!(ended, matches!(end, End::Stream), "{end:?}");
        driven.abort();
    }
}

/// Some turns of the loop. What is sent, or is not, is the same to the test: nothing may be taken for an end.
async fn turns() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_ends_its_direction_by_saying_so_alone() {
    for end in ENDS {
        let (client, server) = duplex(64 << 10);
        let served = tokio::spawn(async move {
            let mut connection = h2::server::handshake(server).await.unwrap();
            let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(HALF), matches!(end, End::Stream)).unwrap();
            for _ in 0..64 {
                let _ = turn(&mut connection).await;
            }
            match end {
                End::Stream => {}
                End::Reset(reason) => body.send_reset(reason),
                End::Connection(reason) => connection.abrupt_shutdown(reason),
            }
            core::future::poll_fn(|cx| connection.poll_closed(cx)).await
        });
        let mut line = Some(TokioIo::new(client));
        let connector = tower::service_fn(move |_: Uri| core::future::ready(line.take().ok_or_else(broken)));
        let channel = Endpoint::from_static("http://guest").connect_with_connector(connector).await.unwrap();
        let stream = open_stream(channel).await.unwrap();
        let (near, mut far) = duplex(1 << 10);
        let (_kept, from) = duplex(1);
        let answered = timeout(PATIENCE, stream.until_answered(from, near)).await.unwrap();
        assert_eq!(answered.is_ok(), matches!(end, End::Stream), "{end:?}: {answered:?}");
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert!(HALF.starts_with(&got), "{got:?}");
        served.abort();
    }
}

/// One turn of a connection.
async fn turn<T: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut h2::server::Connection<T, Bytes>,
) -> Poll<Result<(), h2::Error>> {
    let polled = core::future::poll_fn(|cx| Poll::Ready(connection.poll_closed(cx))).await;
    tokio::task::yield_now().await;
    polled
}

/// What a local end says as long as somebody takes it, and what tells whether it was all.
fn endless() -> (Leader<tokio::io::Join<tokio::io::Repeat, tokio::io::Sink>>, Body) {
    let leader = Leader::new();
    leader.put(tokio::io::join(tokio::io::repeat(7), tokio::io::sink()));
    let body = local::said(leader.local()).0;
    (leader, body)
}

#[tokio::test]
async fn who_is_slow_has_so_many_pieces_before_it_and_gets_each_once() {
    let (_leader, mut body) = endless();
    let mut held = std::collections::VecDeque::new();
    for _ in 0..local::BUFFERS {
        held.push_back(body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    let mut waits = tokio::spawn(async move { body.frame().await.unwrap().unwrap().into_data().unwrap() });
    turns().await;
    assert!(!waits.is_finished(), "no more are read while all of these wait");
    let part = held.pop_front().unwrap();
    let rest = part.slice(1..);
    drop(part);
    turns().await;
    assert!(!waits.is_finished(), "somebody still has a part of it");
    drop(rest);
    let next = timeout(PATIENCE, &mut waits).await.expect("the one that came back is filled again").unwrap();
    assert!(held.iter().chain([&next]).all(|piece| piece.iter().all(|byte| *byte == 7)));
}

#[tokio::test]
async fn a_buffer_that_comes_back_says_nothing_of_what_it_held() {
    let (mut far, near) = duplex(1 << 10);
    let leader = Leader::new();
    leader.put(near);
    let (mut body, _) = local::said(leader.local());
    for said in [&b"a long word"[..], b"short", b"longer than that"] {
        tokio::io::AsyncWriteExt::write_all(&mut far, said).await.unwrap();
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(piece, said);
    }
}
