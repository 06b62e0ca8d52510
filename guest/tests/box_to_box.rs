//! Two guests that talk to each other: each is the one that the other's spec names, on this very connection, or not a byte goes through.
//!
//! Simulated processors, the agent's own code at both ends, and a host between them that is the test's to play.

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use coffer_guest::{
    host::Ports,
    ingress,
    log_ring::LogRing,
    notices::Notices,
    peers::{Dialler, Road, serve},
};
use coffer_ratls::{
    Appraiser, AttestationService, Attester, AttesterError, ClientRule, ConnectError, Dial as _, Identity, Purpose,
    Refusal, ServeLimits, ServerTls, StreamError, StreamRefusal, connect_and_verify, open_stream,
};
use coffer_simulator::{IdEvidence, Installation, LaunchOptions, LocalProcessor, SecureProcessor, TcbState};
use coffer_spec::{
    Document, Guests, Ingress, IngressClients, Measured, Peer, SignedLaunch, Tee, WorkloadSpec,
    sample::{name, workload},
};
use coffer_verifier::{
    P384PublicKey,
    abi::{
        FamilyId, HostData, ImageId, KeyDigest, Measurement, ProductLine, ReportData, ReportRequest,
        SecureProcessor as _, TcbVersion, WorkloadDigest,
    },
    evidence::Evidence,
    measure::{IdAuth, IdBlock, PageType, Signed, key_digest, key_structure},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::{TcpListener, TcpStream, UnixStream},
    runtime::Handle,
    time::timeout,
};
use tonic::service::Routes;

const WAIT: Duration = Duration::from_secs(40);
const DEBUG: u64 = 1 << 19;
/// Of PLATFORM_INFO.
const ALIAS_CHECK_COMPLETE: u64 = 1 << 5;

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// One for all tests: its RSA keys are the slow part.
fn installation() -> &'static Installation {
    static ONE: OnceLock<Installation> = OnceLock::new();
    ONE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("box-to-box-installation");
        if let Some(found) = std::fs::read(&path).ok().and_then(|bytes| Installation::from_bytes(&bytes).ok()) {
            return found;
        }
        let mut made = Installation::create(unix()).unwrap();
        made.ensure(ProductLine::Milan, unix()).unwrap();
        let fresh = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::write(fresh.path(), made.to_bytes().unwrap().as_slice()).unwrap();
        let _ = fresh.persist_noclobber(&path);
        Installation::from_bytes(&std::fs::read(&path).unwrap()).unwrap()
    })
}

struct Key {
    secret: p384::ecdsa::SigningKey,
    public: P384PublicKey,
}

impl Key {
    fn new(seed: u8) -> Self {
        let secret = p384::ecdsa::SigningKey::from_slice(&[seed; 48]).unwrap();
        let public = P384PublicKey::from_sec1(secret.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
        Self { secret, public }
    }

    fn sign(&self, message: &[u8]) -> [u8; 96] {
        use p384::ecdsa::{Signature, signature::Signer as _};
        let signature: Signature = self.secret.sign(message);
        signature.to_bytes().into()
    }

    fn digest(&self) -> KeyDigest {
        key_digest(&key_structure(&self.public))
    }
}

/// Who signed a launch, under which names, and what else is special about it.
#[derive(Clone, Copy)]
struct Launch {
    author: Option<u8>,
    family: u8,
    image: u8,
    svn: u32,
    policy: u64,
    platform: u8,
    kept: Kept,
}

/// How well its host keeps the platform.
#[derive(Clone, Copy)]
enum Kept {
    Well,
    /// Firmware and microcode of a year that has passed.
    Behind,
    /// Nobody looked for aliased memory.
    Unchecked,
}

const SERVER: Launch =
    Launch { author: Some(0x21), family: 1, image: 2, svn: 5, policy: 0x3_0000, platform: 1, kept: Kept::Well };
const CLIENT: Launch = Launch { image: 3, ..SERVER };

impl Launch {
    fn rule(&self) -> SignedLaunch {
        SignedLaunch {
            author_key: Key::new(self.author.unwrap()).digest(),
            family_id: FamilyId::new([self.family; 16]),
            image_id: ImageId::new([self.image; 16]),
            min_svn: self.svn,
        }
    }

    fn id(&self, measurement: Measurement) -> Option<IdEvidence> {
        let author = Key::new(self.author?);
        let (family_id, image_id) = (FamilyId::new([self.family; 16]), ImageId::new([self.image; 16]));
        let block = IdBlock { measurement, family_id, image_id, guest_svn: self.svn, policy: self.policy };
        let id = Key::new(0x20);
        let (over_block, over_key) = (id.sign(&block.to_bytes()), author.sign(&key_structure(&id.public)));
        let auth = IdAuth::new(
            Signed { key: &id.public, signature: &over_block },
            Some(Signed { key: &author.public, signature: &over_key }),
        );
        Some(IdEvidence { block, auth: auth.unwrap(), author_key_enabled: true })
    }

    fn start(&self, spec: &WorkloadSpec) -> Arc<Guest> {
        let document = Document::write(spec).unwrap();
        let mut options = LaunchOptions { policy: self.policy, ..LaunchOptions::new(ProductLine::Milan, unix()) };
        match self.kept {
            Kept::Well => {}
            Kept::Behind => {
                let well = options.tcb.reported;
                options.tcb = TcbState::all(TcbVersion { snp: 8, microcode: 115, ..well });
            }
            Kept::Unchecked => options.platform_info &= !ALIAS_CHECK_COMPLETE,
        }
        let mut processor = SecureProcessor::launch_start(installation(), options).unwrap();
        processor.update(PageType::Normal, 0x10_0000, &[self.platform; 4096]).unwrap();
        let id = self.id(processor.digest());
        let guest = processor.finish(document.digest().host_data(), id.as_ref()).unwrap();
        let measurement = guest.measurement();
        Arc::new(Guest { processor: Mutex::new(guest.into_processor()), document, measurement })
    }
}

struct Guest {
    processor: Mutex<LocalProcessor>,
    document: Document,
    measurement: Measurement,
}

impl Guest {
    fn measured(&self) -> Measured {
        let workload = HostData::new(*self.document.digest().as_bytes());
        Measured { measurement: self.measurement, workload }
    }
}

impl Attester for Guest {
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError> {
        let answer = self.processor.lock().unwrap().report(&ReportRequest::new(*report_data))?;
        Ok(Evidence {
            report: answer.report,
            cert_table: answer.cert_table,
            crls: Vec::new(),
            workload_spec: self.document.bytes().to_vec(),
        })
    }

    fn workload(&self) -> WorkloadDigest {
        self.document.digest()
    }
}

fn believed(guests: Guests) -> Guests {
    let simulators = vec![installation().anchor(ProductLine::Milan).unwrap().spki];
    Guests { simulators, ..guests }
}

fn signed(launch: Launch) -> Guests {
    believed(Guests { signed: vec![launch.rule()], ..Guests::default() })
}

async fn text(logs: &Arc<LogRing>) -> String {
    let (mut reader, mut text) = (logs.read(0), String::new());
    while let Some(entry) = reader.next().await {
        text.push_str(&String::from_utf8_lossy(&entry.data));
    }
    text
}

async fn says(logs: &Arc<LogRing>, words: &[&str]) {
    let said = async {
        loop {
            let text = text(logs).await;
            if words.iter().all(|word| text.contains(word)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(WAIT, said).await.is_ok(), "expected {words:?} in {:?}", text(logs).await);
}

/// A guest with an ingress, whose workload answers each stream with what it was sent, and counts them.
struct Server {
    guest: Arc<Guest>,
    port: u16,
    logs: Arc<LogRing>,
    streams: Arc<Mutex<usize>>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start(launch: Launch, clients: IngressClients) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let streams: Arc<Mutex<usize>> = Arc::default();
        let counted = streams.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *counted.lock().unwrap() += 1;
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let spec = WorkloadSpec { ingress: vec![Ingress { port, clients }], ..workload(Tee::Simulated) };
        let guest = launch.start(&spec);
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("vsock");
        let ports = Ports::behind(std::os::unix::net::UnixListener::bind(&socket).unwrap().into()).unwrap();
        let attester: Arc<dyn Attester> = guest.clone();
        let logs = Arc::new(LogRing::new(1 << 20));
        let identity = Identity::generate("guest").unwrap();
        ingress::open(&spec, &ports, &identity, &attester, &logs).unwrap();
        Self { guest, port, logs, streams, socket, _folder: folder }
    }

    /// The road to it.
    fn road(&self) -> ToSocket {
        ToSocket(self.socket.clone(), coffer_guest_proto::ports::ingress(self.port))
    }

    fn streams(&self) -> usize {
        *self.streams.lock().unwrap()
    }
}

/// The host, as it leads to the port of a guest.
#[derive(Clone)]
struct ToSocket(PathBuf, u32);

impl Road for ToSocket {
    type Io = UnixStream;

    async fn open(&self) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.0).await?;
        stream.write_all(format!("CONNECT {}\n", self.1).as_bytes()).await?;
        while stream.read_u8().await? != b'\n' {}
        Ok(stream)
    }
}

/// A guest whose workload talks to a peer.
struct Client {
    at: std::net::SocketAddr,
    logs: Arc<LogRing>,
}

fn client_spec(port: u16, guests: Guests) -> WorkloadSpec {
    let peer = Peer { name: name("db"), listen: 1, address: "db.example:8443".into(), port, guests };
    WorkloadSpec { peers: vec![peer], ..workload(Tee::Simulated) }
}

fn dialler<R: Road>(road: R, launch: Launch, port: u16, guests: Guests) -> Dialler<R> {
    let spec = client_spec(port, guests);
    Dialler::new(road, &spec.peers[0], &spec, launch.start(&spec))
}

impl Client {
    async fn start<R: Road>(dialler: Dialler<R>, most: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let logs = Arc::new(LogRing::new(1 << 20));
        tokio::spawn(serve(listener, dialler, most, Notices::new(&logs, "peer db".into())));
        Self { at, logs }
    }

    async fn to(server: &Server, launch: Launch, guests: Guests) -> Self {
        Self::start(dialler(server.road(), launch, server.port, guests), 8).await
    }

    /// What a program of the workload gets back for a word, to the end.
    async fn ask(&self, word: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.at).await?;
        stream.write_all(word).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        timeout(WAIT, stream.read_to_end(&mut answer)).await.expect("an end")?;
        Ok(answer)
    }

    /// A program is reset, hears nothing, and the output says why.
    async fn is_refused(&self, words: &[&str]) {
        let answer = self.ask(b"secret").await;
        assert!(answer.is_err(), "{answer:?}");
        says(&self.logs, words).await;
    }
}

fn guests_alone(launch: Launch) -> IngressClients {
    IngressClients::Guests(signed(launch))
}

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

/// Believes whatever it is shown, and keeps it.
#[derive(Default)]
struct Credulous(Mutex<Option<Evidence>>);

impl Appraiser for Credulous {
    type Admitted = ();

    fn appraise(&self, evidence: &Evidence, _: &ReportData) -> Result<(), Refusal> {
        *self.0.lock().unwrap() = Some(evidence.clone());
        Ok(())
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
    let stream = open_stream(connection.channel()).await.err();
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
