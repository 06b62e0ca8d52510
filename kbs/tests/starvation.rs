//! Strangers who hold connections open keep neither an operator nor a guest out.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::common::{Guest, Kbs, PATH, VALUE, ask};
use coffer_kbs_client::ClientError;
use coffer_ratls::{ClientTls, Identity, PeerPin, Purpose, connect_pinned};
use tokio::{
    io::AsyncWriteExt as _,
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

/// A thousand of each kind against both listeners, from eight addresses. Gives what they hold.
fn besiege(kbs: &Kbs) -> JoinSet<Option<Kept>> {
    let mut held: JoinSet<Option<Kept>> = JoinSet::new();
    for number in 0..1000_u32 {
        let source = 2 + (number % 8) as u8;
        let to = if number % 3 == 0 { kbs.addresses.admin_listen } else { kbs.addresses.listen };
        held.spawn(async move { Some(Box::new(from(source, to).await?) as Kept) });
        held.spawn(async move {
            let mut stream = from(source, to).await?;
            // The beginning of a ClientHello, and nothing after it.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.ok()?;
            Some(Box::new(stream) as Kept)
        });
        let (pin, to) = (kbs.addresses.pin, kbs.addresses.listen);
        held.spawn(async move {
            let stream = from(source, to).await?;
            let identity = Identity::generate("stranger").unwrap();
            let tls = ClientTls::new(&identity, PeerPin::Spki(vec![pin]), Purpose::Kbs).unwrap();
            let connected = tokio::time::timeout(Duration::from_secs(20), connect_pinned(stream, &tls)).await;
            Some(Box::new(connected.ok()?.ok()?) as Kept)
        });
    }
    held
}

/// What an operator and a guest want: a revocation and a secret. Nobody may need more than a few tries.
async fn served(kbs: &Kbs) -> Duration {
    let start = Instant::now();
    let guest = Guest::usual();
    for attempt in 0.. {
        let done: Result<(), ClientError> = async {
            let admin = coffer_kbs_client::AdminClient::connect(
                &coffer_kbs_client::AdminProfile::read(&kbs.state().join("admin.toml")).unwrap(),
            )
            .await?;
            admin.revoke_manifest("acme", "nothing-of-that-name").await.map(|_| ())
        }
        .await;
        match done {
            Ok(()) => break,
            Err(error) if attempt > 4 => panic!("operator: {error:?}"),
            Err(_) => {}
        }
    }
    for attempt in 0.. {
        match kbs.connect(guest.clone()).await {
            Ok(client) => {
                assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
                break;
            }
            Err(error) if attempt > 4 => panic!("guest: {error:?}"),
            Err(_) => {}
        }
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_and_a_guest_are_served_while_strangers_hold_all_they_can() {
    let kbs = Kbs::start().await;
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let calm = served(&kbs).await;
    let mut held = besiege(&kbs);
    let mut worst = Duration::ZERO;
    for _ in 0..5 {
        worst = worst.max(served(&kbs).await);
    }
    // While they come, three thousand handshakes share the processors with us.
    assert!(worst < Duration::from_secs(20), "{worst:?} while they come, {calm:?} before");
    let mut kept = Vec::new();
    while let Some(one) = held.join_next().await {
        kept.extend(one.unwrap());
    }
    assert!(kept.len() > 100, "only {} strangers came", kept.len());
    let worst = served(&kbs).await;
    assert!(worst < calm * 3 + Duration::from_secs(2), "{worst:?} while they sit there, {calm:?} before");
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
        assert!(start.elapsed() < Duration::from_secs(10), "what was given back counts again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
