//! Streams of bytes on attested connections: what goes in comes out, what breaks off is known to have broken off, and nobody has one
//! who asked for no evidence.

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coffer_ratls::{
    AttestationService, AttestedConnection, Behind, ClientRule, ConnectError, ConnectionState, Identity, OpenStream,
    Pace, Purpose, ServeLimits, StreamError, StreamRefusal, Streams, connect_and_verify, open_stream,
};
use common::{Credulous, Guest, Raw, Server};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::mpsc,
    time::timeout,
};
use tonic::service::Routes;

const PORT: u16 = 8080;
const WAIT: Duration = Duration::from_secs(20);

/// A workload whose far ends the test holds.
struct Workload {
    far: mpsc::UnboundedSender<DuplexStream>,
    broken: Arc<AtomicBool>,
    refuse: Arc<Mutex<Option<StreamRefusal>>>,
}

impl Behind for Workload {
    type Io = DuplexStream;
    type Place = Arc<AtomicBool>;

    async fn open(&self, _: &ConnectionState) -> Result<(DuplexStream, Arc<AtomicBool>), StreamRefusal> {
        if let Some(refusal) = *self.refuse.lock().unwrap() {
            return Err(refusal);
        }
        let (near, far) = duplex(64 << 10);
        self.far.send(far).unwrap();
        Ok((near, self.broken.clone()))
    }

    fn break_off(_: DuplexStream, broken: Arc<AtomicBool>) {
        broken.store(true, Ordering::SeqCst);
    }
}

struct Ingress {
    server: Server,
    workloads: mpsc::UnboundedReceiver<DuplexStream>,
    broken: Arc<AtomicBool>,
    refuse: Arc<Mutex<Option<StreamRefusal>>>,
}

impl Ingress {
    fn start() -> Self {
        let (far, workloads) = mpsc::unbounded_channel();
        let (broken, refuse) = (Arc::default(), Arc::default());
        let behind = Workload { far, broken: Arc::clone(&broken), refuse: Arc::clone(&refuse) };
        let server = Server::with_services(
            AttestationService::attester(Arc::new(Guest)),
            ClientRule::AuthorizedPerCall,
            Purpose::Ingress(PORT),
            ServeLimits::default(),
            Routes::new(Streams::new(behind)),
        );
        Self { server, workloads, broken, refuse }
    }

    async fn connect(&self) -> AttestedConnection<usize> {
        self.connect_over(self.server.dial()).await
    }

    async fn connect_over(&self, line: DuplexStream) -> AttestedConnection<usize> {
        let identity = Identity::generate("client").unwrap();
        let appraiser = Arc::new(Credulous::default());
        connect_and_verify(line, &identity, Purpose::Ingress(PORT), appraiser).await.unwrap()
    }

    async fn open(&mut self) -> (AttestedConnection<usize>, OpenStream<DuplexStream>, DuplexStream) {
        let connection = self.connect().await;
        let stream = open_stream(connection.channel()).await.unwrap();
        let workload = self.workloads.recv().await.unwrap();
        (connection, stream, workload)
    }

    async fn is_told_of_a_break(&self) {
        let told = async {
            while !self.broken.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(WAIT, told).await.expect("the workload's end was not broken off");
    }
}

fn bytes(seed: u8, count: usize) -> Vec<u8> {
    (0..count).map(|at| u8::try_from(at % 251).unwrap() ^ seed).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_come_through_whole_and_each_ends_by_itself() {
    let mut ingress = Ingress::start();
    let (_connection, mut stream, workload) = ingress.open().await;
    let (client, near) = duplex(64 << 10);
    let joined = tokio::spawn(async move { stream.join(near).await });
    let (mut client_in, mut client_out) = tokio::io::split(client);
    let (mut workload_in, mut workload_out) = tokio::io::split(workload);
    let (there, back) = (bytes(1, 5 << 20), bytes(2, 3 << 20));
    let (sent, answered) = (there.clone(), back.clone());
    // The client ends its direction before the workload says a word.
    let ended = tokio::spawn(async move {
        client_out.write_all(&sent).await.unwrap();
        client_out.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    timeout(WAIT, workload_in.read_to_end(&mut got)).await.unwrap().unwrap();
    assert!(got == there, "{} of {} bytes", got.len(), there.len());
    ended.await.unwrap();
    let said = tokio::spawn(async move {
        workload_out.write_all(&answered).await.unwrap();
        workload_out.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    timeout(WAIT, client_in.read_to_end(&mut got)).await.unwrap().unwrap();
    assert!(got == back, "{} of {} bytes", got.len(), back.len());
    said.await.unwrap();
    assert!(timeout(WAIT, joined).await.unwrap().unwrap().is_ok());
    assert!(!ingress.broken.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_streams_of_one_connection_do_not_meet() {
    let mut ingress = Ingress::start();
    let connection = ingress.connect().await;
    let mut pairs = Vec::new();
    for number in 0..8_u8 {
        let mut stream = open_stream(connection.channel()).await.unwrap();
        let workload = ingress.workloads.recv().await.unwrap();
        let (client, near) = duplex(64);
        tokio::spawn(async move { stream.join(near).await });
        pairs.push((number, client, workload));
    }
    for (number, client, _) in &mut pairs {
        client.write_all(&[*number; 100]).await.unwrap();
    }
    for (number, _, workload) in &mut pairs {
        let mut got = [0; 100];
        timeout(WAIT, workload.read_exact(&mut got)).await.unwrap().unwrap();
        assert_eq!(got, [*number; 100]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_is_no_end_on_either_side() {
    // The client goes away in the middle.
    let mut ingress = Ingress::start();
    let (_connection, mut stream, mut workload) = ingress.open().await;
    let (mut client, near) = duplex(64);
    let joined = tokio::spawn(async move { stream.join(near).await });
    client.write_all(b"half of it").await.unwrap();
    let mut got = [0; 10];
    workload.read_exact(&mut got).await.unwrap();
    joined.abort();
    ingress.is_told_of_a_break().await;

    // The connection does.
    ingress.broken.store(false, Ordering::SeqCst);
    let (line, mut there) = duplex(64 << 10);
    let mut here = ingress.server.dial();
    let line_of_the_host = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut there, &mut here).await });
    let connection = ingress.connect_over(line).await;
    let mut stream = open_stream(connection.channel()).await.unwrap();
    let mut workload = ingress.workloads.recv().await.unwrap();
    let (mut client, near) = duplex(64);
    let joined = tokio::spawn(async move { stream.join(near).await });
    client.write_all(b"half of it").await.unwrap();
    workload.read_exact(&mut got).await.unwrap();
    line_of_the_host.abort();
    ingress.is_told_of_a_break().await;
    let lost = timeout(WAIT, joined).await.unwrap().unwrap();
    assert!(lost.is_err(), "the client took the loss of its connection for the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_fails_resets_its_client() {
    struct Failing;
    impl Behind for Failing {
        type Io = tokio::io::Join<failing::Fails, tokio::io::Sink>;
        type Place = ();
        async fn open(&self, _: &ConnectionState) -> Result<(Self::Io, ()), StreamRefusal> {
            Ok((tokio::io::join(failing::Fails(false), tokio::io::sink()), ()))
        }
        fn break_off(_: Self::Io, (): ()) {}
    }
    let server = Server::with_services(
        AttestationService::attester(Arc::new(Guest)),
        ClientRule::AuthorizedPerCall,
        Purpose::Ingress(PORT),
        ServeLimits::default(),
        Routes::new(Streams::new(Failing)),
    );
    let identity = Identity::generate("client").unwrap();
    let connection =
        connect_and_verify(server.dial(), &identity, Purpose::Ingress(PORT), Arc::new(Credulous::default()))
            .await
            .unwrap();
    for answered in [false, true] {
        let mut stream = match open_stream(connection.channel()).await {
            Ok(stream) => stream,
            // The reset was faster than the word that it is open.
            Err(StreamError::Broke(_)) => continue,
            Err(other) => panic!("{other}"),
        };
        let (mut client, near) = duplex(1 << 10);
        let broken = if answered {
            let (_kept, from) = duplex(1);
            timeout(WAIT, stream.until_answered(from, near)).await.unwrap().is_err()
        } else {
            timeout(WAIT, stream.join(near)).await.unwrap().is_err()
        };
        assert!(broken, "answered: {answered}");
        // Maybe what came before the failure, and no more.
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert!(got.is_empty() || got == b"begun", "{got:?}");
    }
}

/// A reader that says a word and fails.
mod failing {
    use std::{
        io,
        pin::Pin,
        task::{Context, Poll},
    };

    pub struct Fails(pub bool);

    impl tokio::io::AsyncRead for Fails {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            buf.put_slice(b"begun");
            Poll::Ready(Ok(()))
        }
    }
}

#[tokio::test]
async fn nobody_has_a_stream_who_asked_for_no_evidence() {
    let mut ingress = Ingress::start();
    let raw = Raw::connect(&ingress.server, Purpose::Ingress(PORT)).await;
    let refused = open_stream::<DuplexStream>(raw.channel.clone()).await.err().unwrap();
    assert!(matches!(refused, StreamError::Refused(StreamRefusal::AttestationRequired)), "{refused}");
    assert!(ingress.workloads.try_recv().is_err(), "the workload was reached all the same");
}

#[tokio::test]
async fn each_refusal_comes_as_its_word() {
    let ingress = Ingress::start();
    let connection = ingress.connect().await;
    for refusal in [StreamRefusal::NotAdmitted, StreamRefusal::PortClosed, StreamRefusal::TooMany] {
        *ingress.refuse.lock().unwrap() = Some(refusal);
        match open_stream::<DuplexStream>(connection.channel()).await {
            Err(StreamError::Refused(found)) => assert_eq!(found, refusal),
            other => panic!("{:?}", other.map(drop)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_slow_holds_its_writer() {
    let mut ingress = Ingress::start();
    let (_connection, mut stream, mut workload) = ingress.open().await;
    let (mut client, near) = duplex(64);
    tokio::spawn(async move { stream.join(near).await });
    // Nobody reads at the client's end: what is on the way is bounded by windows and pieces.
    let piece = vec![7; 64 << 10];
    let mut written = 0_usize;
    while let Ok(done) = timeout(Duration::from_millis(500), workload.write_all(&piece)).await {
        done.unwrap();
        written += piece.len();
        assert!(written < 16 << 20, "{written} bytes wait for a reader that reads none");
    }
    let mut first = [0; 16];
    client.read_exact(&mut first).await.unwrap();
    assert_eq!(first, [7; 16]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_call_hears_ends_all_calls_of_the_connection() {
    let ingress = Ingress::start();
    let identity = Identity::generate("client").unwrap();
    let appraiser = Arc::new(Credulous { refuse_from: Some(1), ..Credulous::default() });
    let connection =
        connect_and_verify(ingress.server.dial(), &identity, Purpose::Ingress(PORT), appraiser).await.unwrap();
    // One is challenged again at once; the other would not be for hours.
    let (soon, late) =
        (Pace { every: Duration::ZERO, ..Pace::USUAL }, Pace { every: Duration::from_hours(1), ..Pace::USUAL });
    let both = async {
        tokio::join!(
            connection.kept_at(soon, std::future::pending::<()>()),
            connection.kept_at(late, std::future::pending::<()>())
        )
    };
    let (first, second) = timeout(WAIT, both).await.expect("a call outlived its guest");
    for lapsed in [first.unwrap_err(), second.unwrap_err()] {
        assert!(matches!(*lapsed.0, ConnectError::Rejected(_)), "{lapsed:?}");
    }
    // Nor is there another afterwards, ready or not.
    assert!(connection.kept_at(late, std::future::ready(())).await.is_err());
    assert!(connection.renewed_in_time().await.is_err());
}
