//! Owners who hold up others on purpose, at the port that init opens: each with one right, and none of them for long.

#[path = "../../tests/attacker_tls.rs"]
mod attacker_tls;
mod guests;

use std::time::Duration;

use attacker_tls::with_tickets;
use coffer_guest::peers::Road as _;
use coffer_guest_proto::{
    Attach, ExecRequest, OwnersRequest, Shown, exec_client::ExecClient, exec_request::Message as Ask,
    owner_client::OwnerClient,
};
use coffer_ratls::{ClientTls, Identity, PeerPin, Purpose, connect_listed};
use coffer_spec::{
    AuthorityKey, Owner, OwnerAuthority, OwnerList, OwnerMay, SignedOwnerList, Tee, WorkloadSpec, sample::workload,
};
use coffer_verifier::{P384PublicKey, UnixTime};
use guests::OwnersPort;
use http::{Request, Response};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};
use tokio::{net::UnixStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, body::Body, transport::Channel};

/// Whatever a test waits for comes, or never does.
const LONG: Duration = Duration::from_mins(3);

fn owner(identity: &Identity, may: &str) -> Owner {
    Owner { key: identity.spki(), may: OwnerMay::parse(may).unwrap() }
}

fn port_of<'a>(owners: impl IntoIterator<Item = (&'a Identity, &'a str)>) -> OwnersPort {
    let owners = owners.into_iter().map(|(identity, may)| owner(identity, may)).collect();
    OwnersPort::of(&WorkloadSpec { owners, ..workload(Tee::Simulated) })
}

async fn channel(port: &OwnersPort, identity: &Identity) -> Channel {
    let tls = ClientTls::new(identity, PeerPin::AttestedAfter, Purpose::Control).unwrap();
    connect_listed(port.road().open().await.unwrap(), &tls).await.unwrap().0
}

/// A connection whose client takes nothing of what is for it, and answers every ping.
struct Stuck {
    calls: hyper::client::conn::http2::SendRequest<Body>,
}

impl Stuck {
    async fn of(port: &OwnersPort, identity: &Identity) -> Self {
        let connector = with_tickets(identity, Purpose::Control.alpn()).await;
        let stream: UnixStream = port.road().open().await.unwrap();
        let stream = connector.connect("guest.invalid".try_into().unwrap(), stream).await.unwrap();
        let (calls, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(0)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { calls }
    }

    async fn call(&mut self, method: &str, body: Body) -> hyper::Result<Response<Incoming>> {
        let request = Request::post(format!("http://guest.invalid/coffer.agent.v1.{method}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        self.calls.ready().await?;
        self.calls.send_request(request.body(body).unwrap()).await
    }
}

/// A request without a field.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);

fn whole() -> Body {
    Body::new(http_body_util::Full::new(EMPTY))
}

/// One that comes as its sender says.
fn later() -> (mpsc::Sender<Result<Frame<Bytes>, Status>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Body::new(http_body_util::StreamBody::new(ReceiverStream::new(receiver))))
}

fn identities<const N: usize>() -> [Identity; N] {
    std::array::from_fn(|number| Identity::generate(&format!("owner {number}")).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_keep_no_turn_from_others() {
    let [me, others @ ..] = identities::<4>();
    let port = port_of([(&me, "exec")].into_iter().chain(others.iter().map(|other| (other, "logs"))));
    let mut stuck = Vec::new();
    for other in &others {
        let mut connection = Stuck::of(&port, other).await;
        let answer = connection.call("Owner/Owners", whole()).await.unwrap();
        stuck.push((connection, answer));
    }
    let mut mine = OwnerClient::new(channel(&port, &me).await);
    let answered = timeout(LONG, mine.owners(OwnersRequest {})).await.expect("an answer");
    assert!(answered.is_ok(), "{answered:?}");
    // Whoever took nothing was hung up on: what was for him is nowhere any more.
    for (mut connection, _answer) in stuck {
        let again = connection.call("Owner/Owners", whole()).await;
        assert!(again.is_err(), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_never_come_keep_no_turn_from_others() {
    let [me, other] = identities::<2>();
    let port = port_of([(&me, "attach"), (&other, "top")]);
    let mut halves = Vec::new();
    for _ in 0..4 {
        let connection = Stuck::of(&port, &other).await;
        for _ in 0..4 {
            let (calls, (sender, body)) = (connection.calls.clone(), later());
            halves.push(tokio::spawn(async move {
                let _never = sender;
                Stuck { calls }.call("Exec/Run", body).await
            }));
        }
    }
    // They have come before this does.
    while port.agent.events.age_us() < 2_000_000 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut mine = ExecClient::new(channel(&port, &me).await);
    let attach = Ask::Attach(Attach { shown: Shown::Not.into(), ..Attach::default() });
    let asks = tokio_stream::once(ExecRequest { message: Some(attach) });
    let answered = timeout(LONG, mine.run(asks)).await.expect("an answer");
    // It is not its turn that was missing.
    assert!(answered.as_ref().map_or_else(|status| status.code() != Code::ResourceExhausted, |_| true), "{answered:?}");
    for half in halves {
        half.abort();
    }
}

/// A list that this key signed.
fn list(key: &SigningKey, public: &P384PublicKey, sequence: u64, owners: Vec<Owner>) -> Vec<u8> {
    let expires = UnixTime::from_secs(4_000_000_000);
    let envelope = SignedOwnerList::of(&OwnerList { name: "prod".parse().unwrap(), sequence, expires, owners });
    let signature: Signature = key.sign(&envelope.signing_input());
    envelope.with_signature(public, signature.to_bytes().into()).to_json().into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_judged_by_the_list_that_counts_when_it_has_come() {
    let key = SigningKey::from_slice(&[5; 48]).unwrap();
    let public = P384PublicKey::from_sec1(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
    let authority =
        OwnerAuthority { key: AuthorityKey(public), name: "prod".parse().unwrap(), sequence: 0, kept: None };
    let [listed, of_spec] = identities::<2>();
    let port = OwnersPort::of(&WorkloadSpec {
        owners: vec![owner(&of_spec, "logs")],
        owner_authority: Some(authority),
        ..workload(Tee::Simulated)
    });
    for delisted in [false, true] {
        let sequence = u64::from(delisted) * 2 + 1;
        port.agent.owners.brought(&list(&key, &public, sequence, vec![owner(&listed, "logs")])).unwrap();
        let (sender, body) = later();
        let mut connection = Stuck::of(&port, &listed).await;
        let answer = tokio::spawn(async move { (connection.call("Control/Stop", body).await, connection) });
        // Its head has come.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!answer.is_finished(), "its message has not");
        if delisted {
            port.agent.owners.brought(&list(&key, &public, sequence + 1, Vec::new())).unwrap();
        }
        sender.send(Ok(Frame::data(EMPTY))).await.unwrap();
        drop(sender);
        let (answer, _connection) = timeout(LONG, answer).await.expect("an answer").unwrap();
        let refused = Status::from_header_map(answer.unwrap().headers());
        let word = refused.as_ref().map(|status| (status.code(), status.message()));
        assert_eq!(word, delisted.then_some((Code::PermissionDenied, "owner-not-listed")));
    }
}
