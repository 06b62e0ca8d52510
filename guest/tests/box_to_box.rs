//! Two guests that talk to each other: each is the one that the other's spec names, on this very connection, or not a byte goes through.

mod guests;

use std::{io, sync::Arc, time::Duration};

use coffer_guest::peers::Road;
use coffer_ratls::{
    AttestationService, Attester, AttesterError, ClientRule, ConnectError, Dial as _, Identity, Purpose, ServeLimits,
    ServerTls, StreamError, StreamRefusal, connect_and_verify, open_stream,
};
use coffer_spec::{Guests, IngressClients, Measured, Tee, sample::workload};
use coffer_verifier::{
    abi::{Measurement, ReportData, WorkloadDigest},
    evidence::Evidence,
};
use guests::{
    CLIENT, Client, Credulous, DEBUG, Kept, Launch, SERVER, Server, ToSocket, WAIT, believed, client_spec, dialler,
    guests_alone, says, signed, text,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::TcpStream,
    runtime::Handle,
    time::timeout,
};
use tonic::service::Routes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_name_each_other_by_author_talk_both_ways() {
    let server = Server::start(SERVER, guests_alone(CLIENT)).await;
    // A later version of either is as good.
    let client = Client::to(&server, Launch { svn: 6, ..CLIENT }, signed(SERVER)).await;
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    let (small, many) = tokio::join!(client.ask(b"hello"), client.ask(&large));
    assert_eq!(small.unwrap(), b"hello");
    assert!(many.unwrap() == large);
    let said = [text(&client.logs).await, text(&server.logs).await];
    assert_eq!((server.streams(), said), (2, [String::new(), String::new()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_for_anyone_may_be_a_peer_that_is_named_by_its_measurement() {
    let unsigned = Launch { author: None, ..SERVER };
    let server = Server::start(unsigned, IngressClients::Anyone).await;
    let guests = |measured| believed(Guests { measured: vec![measured], ..Guests::default() });
    let client = Client::to(&server, CLIENT, guests(server.guest.measured())).await;
    assert_eq!(client.ask(b"hello").await.unwrap(), b"hello");

    let other = unsigned.start(&workload(Tee::Simulated)).measured();
    for wrong in [
        Measured { measurement: Measurement::new([7; 48]), ..server.guest.measured() },
        Measured { workload: other.workload, ..server.guest.measured() },
    ] {
        Client::to(&server, CLIENT, guests(wrong))
            .await
            .is_refused(&["not admitted", "measurement-and-workload"])
            .await;
    }
    let nobodys = Guests { simulators: Vec::new(), ..guests(server.guest.measured()) };
    Client::to(&server, CLIENT, nobodys).await.is_refused(&["not admitted", "untrusted-root"]).await;
    assert_eq!(server.streams(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_another_one_gets_not_a_byte() {
    for (wrong, word) in [
        (Launch { family: 9, ..SERVER }, "signer"),
        (Launch { image: 9, ..SERVER }, "signer"),
        (Launch { svn: 4, ..SERVER }, "signer"),
        (Launch { author: Some(0x22), ..SERVER }, "signer"),
        (Launch { author: None, ..SERVER }, "signer"),
        (Launch { policy: SERVER.policy | DEBUG, ..SERVER }, "debug"),
        (Launch { kept: Kept::Behind, ..SERVER }, "tcb"),
        (Launch { kept: Kept::Unchecked, ..SERVER }, "alias_check_complete"),
    ] {
        let server = Server::start(wrong, guests_alone(CLIENT)).await;
        let client = Client::to(&server, CLIENT, signed(SERVER)).await;
        client.is_refused(&["coffer: peer db: it is not admitted", word]).await;
        assert_eq!(server.streams(), 0, "{word}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_another_guest_is_told_so_and_gets_no_stream() {
    for (wrong, word) in [
        (Launch { family: 9, ..CLIENT }, "signer"),
        (Launch { svn: 4, ..CLIENT }, "signer"),
        (Launch { author: Some(0x22), ..CLIENT }, "signer"),
        (Launch { author: None, ..CLIENT }, "signer"),
        (Launch { policy: CLIENT.policy | DEBUG, ..CLIENT }, "debug"),
        (Launch { kept: Kept::Behind, ..CLIENT }, "tcb"),
    ] {
        let server = Server::start(SERVER, guests_alone(CLIENT)).await;
        let client = Client::to(&server, wrong, signed(SERVER)).await;
        client.is_refused(&["it does not admit this guest", word]).await;
        says(&server.logs, &["a client was refused", word]).await;
        assert_eq!(server.streams(), 0, "{word}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_no_evidence_or_old_evidence_gets_no_stream_of_a_port_for_guests() {
    let server = Server::start(SERVER, guests_alone(CLIENT)).await;
    let connect = async || {
        let line = server.road().open().await.unwrap();
        let me = Identity::generate("me").unwrap();
        connect_and_verify(line, &me, Purpose::Ingress(server.port), Arc::new(Credulous::default())).await.unwrap()
    };
    let connection = connect().await;
    let stream = open_stream::<DuplexStream>(connection.channel()).await.err();
    assert!(matches!(stream, Some(StreamError::Refused(StreamRefusal::NotAdmitted))), "{stream:?}");

    // Evidence of a guest that is admitted, made for another connection.
    let genuine = CLIENT.start(&client_spec(server.port, signed(SERVER)));
    let replayed = Replayed(genuine.evidence(&ReportData::new([9; 64])).unwrap());
    let refused = connection.attesting(Arc::new(replayed)).await.err();
    assert!(matches!(&refused, Some(ConnectError::Refused(denial)) if denial.code == "report-data"), "{refused:?}");

    // And the peer's own, turned round: made for this connection, by whoever answers on it.
    let own = server.guest.clone();
    let connection = connect().await;
    let refused = connection.attesting(own).await.err();
    assert!(matches!(&refused, Some(ConnectError::Refused(_))), "{refused:?}");
    assert_eq!(server.streams(), 0);
}

struct Replayed(Evidence);

impl Attester for Replayed {
    fn evidence(&self, _: &ReportData) -> Result<Evidence, AttesterError> {
        Ok(self.0.clone())
    }

    fn workload(&self) -> WorkloadDigest {
        WorkloadDigest::of(&self.0.workload_spec)
    }
}

/// A man in the middle: ends TLS himself, and for each challenge asks the genuine guest on a connection of his own.
struct Relay {
    road: ToSocket,
    port: u16,
    workload: WorkloadDigest,
    runtime: Handle,
}

impl Attester for Relay {
    fn evidence(&self, _: &ReportData) -> Result<Evidence, AttesterError> {
        let asked = async {
            let line = self.road.open().await.unwrap();
            let (me, seen) = (Identity::generate("man").unwrap(), Arc::new(Credulous::default()));
            connect_and_verify(line, &me, Purpose::Ingress(self.port), seen.clone()).await.unwrap();
            seen.0.lock().unwrap().take().unwrap()
        };
        Ok(self.runtime.block_on(asked))
    }

    fn workload(&self) -> WorkloadDigest {
        self.workload
    }
}

/// Each connection is a pipe to somebody of the test's.
struct Pipes(tokio::sync::mpsc::UnboundedSender<io::Result<DuplexStream>>);

impl Road for Pipes {
    type Io = DuplexStream;

    async fn open(&self) -> io::Result<DuplexStream> {
        let (near, far) = duplex(64 << 10);
        self.0.send(Ok(far)).map_err(io::Error::other)?;
        Ok(near)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_man_in_the_middle_who_relays_the_genuine_guest_is_refused() {
    let server = Server::start(SERVER, IngressClients::Anyone).await;
    let (port, workload) = (server.port, server.guest.workload());
    let relay = Relay { road: server.road(), port, workload, runtime: Handle::current() };
    let (sender, incoming) = tokio::sync::mpsc::unbounded_channel();
    let identity = Identity::generate("man").unwrap();
    let tls = ServerTls::new(&identity, ClientRule::AuthorizedPerCall, Purpose::Ingress(port)).unwrap();
    tokio::spawn(coffer_ratls::serve(
        tokio_stream::wrappers::UnboundedReceiverStream::new(incoming),
        tls,
        AttestationService::attester(Arc::new(relay)),
        Routes::default(),
        ServeLimits::default(),
        std::future::pending(),
    ));
    let client = Client::start(dialler(Pipes(sender), CLIENT, port, signed(SERVER)), 8).await;
    client.is_refused(&["not admitted", "report-data"]).await;
    // The same road without him is good.
    assert_eq!(Client::to(&server, CLIENT, signed(SERVER)).await.ask(b"hello").await.unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_swaps_the_address_leads_to_a_refusal_by_name() {
    let (server, other) =
        tokio::join!(Server::start(SERVER, guests_alone(CLIENT)), Server::start(SERVER, guests_alone(CLIENT)));
    // Another port of the right guest: its connections are for another purpose.
    let client = Client::start(dialler(other.road(), CLIENT, server.port, signed(SERVER)), 8).await;
    client.is_refused(&["coffer: peer db: "]).await;
    assert_eq!((server.streams(), other.streams()), (0, 0));
    // Nowhere.
    let nowhere = ToSocket("/nonexistent".into(), 1);
    let client = Client::start(dialler(nowhere, CLIENT, server.port, signed(SERVER)), 8).await;
    client.is_refused(&["unreachable"]).await;
}

#[tokio::test]
async fn a_peer_or_a_host_that_hangs_is_given_up() {
    struct Nothing;
    impl Road for Nothing {
        type Io = DuplexStream;
        async fn open(&self) -> io::Result<DuplexStream> {
            std::future::pending().await
        }
    }
    let brief = Duration::from_millis(50);
    let error = dialler(Nothing, CLIENT, 80, signed(SERVER)).within(brief).dial().await.err().unwrap();
    assert!(error.to_string().starts_with("no-answer"), "{error}");
    let (sender, mut far) = tokio::sync::mpsc::unbounded_channel();
    let client = Client::start(dialler(Pipes(sender), CLIENT, 80, signed(SERVER)).within(brief), 8).await;
    client.is_refused(&["no-answer"]).await;
    assert!(far.recv().await.is_some(), "it was dialled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_there_may_be_are_refused_and_the_others_stay() {
    let server = Server::start(SERVER, guests_alone(CLIENT)).await;
    let client = Client::start(dialler(server.road(), CLIENT, server.port, signed(SERVER)), 2).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(client.at).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(timeout(WAIT, stream.read_u8()).await.unwrap().unwrap(), b'x');
        open.push(stream);
    }
    client.is_refused(&["too-many"]).await;
    for stream in &mut open {
        stream.write_all(b"y").await.unwrap();
        assert_eq!(timeout(WAIT, stream.read_u8()).await.unwrap().unwrap(), b'y');
    }
    // Places come back, on the same connection.
    drop(open);
    let free = async {
        while client.ask(b"hello").await.ok().as_deref() != Some(b"hello") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WAIT, free).await.unwrap();
}
