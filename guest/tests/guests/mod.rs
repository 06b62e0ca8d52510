//! Guests with simulated processors, the agent's own code at both ends, and a host between them that is the test's to play.
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../../../tests/simulated_author.rs"]
mod simulated_author;

use std::{
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use coffer_guest::{
    agent::{Agent, serve::owner_port},
    container::Users,
    ending::Ending,
    events::Events,
    host::{Host, Ports},
    ingress,
    log_ring::LogRing,
    notices::Notices,
    peers::{Dialler, Road, serve},
    processor::SharedProcessor,
    workload::Places,
};
use coffer_guest_proto::ports::RA_TLS;
use coffer_ratls::{Appraiser, Attester, AttesterError, Identity, Refusal};
use coffer_simulator::{IdEvidence, LaunchOptions, LocalProcessor, SecureProcessor, TcbState};
use coffer_spec::{
    Document, Guests, Ingress, IngressClients, Measured, Peer, SignedLaunch, Tee, WorkloadSpec,
    sample::{name, workload},
};
use coffer_verifier::{
    abi::{
        FamilyId, HostData, ImageId, Measurement, ProductLine, ReportData, ReportRequest, SecureProcessor as _,
        TcbVersion, WorkloadDigest,
    },
    evidence::Evidence,
    measure::PageType,
};
use simulated_author::{Author, Key, installation, unix};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    time::timeout,
};

pub const WAIT: Duration = Duration::from_secs(40);
pub const DEBUG: u64 = 1 << 19;
/// Of PLATFORM_INFO.
pub const ALIAS_CHECK_COMPLETE: u64 = 1 << 5;

/// Who signed a launch, under which names, and what else is special about it.
#[derive(Clone, Copy)]
pub struct Launch {
    pub author: Option<u8>,
    pub family: u8,
    pub image: u8,
    pub svn: u32,
    pub policy: u64,
    pub platform: u8,
    pub kept: Kept,
}

/// How well its host keeps the platform.
#[derive(Clone, Copy)]
pub enum Kept {
    Well,
    /// Firmware and microcode of a year that has passed.
    Behind,
    /// Nobody looked for aliased memory.
    Unchecked,
}

pub const SERVER: Launch =
    Launch { author: Some(0x21), family: 1, image: 2, svn: 5, policy: 0x3_0000, platform: 1, kept: Kept::Well };
pub const CLIENT: Launch = Launch { image: 3, ..SERVER };

impl Launch {
    pub fn rule(&self) -> SignedLaunch {
        SignedLaunch {
            author_key: Key::new(self.author.unwrap()).author_digest(),
            family_id: FamilyId::new([self.family; 16]),
            image_id: ImageId::new([self.image; 16]),
            min_svn: self.svn,
        }
    }

    fn id(&self, measurement: Measurement) -> Option<IdEvidence> {
        let (family_id, image_id) = ([self.family; 16], [self.image; 16]);
        let author = Author { key: self.author?, key_enabled: true, family_id, image_id, guest_svn: self.svn };
        Some(author.sign(measurement, self.policy))
    }

    pub fn start(&self, spec: &WorkloadSpec) -> Arc<Guest> {
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

pub struct Guest {
    pub processor: Mutex<LocalProcessor>,
    pub document: Document,
    pub measurement: Measurement,
}

impl Guest {
    pub fn measured(&self) -> Measured {
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

pub fn believed(guests: Guests) -> Guests {
    let simulators = vec![installation().anchor(ProductLine::Milan).unwrap().spki];
    Guests { simulators, ..guests }
}

pub fn signed(launch: Launch) -> Guests {
    believed(Guests { signed: vec![launch.rule()], ..Guests::default() })
}

pub async fn text(logs: &Arc<LogRing>) -> String {
    let (mut reader, mut text) = (logs.read(0), String::new());
    while let Some(entry) = reader.next().await {
        text.push_str(&String::from_utf8_lossy(&entry.data));
    }
    text
}

pub async fn says(logs: &Arc<LogRing>, words: &[&str]) {
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
pub struct Server {
    pub guest: Arc<Guest>,
    pub port: u16,
    pub logs: Arc<LogRing>,
    pub streams: Arc<Mutex<usize>>,
    pub socket: PathBuf,
    pub _folder: tempfile::TempDir,
}

impl Server {
    pub async fn start(launch: Launch, clients: IngressClients) -> Self {
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
        ingress::open(&spec, &ports, &identity, &attester, (&logs, &Ending::default())).unwrap();
        Self { guest, port, logs, streams, socket, _folder: folder }
    }

    /// The road to it.
    pub fn road(&self) -> ToSocket {
        ToSocket(self.socket.clone(), coffer_guest_proto::ports::ingress(self.port))
    }

    pub fn streams(&self) -> usize {
        *self.streams.lock().unwrap()
    }
}

/// The host, as it leads to the port of a guest.
#[derive(Clone)]
pub struct ToSocket(pub PathBuf, pub u32);

impl Road for ToSocket {
    type Io = UnixStream;

    async fn open(&self) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.0).await?;
        stream.write_all(format!("CONNECT {}\n", self.1).as_bytes()).await?;
        while stream.read_u8().await? != b'\n' {}
        Ok(stream)
    }
}

/// The port of a guest's owners, as init opens it.
pub struct OwnersPort {
    pub agent: Arc<Agent>,
    folder: tempfile::TempDir,
}

impl OwnersPort {
    pub fn of(spec: &WorkloadSpec) -> Self {
        let guest = SERVER.start(spec);
        let places = Places {
            binary: "/nowhere".into(),
            root: "/nowhere".into(),
            secrets: "/nowhere".into(),
            sockets: "/nowhere".into(),
            volumes: Vec::new(),
            control_group: None,
            users: Users::Own,
            host: Host::Sockets,
        };
        let agent = Arc::new(Agent::new(guest.document.clone(), Arc::new(Events::silent()), places));
        let folder = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join("vsock")).unwrap();
        let ports = Ports::behind(listener.into()).unwrap();
        let processor = Arc::try_unwrap(SERVER.start(spec)).ok().unwrap().processor.into_inner();
        let processor: SharedProcessor = Arc::new(Mutex::new(Box::new(processor.unwrap())));
        owner_port(&agent, &ports, &Identity::generate("guest").unwrap(), guest, processor).unwrap();
        Self { agent, folder }
    }

    pub fn road(&self) -> ToSocket {
        ToSocket(self.folder.path().join("vsock"), RA_TLS)
    }
}

/// A guest whose workload talks to a peer.
pub struct Client {
    pub at: std::net::SocketAddr,
    pub logs: Arc<LogRing>,
}

pub fn client_spec(port: u16, guests: Guests) -> WorkloadSpec {
    let peer = Peer { name: name("db"), listen: 1, address: "db.example:8443".into(), port, guests };
    WorkloadSpec { peers: vec![peer], ..workload(Tee::Simulated) }
}

pub fn dialler<R: Road>(road: R, launch: Launch, port: u16, guests: Guests) -> Dialler<R> {
    let spec = client_spec(port, guests);
    Dialler::new(road, &spec.peers[0], &spec, launch.start(&spec))
}

impl Client {
    pub async fn start<R: Road>(dialler: Dialler<R>, most: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let logs = Arc::new(LogRing::new(1 << 20));
        tokio::spawn(serve(listener, dialler, (most, Ending::default()), Notices::new(&logs, "peer db".into())));
        Self { at, logs }
    }

    pub async fn to(server: &Server, launch: Launch, guests: Guests) -> Self {
        Self::start(dialler(server.road(), launch, server.port, guests), 8).await
    }

    /// What a program of the workload gets back for a word, to the end.
    pub async fn ask(&self, word: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.at).await?;
        stream.write_all(word).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        timeout(WAIT, stream.read_to_end(&mut answer)).await.expect("an end")?;
        Ok(answer)
    }

    /// A program is reset, hears nothing, and the output says why.
    pub async fn is_refused(&self, words: &[&str]) {
        let answer = self.ask(b"secret").await;
        assert!(answer.is_err(), "{answer:?}");
        says(&self.logs, words).await;
    }
}

pub fn guests_alone(launch: Launch) -> IngressClients {
    IngressClients::Guests(signed(launch))
}

/// Believes whatever it is shown, and keeps it.
#[derive(Default)]
pub struct Credulous(pub Mutex<Option<Evidence>>);

impl Appraiser for Credulous {
    type Admitted = ();

    fn appraise(&self, evidence: &Evidence, _: &ReportData) -> Result<(), Refusal> {
        *self.0.lock().unwrap() = Some(evidence.clone());
        Ok(())
    }
}
