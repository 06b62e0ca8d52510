//! gRPC below its messages: frames and streams as no library of gRPC sends them. Each ends with a status, and nothing stays behind.

use std::io::{Read as _, Write as _};
use std::slice;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coffer_verifier_service::wire::{Any, appraise_request::Demanded};
use h2::client::SendRequest;
use http::header::HeaderMap;
use tokio::net::TcpStream;
use tonic_prost::prost::Message as _;

use crate::grpc::wanted;
use crate::process::Served;

const PROTO: &str = "application/grpc";
const APPRAISE: &str = "/coffer.verifier.v1.Verifier/Appraise";

/// What it is called, its headers, its body in pieces, and what it ends with.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, Vec<Vec<u8>>, Ended);

/// What a call ended with: the status of HTTP, and that of gRPC where there was one.
type Ended = (u16, Option<i32>);

async fn connect(address: &str) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn head(key: &str, path: &str, more: &[(&str, &str)]) -> http::Request<()> {
    let mut request = http::Request::post(format!("http://127.0.0.1{path}")).header("te", "trailers");
    request = request.header("authorization", format!("Bearer {key}"));
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// Sends these pieces, and that there are no more.
async fn call(sender: &SendRequest<Bytes>, head: http::Request<()>, pieces: &[Vec<u8>]) -> Result<Ended, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let (response, mut body) = sender.send_request(head, pieces.is_empty())?;
    for (at, piece) in pieces.iter().enumerate() {
        // Whoever answers early may have closed the stream.
        if body.send_data(piece.clone().into(), at + 1 == pieces.len()).is_err() {
            break;
        }
    }
    ended(response).await
}

async fn ended(response: h2::client::ResponseFuture) -> Result<Ended, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let status = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
    let mut said = status(&head.headers);
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    if let Some(trailers) = body.trailers().await? {
        said = said.or(status(&trailers));
    }
    Ok((head.status.as_u16(), said))
}

fn frame(flag: u8, length: usize, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&[flag], &length[..], message].concat()
}

const INVALID: Ended = (200, Some(3));
const OUT_OF_RANGE: Ended = (200, Some(11));
const UNIMPLEMENTED: Ended = (200, Some(12));

#[test]
fn frames_that_are_none_get_a_status_each_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let asking = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let good = wanted([5; 64], Some(Demanded::Any(Any {}))).encode_to_vec();
    let whole = frame(0, good.len(), &good);
    let long = vec![0; (2 << 20) + 1];
    let typed = |name: &'static str| vec![("content-type", name)];
    let packed = |how: &'static str| vec![("content-type", PROTO), ("grpc-encoding", how)];
    let type_of = [
        None,
        Some("application/json"),
        Some("application/grpc-web"),
        Some("application/grpc+json"),
        Some("text/plain"),
    ];
    let mut cases: Vec<Case<'_>> = vec![
        ("a good one", typed(PROTO), vec![whole.clone()], (200, Some(0))),
        ("a good one by its full name", typed("application/grpc+proto"), vec![whole.clone()], (200, Some(0))),
        ("a good one in pieces", typed(PROTO), whole.chunks(7).map(<[u8]>::to_vec).collect(), (200, Some(0))),
        ("no message", typed(PROTO), vec![], INVALID),
        ("an empty message", typed(PROTO), vec![frame(0, 0, b"")], INVALID),
        ("half a head", typed(PROTO), vec![vec![0, 0, 0]], INVALID),
        ("a head alone", typed(PROTO), vec![frame(0, good.len(), b"")], INVALID),
        ("half a message", typed(PROTO), vec![whole[..whole.len() / 2].to_vec()], INVALID),
        ("a message of which the head says less", typed(PROTO), vec![frame(0, good.len() - 1, &good)], INVALID),
        ("a message of which the head says more", typed(PROTO), vec![frame(0, good.len() + 1, &good)], INVALID),
        ("compressed, and not said how", typed(PROTO), vec![frame(1, good.len(), &good)], INVALID),
        ("compressed with what is not here", packed("gzip"), vec![frame(1, good.len(), &good)], UNIMPLEMENTED),
        ("compressed with what is nothing", packed("nosuch"), vec![frame(1, good.len(), &good)], UNIMPLEMENTED),
        ("a flag that is none", typed(PROTO), vec![frame(2, good.len(), &good)], INVALID),
        ("all flags", typed(PROTO), vec![frame(255, good.len(), &good)], INVALID),
        ("four GiB, says the head", typed(PROTO), vec![frame(0, u32::MAX as usize, b"x")], OUT_OF_RANGE),
        ("longer than a request may be", typed(PROTO), vec![frame(0, long.len(), &long)], OUT_OF_RANGE),
        ("no gRPC at all", typed(PROTO), vec![b"{\"evidence\":\"\"}".to_vec()], INVALID),
    ];
    for name in type_of {
        let head = name.map(|name| ("content-type", name)).into_iter().collect();
        cases.push(("another type", head, vec![whole.clone()], (415, None)));
    }
    let (mut refused, mut warm) = (0, 0);
    asking.block_on(async {
        let sender = connect(&served.address).await;
        for round in 0..200 {
            for (name, more, pieces, wanted) in &cases {
                let head = head(&served.key, APPRAISE, more);
                let said = call(&sender, head, pieces).await;
                let said = said.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(said, *wanted, "{name} {:?}", more.first());
                refused += u64::from(*wanted != (200, Some(0)));
            }
            if round == 20 {
                warm = served.resident();
            }
        }
        let unknown = head(&served.key, "/coffer.verifier.v1.Verifier/Nosuch", &typed(PROTO));
        assert_eq!(call(&sender, unknown, slice::from_ref(&whole)).await.unwrap(), UNIMPLEMENTED);
        let stranger = head("nobody", APPRAISE, &typed(PROTO));
        assert_eq!(call(&sender, stranger, slice::from_ref(&whole)).await.unwrap(), (200, Some(16)));
    });
    let grown = served.resident().saturating_sub(warm);
    assert!(grown < 16 << 10, "{grown} kB more than after the first rounds");
    let appraisals = 600;
    let others = served.log().lines().filter(|line| !line.contains("accepted")).count();
    assert!(others < 5 && served.log().lines().count() <= appraisals + 5, "{}", served.log());
    let figures = served.figures();
    let counted = format!("coffer_verifier_requests_refused_total{{why=\"request\"}} {}\n", refused + 1);
    assert!(figures.contains(&counted), "{counted}{figures}");
}

#[test]
fn streams_that_are_begun_and_not_ended_end_by_themselves_and_their_places_are_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::with(folder.path(), |file| file.limits.request_seconds = 2);
    let asking = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let good = wanted([5; 64], Some(Demanded::Any(Any {}))).encode_to_vec();
    let whole = frame(0, good.len(), &good);
    let unavailable: Ended = (200, Some(14));
    asking.block_on(async {
        // More than there are places, on several connections: each begins a message and says no more.
        let mut open = Vec::new();
        for _ in 0..8 {
            let sender = connect(&served.address).await;
            for _ in 0..20 {
                let mut ready = sender.clone().ready().await.unwrap();
                let request = head(&served.key, APPRAISE, &[("content-type", PROTO)]);
                let (response, mut body) = ready.send_request(request, false).unwrap();
                body.send_data(whole[..whole.len() - 1].to_vec().into(), false).unwrap();
                open.push((response, body));
            }
        }
        let begun = Instant::now();
        for (response, _body) in open {
            assert_eq!(ended(response).await.unwrap(), unavailable);
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        // Begun and taken back at once, again and again: who does that is hung up on, and nobody else.
        let before = served.resident();
        for _ in 0..40 {
            let sender = connect(&served.address).await;
            for _ in 0..500 {
                let Ok(mut ready) = sender.clone().ready().await else { break };
                let request = head(&served.key, APPRAISE, &[("content-type", PROTO)]);
                let Ok((_, mut body)) = ready.send_request(request, false) else { break };
                body.send_reset(h2::Reason::CANCEL);
            }
        }
        let sender = connect(&served.address).await;
        let request = head(&served.key, APPRAISE, &[("content-type", PROTO)]);
        assert_eq!(call(&sender, request, slice::from_ref(&whole)).await.unwrap(), (200, Some(0)));
        let grown = served.resident().saturating_sub(before);
        assert!(grown < 16 << 10, "{grown} kB more");
    });
    assert!(served.log().lines().count() < 6, "{}", served.log());
    assert!(served.figures().contains("coffer_verifier_requests 1\n"), "this one alone: {}", served.figures());
}

/// A frame of HTTP/2 (RFC 9113 §4.1), on stream 0 or 1.
fn h2_frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// One more frame, if there is one: its kind. What is in it is read over.
fn come(reading: &mut std::net::TcpStream) -> Option<u8> {
    let mut head = [0; 9];
    reading.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    std::io::copy(&mut reading.take(length.into()), &mut std::io::sink()).ok()?;
    Some(head[3])
}

/// Asks what everybody may ask, and once all have their answers sends what has to be read over, without a pause, until it is hung up on.
fn flood(address: &str, all: &std::sync::Barrier) {
    const HEADERS: u8 = 1;
    let mut line = std::net::TcpStream::connect(address).unwrap();
    // GET /healthz, in HPACK's static table (RFC 7541, appendix A).
    let path = b"/healthz";
    let asked = [&[0x82, 0x86, 0x41, 1, b'a', 0x44, path.len() as u8][..], path].concat();
    line.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    line.write_all(&[h2_frame(4, 0, 0, &[]), h2_frame(1, 5, 1, &asked)].concat()).unwrap();
    let mut reading = line.try_clone().unwrap();
    reading.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // Frames of no known kind (RFC 9113 §5.5).
    let frames = h2_frame(0xFF, 0, 0, &[]).repeat(50_000);
    let answered = std::iter::from_fn(|| come(&mut reading)).any(|kind| kind == HEADERS);
    all.wait();
    assert!(answered);
    let begun = Instant::now();
    let flooding =
        std::thread::spawn(
            move || {
                while begun.elapsed() < Duration::from_secs(40) && line.write_all(&frames).is_ok() {}
            },
        );
    let kinds: Vec<u8> = std::iter::from_fn(|| come(&mut reading)).collect();
    // Due after 3 seconds (it is told to come to its end, if it reads that far) and after 5 (it does not).
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}: {kinds:?}", begun.elapsed());
    flooding.join().unwrap();
}

#[test]
fn strangers_who_never_pause_are_hung_up_on_as_one_who_does() {
    const FLOODS: usize = 6;
    let folder = tempfile::tempdir().unwrap();
    let served = Served::with(folder.path(), |file| {
        file.limits.head_seconds = 1;
        file.limits.request_seconds = 1;
    });
    let all = std::sync::Barrier::new(FLOODS);
    std::thread::scope(|scope| {
        let floods = [(); FLOODS].map(|()| scope.spawn(|| flood(&served.address, &all)));
        for flood in floods {
            flood.join().unwrap();
        }
    });
}
