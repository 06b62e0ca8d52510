//! Ports of several boxes, with their sockets and without guests.

use std::path::Path;

use coffer_vmm::net::datagrams::Datagrams;
use coffer_vmm::net::filter::Filter;
use coffer_vmm::net::switch::{Joined, Rules, Subnet, mac_of};

use super::super::for_guest::{ForGuest, for_guest};
use super::*;

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 89, 0, last)
}

/// The network as one of its boxes has it.
fn app(own: u8, members: &[u8]) -> View {
    let joined = Joined {
        name: "app".into(),
        subnet: Subnet::around(at(0), 24).unwrap(),
        address: at(own),
        rules: Rules::open(),
        members: members.iter().map(|last| (at(*last), vec![format!("box{last}")])).collect(),
    };
    View { own_wire: false, joined: vec![joined], others: vec![] }
}

fn nowhere() -> View {
    View { own_wire: false, joined: vec![], others: vec![Subnet::around(at(0), 24).unwrap()] }
}

struct Guest {
    exchange: Arc<Exchange>,
    heard: ForGuest,
    /// What is to be seen, and whether it is new.
    view: Arc<Mutex<(bool, View)>>,
}

impl Guest {
    fn new(folder: &Path, own: u8, members: &[u8], room: usize) -> Self {
        let view = Arc::new(Mutex::new((true, app(own, members))));
        let (to_guest, heard) = for_guest(room);
        let seen = Arc::clone(&view);
        let look: Look = Box::new(move |always| {
            let mut seen = lock(&seen);
            let new = std::mem::take(&mut seen.0);
            Ok((always || new).then(|| seen.1.clone()))
        });
        let mask = Ipv4Addr::new(255, 255, 255, 0);
        let (mac, datagrams) = (mac_of(at(own)), Datagrams::default());
        let filter = Filter { mac, address: at(own), mask, gateway: at(1), resolver: true, datagrams };
        let port = Port { filter, dns: vec![at(1)], view: View::default() };
        let notes = Notes::of(folder);
        Self { exchange: Exchange::open(port, look, folder.to_owned(), to_guest, notes).unwrap(), heard, view }
    }

    /// Somebody changed the networks.
    fn change(&self, view: View) {
        *lock(&self.view) = (true, view);
    }

    fn sends(&self, own: u8, to: u8, text: &[u8]) -> Result<bool, Refused> {
        self.exchange.outbound(&mut frame(own, to, text))
    }
}

fn frame(from: u8, to: u8, text: &[u8]) -> Vec<u8> {
    let length = (28 + text.len()) as u16;
    let header = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0x40, 0, 64, 17, 0, 0]].concat();
    let udp = [0, 80, 0, 80, 0, (8 + text.len()) as u8, 0, 0];
    [&[9; 6][..], &mac_of(at(from)), &[8, 0], &header, &at(from).octets(), &at(to).octets(), &udp, text].concat()
}

#[tokio::test]
async fn frames_cross_and_a_box_that_comes_is_found_and_one_that_left_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let web = Guest::new(folder.path(), 2, &[2], 8);
    assert_eq!(web.sends(2, 3, b"early"), Err(Refused::NoMember));
    let mut db = Guest::new(folder.path(), 3, &[2, 3], 8);
    // Nobody tells it: it looks where it finds nobody.
    web.change(app(2, &[2, 3]));
    assert_eq!(web.sends(2, 3, b"one"), Ok(false));
    assert!(db.heard.recv().await.unwrap().ends_with(b"one"));
    assert_eq!(web.sends(2, 4, b"nobody"), Err(Refused::NoMember));

    // The other left; what is sent before that is known here is not heard.
    db.change(nowhere());
    db.exchange.renew().unwrap();
    assert_eq!(db.sends(3, 2, b"out"), Err(Refused::OtherNetwork));
    let _ = web.sends(2, 3, b"late");
    tokio::task::yield_now().await;
    db.change(app(3, &[2, 3]));
    db.exchange.renew().unwrap();
    while !matches!(web.sends(2, 3, b"again"), Ok(false)) {
        tokio::task::yield_now().await;
    }
    assert!(db.heard.recv().await.unwrap().ends_with(b"again"));

    // This one leaves.
    web.change(nowhere());
    web.exchange.renew().unwrap();
    assert_eq!(web.sends(2, 3, b"out"), Err(Refused::OtherNetwork));
}

#[tokio::test]
async fn a_socket_goes_with_the_box_that_left_and_not_with_the_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("app/10.89.0.3");
    let first = Guest::new(folder.path(), 3, &[3], 8);
    assert!(socket.exists());
    first.change(nowhere());
    first.exchange.renew().unwrap();
    assert!(!socket.exists());
    // It is there again; another gets its address before it knows that it left.
    first.change(app(3, &[3]));
    first.exchange.renew().unwrap();
    let second = Guest::new(folder.path(), 3, &[3], 8);
    first.change(nowhere());
    first.exchange.renew().unwrap();
    assert!(socket.exists() && connect_datagrams(&folder.path().join("app"), "10.89.0.3").is_ok());
    drop(second);
    assert!(!socket.exists(), "nor is there one of a box that ended");
}

#[tokio::test]
async fn a_box_that_is_started_anew_is_found_at_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let web = Guest::new(folder.path(), 2, &[2, 3], 8);
    for _ in 0..3 {
        let mut db = Guest::new(folder.path(), 3, &[2, 3], 8);
        assert_eq!(web.sends(2, 3, b"hello"), Ok(false));
        assert!(db.heard.recv().await.unwrap().ends_with(b"hello"));
    }
}

#[tokio::test]
async fn a_box_that_takes_nothing_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let members = [2, 3, 4];
    let web = Guest::new(folder.path(), 2, &members, 8);
    let (_stuck, mut third) = (Guest::new(folder.path(), 3, &members, 1), Guest::new(folder.path(), 4, &members, 8));
    let mut sent = 0;
    while web.sends(2, 3, &[7; 200]) != Err(Refused::Busy) {
        sent += 1;
        assert!(sent < 100_000, "what waits is bounded");
        tokio::task::yield_now().await;
    }
    assert_eq!(web.sends(2, 4, b"passes"), Ok(false));
    assert!(third.heard.recv().await.unwrap().ends_with(b"passes"));
}

#[tokio::test]
async fn who_writes_to_a_socket_is_checked_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut db = Guest::new(folder.path(), 3, &[2, 3], 8);
    let line = connect_datagrams(&folder.path().join("app"), "10.89.0.3").unwrap();
    let mut good = frame(2, 3, b"good");
    let spoofed = frame(1, 3, b"in the name of the gateway");
    for bytes in [&b""[..], &[0; 13], &spoofed, &vec![0; LONGEST + 1]] {
        line.send(bytes).await.unwrap();
    }
    good[..6].copy_from_slice(&mac_of(at(3)));
    line.send(&good).await.unwrap();
    assert!(db.heard.recv().await.unwrap().ends_with(b"good"));
}

/// Its neighbour sends more than it takes: what its own port tells it is told all the same.
#[tokio::test]
async fn a_box_that_is_flooded_hears_who_has_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let web = Guest::new(folder.path(), 2, &[2, 3], 8);
    let mut db = Guest::new(folder.path(), 3, &[2, 3], 4);
    for _ in 0..4 * WAITING {
        let _ = web.sends(2, 3, b"flood");
        tokio::task::yield_now().await;
    }
    let asks = [&ARP_QUESTION[..], &mac_of(at(3)), &at(3).octets(), &[0; 6], &at(2).octets()].concat();
    let mut asks = [&[0xFF; 6][..], &mac_of(at(3)), &[8, 6], &asks].concat();
    assert_eq!(db.exchange.outbound(&mut asks), Ok(false));
    let answer = db.heard.recv().await.unwrap();
    assert_eq!((&answer[12..14], &answer[28..32]), (&[8, 6][..], &at(2).octets()[..]), "not a frame of the flood");
}

/// Who has this address? (RFC 826)
const ARP_QUESTION: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
