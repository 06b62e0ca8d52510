//! The network of a box: passt, which carries what a guest says to other machines by sockets of its own, and in front of it the box's
//! port, which holds the guest to its filter and to its networks.
//!
//! ```text
//! monitor ── net.sock ── relay, port (in the supervisor) ──┬── a pair of sockets ── passt ── the host's network
//!                                                          └── networks/NAME/ADDRESS ── ports of other boxes
//! ```
//!
//! Each box has a passt of its own, jailed as it jails itself: another user where it was started by root, no files, a filter of
//! system calls. It gets one end of a pair of sockets and ends with the other end, so that it is gone with the supervisor however
//! that ends. It maps no address to this machine's loopback, unless a port of UDP is published there: then the gateway, so that who came from
//! there is answered, and the port lets nothing but such answers go to it.
//!
//! Trusts: passt for what it does with the host's sockets; for frames neither it nor the guest. Never: resolves a name, answers DHCP.
//! Source: passt(1); QEMU net/stream.c.

mod exchange;
mod for_guest;
mod notes;
mod relay;
mod reserved;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use coffer_rim::{Class, Classify as _, Failure};
use coffer_spec::Network;
use coffer_vmm::net::datagrams::Datagrams;
use coffer_vmm::net::filter::Filter;
use coffer_vmm::net::switch::{Port, View, mac_of};
use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::exchange::{Exchange, Task};
use self::for_guest::for_guest;
use self::notes::Notes;
use super::Card;
use super::child::{LastWords, keep_words, last_words, spawn, with_words};
use crate::boxes::files;
use crate::publish::{How, Publish};
use crate::published::Held;
use crate::socket::bind_socket;
use crate::tools::{Program, Search};

pub use self::exchange::Look;

/// passt.
pub const PASST: Program = Program {
    name: "passt",
    variable: "COFFER_PASST",
    ours_to_build: false,
    remedy: "install it (Debian: apt-get install passt), do without a network (--network none)",
};

/// The card of a guest. Its address follows from the guest's, which is nobody else's on the same wire.
pub const fn card(network: &Network) -> Card {
    Card { socket: files::NETWORK, mac: mac_of(network.address), mtu: MTU }
}

const MTU: u16 = 65_520;
/// Bytes that wait between passt and us at most. A guest's kernel lets as many of one connection come at once.
const ROOM: usize = 8 << 20;
/// Frames of other boxes, and answers of the port's, that wait for the guest.
const WAITING: usize = 64;
/// The card that stands for everybody else.
const OTHERS: &str = "02:c0:ff:e2:00:01";
/// How long passt may take to answer its first frame.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network that runs. Dropped, it is gone.
pub struct Running {
    _passt: Child,
    _relay: Task,
    exchange: Arc<Exchange>,
}

impl Running {
    /// The box joined a network, or left one.
    ///
    /// # Errors
    /// If what it is in cannot be looked at, or not be listened to.
    pub fn renew(&self) -> Result<(), Failure> {
        self.exchange.renew()
    }
}

/// Starts passt, and listens where the monitor will connect. `networks`: folder of the home's networks; `look`: what the box is in.
/// The ports of `publish` were held until now.
///
/// To be called from the thread that lives as long as the process.
///
/// # Errors
/// Class `platform` if passt is missing; `config` for a port that it cannot open.
pub fn begin(
    search: &Search,
    folder: &Path,
    network: &Network,
    publish: Vec<(Publish, Held)>,
    networks: PathBuf,
    look: Look,
) -> Result<Beginning, Failure> {
    let program = search.program(&PASST)?;
    let what = "cannot make a network";
    let listener = bind_socket(folder, card(network).socket).class_while(Class::Config, what)?;
    let (ours, theirs) = StdStream::pair().class_while(Class::Platform, what)?;
    make_room(&theirs);
    ours.set_nonblocking(true).class_while(Class::Platform, what)?;
    let ours = UnixStream::from_std(ours).class_while(Class::Platform, what)?;
    // Ports that were held here let go of now, so that passt can open them.
    let publish: Vec<Publish> = publish.into_iter().map(|(publish, _held)| publish).collect();
    publish.iter().try_for_each(can_publish)?;
    let mut passt = spawn(folder, &program, &arguments(network, &publish), Stdio::from(OwnedFd::from(theirs)))?;
    let said = keep_words(passt.stderr.take(), folder);
    drop(keep_words(passt.stdout.take(), folder));
    let (network, folder) = (network.clone(), folder.to_owned());
    Ok(Beginning { passt, line: ours, said, listener, publish, network, folder, networks, look })
}

/// A network that begins: passt was started, and the monitor may connect. Dropped, it is gone.
pub struct Beginning {
    passt: Child,
    /// To passt.
    line: UnixStream,
    said: JoinHandle<LastWords>,
    listener: UnixListener,
    publish: Vec<Publish>,
    network: Network,
    folder: PathBuf,
    networks: PathBuf,
    look: Look,
}

impl Beginning {
    /// Waits for passt, and starts the relay with the box's port. Every port of the box's is passt's and open when it returns.
    ///
    /// # Errors
    /// Class `platform` if passt does not start, with what it said; `config` for a port that it cannot open.
    pub async fn ready(self) -> Result<Running, Failure> {
        let Self { passt, mut line, mut said, listener, publish, network, folder, networks, look } = self;
        // It opens its ports before it reads a frame, so that an answer says that all are open.
        let datagrams = publish.iter().filter(|publish| publish.how == How::Udp).map(|publish| publish.guest);
        let datagrams = Datagrams::of(datagrams).with_loopback(network.gateway, of_loopback(&publish));
        let filter = filter(&network, datagrams);
        match timeout(PATIENCE, relay::first_answer(&mut line, &filter)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                let failure = Failure::new(Class::Platform, "passt did not start");
                return Err(with_words(failure, last_words(&mut said).await.as_deref()));
            }
            Err(_) => return Err(Failure::new(Class::Platform, "passt answered nothing within 10 s")),
        }
        // It goes on without a port that it could not open, and so do not we.
        if let Some(closed) = publish.iter().find(|publish| Held::take(publish.host, publish.how).is_ok()) {
            return Err(Failure::new(Class::Config, format!("passt does not listen on {}", closed.host)));
        }
        let (sender, to_guest) = for_guest(WAITING);
        // Nothing passes before the networks were looked at.
        let port = Port { filter, dns: network.dns.clone(), view: View::default() };
        let exchange = Exchange::open(port, look, networks, sender, Notes::of(&folder))?;
        let relay = tokio::spawn(relay::run(listener, line, Arc::clone(&exchange), to_guest));
        Ok(Running { _passt: passt, _relay: Task(relay), exchange })
    }
}

/// Room for what passt says at once: it drops what finds none, and says that again no sooner than two seconds later.
fn make_room(passt: &StdStream) {
    // More than the machine lets everybody have takes root of it; nobody else has more than that (net.core.wmem_max).
    if set_socket_send_buffer_size_force(passt, ROOM).is_err() {
        let _ = set_socket_send_buffer_size(passt, ROOM);
    }
}

/// What passes between the guest and passt.
fn filter(network: &Network, datagrams: Datagrams) -> Filter {
    Filter {
        mac: card(network).mac,
        address: network.address,
        mask: network.mask(),
        gateway: network.gateway,
        resolver: network.dns.contains(&network.gateway),
        datagrams,
    }
}

/// Arguments of passt: one guest on the socket it finds as standard input, nothing of the host's but what is named.
fn arguments(network: &Network, publish: &[Publish]) -> Vec<String> {
    let (address, mask, gateway) =
        (network.address.to_string(), network.mask().to_string(), network.gateway.to_string());
    let mut all: Vec<String> = [
        ["--foreground", "--quiet", "--ipv4-only", "--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"].as_slice(),
        // Its addresses are all named. It asks for an interface all the same, and a host that is on no network has this one.
        &["--interface", "lo"],
        &["--fd", "0", "--mtu", &MTU.to_string(), "--mac-addr", OTHERS],
        &["--address", &address, "--netmask", &mask, "--gateway", &gateway],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect();
    // Otherwise it asks nobody for names, and passes on nothing to its own resolver.
    if network.dns.contains(&network.gateway) {
        all.extend(["--dns-forward".to_owned(), gateway]);
    }
    for (how, flag) in [(How::Tcp, "--tcp-ports"), (How::Udp, "--udp-ports")] {
        let mut those = publish.iter().filter(|publish| publish.how == how).peekable();
        if those.peek().is_none() {
            all.extend([flag, "none"].map(str::to_owned));
        }
        for Publish { host, guest, .. } in those {
            all.extend([flag.to_owned(), format!("{}/{}:{guest}", host.ip(), host.port())]);
        }
    }
    // Some of its versions answer who comes by UDP from this machine's loopback only where the gateway leads back there.
    if of_loopback(publish).next().is_none() {
        all.push("--no-map-gw".to_owned());
    }
    all
}

/// Ports of the guest by UDP that this machine's loopback reaches, and nobody else.
fn of_loopback(publish: &[Publish]) -> impl Iterator<Item = u16> {
    let by_udp = || publish.iter().filter(|publish| publish.how == How::Udp);
    let is_apart = move |port: &u16| by_udp().filter(|one| one.guest == *port).all(|one| one.host.ip().is_loopback());
    by_udp().map(|publish| publish.guest).filter(is_apart)
}

/// Whether passt can open a port: it has no rights of root.
///
/// # Errors
/// Class `config`, naming the port.
pub fn can_publish(publish: &Publish) -> Result<(), Failure> {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024_u16);
    let port = publish.host.port();
    if port != 0 && port < first {
        let message =
            format!("port {port} of the host is not for passt, which has no rights of root: they begin at {first}");
        return Err(Failure::new(Class::Config, message)
            .hint("publish a higher port, or lower net.ipv4.ip_unprivileged_port_start on the host"));
    }
    match publish.host.ip() {
        IpAddr::V4(_) => Ok(()),
        IpAddr::V6(_) => {
            let message = format!("{} is an address of IPv6, and boxes have IPv4 alone yet", publish.host);
            Err(Failure::new(Class::Config, message).hint("publish with /ra-tls there, or at an address of IPv4"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::tests::one;

    #[test]
    fn passt_has_room_for_more_than_one_burst_where_the_machine_lets_it() {
        let (ours, theirs) = StdStream::pair().unwrap();
        make_room(&theirs);
        let has = |end: &StdStream| rustix::net::sockopt::socket_send_buffer_size(end).unwrap();
        let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap().trim().parse::<usize>().unwrap();
        let least = if rustix::process::geteuid().is_root() { ROOM } else { most.min(ROOM) };
        assert!(has(&theirs) >= least, "{} of {least}, where others have {}", has(&theirs), has(&ours));
    }

    #[test]
    fn passt_maps_nothing_to_loopback_and_opens_what_is_published_alone() {
        let publish = [one("127.0.0.1:8080:80")];
        let has = |all: &[String], words: &[&str]| all.windows(words.len()).any(|window| window == words);
        let network = Network::user();
        let all = arguments(&network, &publish);
        for words in [
            &["--no-map-gw"][..],
            &["--no-dhcp"],
            &["--no-ra"],
            &["--fd", "0"],
            &["--udp-ports", "none"],
            &["--tcp-ports", "127.0.0.1/8080:80"],
            &["--dns-forward", "10.0.2.2"],
        ] {
            assert!(has(&all, words), "{words:?}: {all:?}");
        }
        assert_eq!(all.iter().filter(|word| *word == "--tcp-ports").count(), 1);
        let own = Network { dns: vec!["192.0.2.53".parse().unwrap()], ..network };
        let closed = arguments(&own, &[]);
        assert!(has(&closed, &["--tcp-ports", "none"]) && !closed.iter().any(|word| word == "--dns-forward"));
        let resolves = |network: &Network| filter(network, Datagrams::default()).resolver;
        assert!(resolves(&Network::user()) && !resolves(&own));
        // The gateway leads back to loopback only where there is something to answer.
        let both = arguments(&Network::user(), &[one("127.0.0.1:5353:53/udp"), one("8080:80")]);
        assert!(has(&both, &["--udp-ports", "127.0.0.1/5353:53"]) && has(&both, &["--tcp-ports", "0.0.0.0/8080:80"]));
        assert!(!both.iter().any(|word| word == "--no-map-gw" || word == "none"));
        // Where others reach it too, somebody there may have the gateway's address.
        for others in [&[one("5353:53/udp")][..], &[one("127.0.0.1:5353:53/udp"), one("5354:53/udp")]] {
            assert!(arguments(&Network::user(), others).iter().any(|word| word == "--no-map-gw"), "{others:?}");
            assert_eq!(of_loopback(others).next(), None);
        }
    }

    #[test]
    fn ports_that_passt_cannot_open_are_refused_by_their_number() {
        let refused = |text: &str| can_publish(&one(text)).unwrap_err().to_string();
        assert!(refused("[::1]:8080:80").contains("IPv6"));
        if std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").is_ok_and(|it| it.trim() == "1024")
        {
            assert!(refused("80:80").contains("port 80 "));
        }
        assert!(can_publish(&one("8080:80")).is_ok() && can_publish(&one("80")).is_ok());
    }
}
