//! Strangers who hold connections open keep neither an operator nor a guest out.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::common::{Guest, Kbs, PATH, TENANT, VALUE, ask};
use coffer_kbs_client::{ClientError, kbs::v1 as wire};
use coffer_ratls::{
    ClientTls, Identity, PeerPin, Purpose, connect_pinned,
    proto::{ChallengeRequest, attestation_client::AttestationClient},
};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

/// Whatever keeps a connection open.
type Kept = Box<dyn std::any::Any + Send>;

async fn from(source: u8, to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, source], 0))).unwrap();
    tokio::time::timeout(Duration::from_secs(5), socket.connect(to)).await.ok()?.ok()
}

/// As many files as this process may have: each end of each connection is one.
fn many_files() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
}

/// Strangers that come, hold what they get, and come again when they have lost it, until this is dropped.
struct Siege {
    over: Arc<AtomicBool>,
    /// Connections of each kind that came as far as they wanted.
    held: Arc<[AtomicUsize; 3]>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Clone)]
struct Stranger {
    guests: SocketAddr,
    operators: SocketAddr,
    tls: ClientTls,
    held: Arc<[AtomicUsize; 3]>,
}

impl Siege {
    /// So many of each kind, from eight addresses.
    fn begin(kbs: &Kbs, each: u32) -> Self {
        let (over, held) = (Arc::<AtomicBool>::default(), Arc::<[AtomicUsize; 3]>::default());
        let identity = Identity::generate("stranger").unwrap();
        let tls = ClientTls::new(&identity, PeerPin::Spki(vec![kbs.addresses.pin]), Purpose::Kbs).unwrap();
        let (guests, operators) = (kbs.addresses.listen, kbs.addresses.admin_listen);
        let (stranger, end) = (Stranger { guests, operators, tls, held: held.clone() }, over.clone());
        let thread = std::thread::spawn(move || {
            // They come from elsewhere: what they compute takes none of the broker's time.
            let _ = setpriority_process(None, 19);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut all = JoinSet::new();
                for number in 0..each {
                    for kind in 0..3 {
                        all.spawn(stranger.clone().comes_again_and_again(number, kind));
                    }
                }
                while !end.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
        Self { over, held, thread: Some(thread) }
    }

    fn held(&self) -> [usize; 3] {
        self.held.each_ref().map(|kind| kind.load(Ordering::SeqCst))
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

impl Stranger {
    async fn comes_again_and_again(self, number: u32, kind: usize) {
        let source = 2 + (number % 8) as u8;
        loop {
            let (mut kept, stays) = match kind {
                0 => (self.says_nothing(source, number).await, Duration::ZERO),
                1 => (self.shakes_hands(source).await.map(|tls| Box::new(tls) as Kept), Duration::from_secs(5)),
                _ => (self.half_attests(source).await, Duration::from_secs(5)),
            };
            if kept.is_some() {
                self.held[kind].fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(stays).await;
            }
            drop(kept.take());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Nothing, or the beginning of a ClientHello and nothing after it; at either listener, until it is hung up on.
    async fn says_nothing(&self, source: u8, number: u32) -> Option<Kept> {
        let mut stream = from(source, if number.is_multiple_of(3) { self.operators } else { self.guests }).await?;
        if number.is_multiple_of(2) {
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.ok()?;
        }
        let _ = stream.read(&mut [0; 64]).await;
        Some(Box::new(stream))
    }

    async fn shakes_hands(&self, source: u8) -> Option<tonic::transport::Channel> {
        let stream = from(source, self.guests).await?;
        let connected = tokio::time::timeout(Duration::from_secs(20), connect_pinned(stream, &self.tls)).await;
        Some(connected.ok()?.ok()?.0)
    }

    /// Asks for a challenge, and never answers it.
    async fn half_attests(&self, source: u8) -> Option<Kept> {
        let mut client = AttestationClient::new(self.shakes_hands(source).await?);
        client.challenge(ChallengeRequest {}).await.ok()?;
        Some(Box::new(client))
    }
}

/// How long an operator needs to revoke something, and a guest to attest and get its secret: each from nothing, and in one try.
async fn served(kbs: &Kbs, number: usize) -> Result<[Duration; 2], ClientError> {
    let profile = coffer_kbs_client::AdminProfile::read(&kbs.state().join("admin.toml")).unwrap();
    let (value, guest) = (format!("{:064x}", number + 1), Guest::usual());
    let start = Instant::now();
    let admin = coffer_kbs_client::AdminClient::connect(&profile).await?;
    assert!(admin.revoke(Some(TENANT), "workload", &value, None).await?.0);
    let operator = start.elapsed();
    let start = Instant::now();
    let client = kbs.connect(guest).await?;
    assert_eq!(ask(&client, PATH).await?, VALUE);
    let guest = start.elapsed();
    assert!(admin.remove_revocation(Some(TENANT), "workload", &value).await?);
    Ok([operator, guest])
}

async fn ready() -> Kbs {
    many_files();
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    kbs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_and_a_guest_are_served_while_strangers_hold_all_they_can() {
    let kbs = ready().await;
    let siege = Siege::begin(&kbs, 300);
    let all_there = || siege.held().iter().all(|held| *held > 20);
    // While they come, and while they sit there: until enough of each kind were there, for they have what is left of the machine.
    for number in (0..600).take_while(|number| *number < 20 || !all_there()) {
        served(&kbs, number).await.unwrap_or_else(|error| panic!("{number}, {:?}: {error:?}", siege.held()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(all_there(), "only {:?} came as far as they wanted", siege.held());
}

fn at(mut all: Vec<Duration>, percent: usize) -> Duration {
    all.sort();
    all[(all.len() * percent).div_ceil(100) - 1]
}

/// Prints how long both take, calm and besieged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures: three thousand strangers, a minute"]
async fn figures_of_a_siege() {
    const SAMPLES: usize = 120;
    let kbs = ready().await;
    let measure = async || {
        let (mut operators, mut guests) = (Vec::new(), Vec::new());
        for number in 0..SAMPLES {
            let [operator, guest] = served(&kbs, number).await.unwrap();
            operators.push(operator);
            guests.push(guest);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        [operators, guests]
    };
    let calm = measure().await;
    let siege = Siege::begin(&kbs, 1000);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let besieged = measure().await;
    for (who, calm, besieged) in [("operator", &calm[0], &besieged[0]), ("guest", &calm[1], &besieged[1])] {
        let of = |all: &Vec<Duration>, percent| at(all.clone(), percent).as_secs_f64() * 1e3;
        eprintln!(
            "{who}: p50 {:.1} ms calm, {:.1} ms besieged; p99 {:.1} ms calm, {:.1} ms besieged ({:.2} times)",
            of(calm, 50),
            of(besieged, 50),
            of(calm, 99),
            of(besieged, 99),
            of(besieged, 99) / of(calm, 99)
        );
    }
    eprintln!(
        "strangers that came as far as they wanted, silent, after a handshake, half attested: {:?}",
        siege.held()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_guest_holds_its_share_of_connections_and_its_neighbour_gets_in() {
    let kbs = Kbs::start().await;
    let (greedy, neighbour) = (Guest::usual(), Guest::usual());
    let mut held = Vec::new();
    let refused = loop {
        match kbs.connect(greedy.clone()).await {
            Ok(client) => held.push(client),
            Err(ClientError::Refused { code, .. }) => break code,
            Err(other) => panic!("{other:?}"),
        }
        assert!(held.len() <= 16);
    };
    assert_eq!((refused.as_str(), held.len()), ("too-many-connections", 16));
    kbs.connect(neighbour).await.unwrap();
    held.truncate(8);
    let start = Instant::now();
    while kbs.connect(greedy.clone()).await.is_err() {
        assert!(start.elapsed() < Duration::from_mins(1), "what was given back counts again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_box_takes_nothing_from_a_neighbour_of_its_address_that_has_attested() {
    let kbs = ready().await;
    let (neighbour, hostile) = (kbs.connect(Guest::usual()).await.unwrap(), Guest::usual());
    let mut flood = JoinSet::new();
    for _ in 0..16 {
        let client = kbs.connect(hostile.clone()).await.unwrap();
        let mut raw = wire::broker_client::BrokerClient::new(client.connection().channel());
        flood.spawn(async move {
            loop {
                let _ = raw.get_secret(wire::GetSecretRequest { path: PATH.into(), version: None }).await;
            }
        });
    }
    // And all the connections that their address may have.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(kbs.addresses.listen).await.unwrap());
    }
    for _ in 0..10 {
        assert_eq!(ask(&neighbour, PATH).await.unwrap(), VALUE);
        neighbour.renew().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
