//! The matrix: who reaches whom, over what, before and after a guest joins and leaves.

use super::super::datagrams::Datagrams;
use super::super::frame::{ACK, ICMP, SYN, TCP, TCP_FLAGS};
use super::names::tests::question;
use super::*;

fn at(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

const APP: &str = "10.89.0.0/24";
const OTHER: &str = "10.89.1.0/24";
const OUTSIDE: &str = "203.0.113.9";

/// A network of these boxes, seen by the first of them.
fn joined(name: &str, range: &str, rules: Rules, members: &[(&str, &str)]) -> Joined {
    let named = |(name, address): &(&str, &str)| (at(address), vec![(*name).to_owned(), format!("{name}.app")]);
    Joined {
        name: name.into(),
        subnet: subnet(range),
        address: at(members[0].1),
        rules,
        members: members.iter().map(named).collect(),
    }
}

/// A port whose card is in a network with this address.
fn port(address: &str, view: View) -> Port {
    let address = at(address);
    let range = Subnet::around(address, 24).unwrap();
    let filter = Filter {
        mac: mac_of(address),
        address,
        mask: Ipv4Addr::new(255, 255, 255, 0),
        gateway: range.gateway(),
        resolver: true,
        datagrams: Datagrams::of([5353]),
    };
    Port { dns: vec![filter.gateway], filter, view }
}

fn web(rules: Rules) -> Port {
    let app = joined("app", APP, rules, &[("web", "10.89.0.2"), ("db", "10.89.0.3")]);
    port("10.89.0.2", View { own_wire: false, joined: vec![app], others: vec![subnet(OTHER)] })
}

fn db(rules: Rules) -> Port {
    let app = joined("app", APP, rules, &[("db", "10.89.0.3"), ("web", "10.89.0.2")]);
    port("10.89.0.3", View { own_wire: false, joined: vec![app], others: vec![subnet(OTHER)] })
}

/// A box with a wire of its own.
fn user(joined: Vec<Joined>) -> Port {
    let others = if joined.is_empty() { vec![subnet(APP)] } else { vec![] };
    let mut port = port("10.0.2.15", View { own_wire: true, joined, others });
    port.filter.gateway = at("10.0.2.2");
    port.dns = vec![at("10.0.2.2")];
    port
}

fn ip(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut all = vec![0x45, 0];
    all.extend(((IPV4_HEADER + payload.len()) as u16).to_be_bytes());
    all.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    all.extend(at(from).octets());
    all.extend(at(to).octets());
    let sum = checksum(&all);
    all[10..12].copy_from_slice(&sum.to_be_bytes());
    [&all, payload].concat()
}

/// A frame of whoever has the address, to somebody.
fn frame(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    [&[9; 6][..], &mac_of(at(from)), &IPV4, &ip(from, to, protocol, payload)].concat()
}

fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut header = [from.to_be_bytes(), to.to_be_bytes()].concat();
    header.resize(20, 0);
    header[TCP_FLAGS] = flags;
    header
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = (UDP_HEADER + payload.len()) as u16;
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

/// One packet of each protocol, the beginning of something.
fn beginnings() -> [(u8, Vec<u8>); 3] {
    [(TCP, tcp(5000, 80, SYN)), (UDP, udp(5000, 80, b"x")), (ICMP, vec![8, 0, 0, 0, 0, 1, 0, 1])]
}

fn kind(way: Result<Way<'_>, Refused>) -> Result<&'static str, Refused> {
    way.map(|way| match way {
        Way::Out => "out",
        Way::Neighbour { .. } => "neighbour",
        Way::Back(_) => "back",
    })
}

/// What becomes of the beginning of something, whatever the protocol.
fn sends(port: &Port, from: &str, to: &str) -> Result<&'static str, Refused> {
    let all = beginnings().map(|(protocol, payload)| kind(port.outbound(&mut frame(from, to, protocol, &payload))));
    assert!(all.iter().all(|one| *one == all[0]), "{to}: {all:?}");
    all[0]
}

/// Both ports of one frame: from the first guest to the second.
fn crosses(from: &Port, to: &Port, mut frame: Vec<u8>) -> Result<Vec<u8>, Refused> {
    let (network, address) = match from.outbound(&mut frame)? {
        Way::Neighbour { network, address } => (network.to_owned(), address),
        way => panic!("{way:?}"),
    };
    assert!(to.view.joined.iter().any(|joined| joined.name == network && joined.address == address));
    to.from_neighbour(&network, &mut frame)?;
    Ok(frame)
}

#[test]
fn boxes_of_a_network_reach_each_other_over_every_protocol() {
    for rules in [Rules::open(), Rules::inside()] {
        let (web, db) = (web(rules.clone()), db(rules));
        for (protocol, payload) in beginnings() {
            let sent = frame("10.89.0.2", "10.89.0.3", protocol, &payload);
            let got = crosses(&web, &db, sent.clone()).unwrap();
            assert_eq!(got[ETHERNET..], sent[ETHERNET..], "the packet is as it was");
            assert_eq!((&got[..6], &got[6..12]), (&db.filter.mac[..], &web.filter.mac[..]));
        }
    }
}

#[test]
fn what_a_box_reaches_and_what_it_does_not() {
    let custom = Rules { between: false, egress: vec!["203.0.113.0/24".parse().unwrap()], ingress: vec![] };
    for (to, none, strict, own) in [
        ("10.89.0.3", Ok("neighbour"), Ok("neighbour"), Err(Refused::Between)),
        ("10.89.0.4", Err(Refused::NoMember), Err(Refused::NoMember), Err(Refused::Between)),
        ("10.89.0.2", Err(Refused::NoMachine), Err(Refused::NoMachine), Err(Refused::NoMachine)),
        ("10.89.0.255", Err(Refused::NoMachine), Err(Refused::NoMachine), Err(Refused::NoMachine)),
        ("10.89.1.2", Err(Refused::OtherNetwork), Err(Refused::OtherNetwork), Err(Refused::OtherNetwork)),
        (OUTSIDE, Ok("out"), Err(Refused::Rules), Ok("out")),
        ("192.0.2.1", Ok("out"), Err(Refused::Rules), Err(Refused::Rules)),
        ("10.89.0.1", Err(Refused::Gateway), Err(Refused::Gateway), Err(Refused::Gateway)),
        ("127.0.0.1", Err(Refused::Loopback), Err(Refused::Loopback), Err(Refused::Loopback)),
        ("169.254.169.254", Err(Refused::LinkLocal), Err(Refused::LinkLocal), Err(Refused::LinkLocal)),
        ("224.0.0.251", Err(Refused::NoMachine), Err(Refused::NoMachine), Err(Refused::NoMachine)),
        ("255.255.255.255", Err(Refused::NoMachine), Err(Refused::NoMachine), Err(Refused::NoMachine)),
    ] {
        assert_eq!(sends(&web(Rules::open()), "10.89.0.2", to), none, "none: {to}");
        assert_eq!(sends(&web(Rules::inside()), "10.89.0.2", to), strict, "strict: {to}");
        assert_eq!(sends(&web(custom.clone()), "10.89.0.2", to), own, "custom: {to}");
    }
}

#[test]
fn names_are_asked_for_where_rules_let_anything_out() {
    let custom = Rules { between: true, egress: vec!["203.0.113.0/24".parse().unwrap()], ingress: vec![] };
    for (rules, outcome) in [(custom, Ok("out")), (Rules::open(), Ok("out")), (Rules::inside(), Err(Refused::Rules))] {
        let mut asked = frame("10.89.0.2", "10.89.0.1", UDP, &udp(4000, 53, b"no name of a box's"));
        assert_eq!(kind(web(rules).outbound(&mut asked)), outcome);
    }
}

#[test]
fn a_box_speaks_as_itself_alone() {
    let web = web(Rules::open());
    let payload = udp(1, 2, b"");
    for (mac, from, why) in [
        (mac_of(at("10.89.0.3")), "10.89.0.2", Refused::SenderCard),
        (mac_of(at("10.89.0.2")), "10.89.0.3", Refused::SenderAddress),
        (mac_of(at("10.89.0.2")), "10.89.0.1", Refused::SenderAddress),
        (mac_of(at("10.89.0.2")), "0.0.0.0", Refused::SenderAddress),
    ] {
        for to in ["10.89.0.3", OUTSIDE, "255.255.255.255"] {
            let mut sent = [&[0xFF; 6][..], &mac, &IPV4, &ip(from, to, UDP, &payload)].concat();
            assert_eq!(kind(web.outbound(&mut sent)), Err(why), "{from} {to}");
        }
    }
    // IPv6, router's advertisements among it, is nobody's.
    let mut advertisement = [&[0x33; 6][..], &web.filter.mac, &[0x86, 0xDD], &[0x60; 60]].concat();
    assert_eq!(kind(web.outbound(&mut advertisement)), Err(Refused::Protocol));
}

#[test]
fn nobody_configures_another() {
    for (from, to) in [(67, 68), (68, 67), (67, 5000), (5000, 68)] {
        let mut sent = frame("10.89.0.2", "10.89.0.3", UDP, &udp(from, to, b"offer"));
        assert_eq!(kind(web(Rules::open()).outbound(&mut sent)), Err(Refused::Dhcp), "{from} {to}");
        // Nor by a packet that was cut up: "more fragments".
        sent[ETHERNET + 6] = 0x20;
        assert_eq!(kind(web(Rules::open()).outbound(&mut sent)), Err(Refused::Dhcp), "the first part: {from} {to}");
    }
}

fn asks(port: &Port, operation: u8, target: &str) -> Vec<u8> {
    let (mac, own) = (port.filter.mac, port.filter.address.octets());
    [&[0xFF; 6][..], &mac, &ARP, &ARP_OF_IPV4, &[0, operation], &mac, &own, &[0; 6], &at(target).octets()].concat()
}

#[test]
fn who_has_an_address_is_answered_by_the_switch_and_heard_by_nobody() {
    let web = web(Rules::open());
    let has = |operation, target| {
        web.outbound(&mut asks(&web, operation, target)).map(|way| match way {
            Way::Back(answer) => answer,
            Way::Out => vec![],
            Way::Neighbour { .. } => panic!("{target}"),
        })
    };
    let mac = mac_of(at("10.89.0.3"));
    let answer = has(1, "10.89.0.3").unwrap();
    assert_eq!((&answer[..6], &answer[6..12]), (&web.filter.mac[..], &mac[..]));
    let body = [&ARP_OF_IPV4[..], &[0, 2], &mac, &[10, 89, 0, 3], &web.filter.mac, &[10, 89, 0, 2]].concat();
    assert_eq!(answer[ETHERNET..], body);
    assert_eq!(has(1, "10.89.0.1"), Ok(vec![]), "who leads out answers for himself");
    assert_eq!(has(1, "10.89.0.9"), Err(Refused::NoMember));
    assert_eq!(has(2, "10.89.0.3"), Err(Refused::NoMember), "an answer that nobody asked for");
    assert_eq!(has(1, "10.89.1.3"), Err(Refused::OtherNetwork));
    assert_eq!(has(1, "10.77.0.3"), Err(Refused::NoMachine));
    // In the name of another: the guest is not believed.
    let mut spoofed = asks(&web, 2, "10.89.0.3");
    spoofed[28..32].copy_from_slice(&[10, 89, 0, 1]);
    assert_eq!(kind(web.outbound(&mut spoofed)), Err(Refused::SenderAddress));
}

/// The address that the answer of a question holds; nothing, if there is none.
fn resolves(port: &Port, server: &str, name: &str, kind: u16) -> Result<Option<Ipv4Addr>, &'static str> {
    let own = port.filter.address.to_string();
    let mut sent = frame(&own, server, UDP, &udp(4000, 53, &question(name, kind)));
    match port.outbound(&mut sent) {
        Ok(Way::Back(answer)) => {
            let (header, rest) = ethernet(&answer).unwrap();
            assert_eq!((&header[..6], &header[6..12]), (&port.filter.mac[..], &[9; 6][..]));
            let read = packet(rest).unwrap();
            assert_eq!((read.from, read.to, read.ports()), (at(server), port.filter.address, Some((53, 4000))));
            assert_eq!((checksum(&rest[..IPV4_HEADER]), &read.payload[6..8]), (0, &[0, 0][..]));
            let message = &read.payload[UDP_HEADER..];
            match (message[3] & 15, message[7]) {
                (0, 1) => Ok(Some(Ipv4Addr::from(<[u8; 4]>::try_from(&message[message.len() - 4..]).unwrap()))),
                (0, 0) => Ok(None),
                _ => Err("no such name"),
            }
        }
        Ok(Way::Out) => Err("somebody else is asked"),
        _ => Err("refused"),
    }
}

#[test]
fn names_of_boxes_are_answered_by_the_switch() {
    let (open, strict) = (web(Rules::open()), web(Rules::inside()));
    for web in [&open, &strict] {
        for (name, address) in [("db", "10.89.0.3"), ("DB.App", "10.89.0.3"), ("web", "10.89.0.2")] {
            assert_eq!(resolves(web, "10.89.0.1", name, 1), Ok(Some(at(address))), "{name}");
        }
        assert_eq!(resolves(web, "10.89.0.1", "db", 28), Ok(None), "an address of IPv6");
    }
    assert_eq!(resolves(&open, "10.89.0.1", "example.org", 1), Err("somebody else is asked"));
    assert_eq!(resolves(&strict, "10.89.0.1", "example.org", 1), Err("no such name"), "names carry data out");
    // A server of the user's is asked for all but names of boxes.
    let own = Port { dns: vec![at(OUTSIDE)], ..self::web(Rules::open()) };
    assert_eq!(resolves(&own, OUTSIDE, "db", 1), Ok(Some(at("10.89.0.3"))));
    assert_eq!(resolves(&own, OUTSIDE, "example.org", 1), Err("somebody else is asked"));
    let mut odd = frame("10.89.0.2", "10.89.0.1", UDP, &udp(4000, 53, b"no question"));
    assert_eq!(kind(strict.outbound(&mut odd)), Err(Refused::Rules));
    assert_eq!(kind(open.outbound(&mut odd)), Ok("out"));
}

/// Something for a guest from who carries its frames.
fn arrives(port: &Port, from: &str, protocol: u8, payload: &[u8]) -> Result<(), Refused> {
    let own = port.filter.address.to_string();
    port.inbound(&[&port.filter.mac[..], &[9; 6], &IPV4, &ip(from, &own, protocol, payload)].concat())
}

#[test]
fn what_comes_from_outside_is_what_the_rules_let_in() {
    let (open, strict) = (web(Rules::open()), web(Rules::inside()));
    let local: Rules = Rules { between: true, egress: vec![], ingress: vec!["127.0.0.1:80".parse().unwrap()] };
    let local = web(local);
    let (begins, answers) = (tcp(4000, 80, SYN), tcp(443, 5000, ACK));
    assert_eq!(arrives(&open, OUTSIDE, TCP, &begins), Ok(()));
    assert_eq!(arrives(&open, "10.89.0.1", TCP, &begins), Ok(()), "from the host's loopback");
    assert_eq!(arrives(&open, OUTSIDE, TCP, &answers), Ok(()));
    let asks = |port: &Port| kind(port.outbound(&mut frame("10.89.0.2", "10.89.0.1", UDP, &udp(4000, 53, b"x"))));
    assert_eq!(arrives(&open, "10.89.0.1", UDP, &udp(53, 4000, b"")), Err(Refused::Unasked));
    assert_eq!((asks(&open), asks(&strict)), (Ok("out"), Err(Refused::Rules)));
    assert_eq!(arrives(&open, "10.89.0.1", UDP, &udp(53, 4000, b"")), Ok(()));
    for (from, payload) in [(OUTSIDE, &begins), ("10.89.0.1", &begins), (OUTSIDE, &answers)] {
        assert_eq!(arrives(&strict, from, TCP, payload), Err(Refused::Rules), "{from}");
    }
    assert_eq!(arrives(&strict, "10.89.0.1", UDP, &udp(53, 4000, b"")), Err(Refused::Unasked));
    assert_eq!(arrives(&local, "10.89.0.1", TCP, &begins), Ok(()), "the gateway stands for 127.0.0.1");
    assert_eq!(arrives(&local, OUTSIDE, TCP, &begins), Err(Refused::Rules));
    let answer = |port: &Port, to| kind(port.outbound(&mut frame("10.89.0.2", to, TCP, &tcp(80, 4000, SYN | ACK))));
    assert_eq!((answer(&local, "10.89.0.1"), answer(&strict, "10.89.0.1")), (Ok("out"), Err(Refused::Rules)));
    // Nobody outside has an address of a box's.
    for from in ["10.89.0.3", "10.89.1.2"] {
        assert_eq!(arrives(&open, from, TCP, &answers), Err(Refused::OtherNetwork), "{from}");
    }
}

#[test]
fn datagrams_come_in_by_published_ports_and_are_answered_by_the_rules() {
    let rules = |rule: &str| Rules { between: true, egress: vec![], ingress: vec![rule.parse().unwrap()] };
    let (comes, goes) = (udp(4000, 5353, b"asks"), udp(5353, 4000, b"answers"));
    let answer = |port: &Port, to| kind(port.outbound(&mut frame("10.89.0.2", to, UDP, &goes)));
    for (rule, from, other) in
        [("127.0.0.1:5353/udp", "10.89.0.1", OUTSIDE), ("203.0.113.0/24/udp", OUTSIDE, "10.89.0.1")]
    {
        let port = web(rules(rule));
        let shut = if other == OUTSIDE { Refused::Rules } else { Refused::Gateway };
        assert!(answer(&port, from).is_err(), "nobody asked: {rule}");
        assert_eq!(arrives(&port, other, UDP, &comes), Err(Refused::Rules), "{rule}");
        assert_eq!(answer(&port, other), Err(shut), "who was not let in is not answered: {rule}");
        assert_eq!(arrives(&port, from, UDP, &comes), Ok(()), "{rule}");
        assert_eq!(answer(&port, from), Ok("out"), "{rule}");
        assert_eq!(arrives(&port, from, UDP, &udp(4000, 5354, b"")), Err(Refused::Unasked), "{rule}");
        for (own, to) in [(5353, 4001), (5354, 4000)] {
            let mut other = frame("10.89.0.2", from, UDP, &udp(own, to, b""));
            assert!(port.outbound(&mut other).is_err(), "{rule}: {own} {to}");
        }
    }
    assert_eq!(arrives(&web(rules("203.0.113.0/24/tcp")), OUTSIDE, UDP, &comes), Err(Refused::Rules));
    assert_eq!(arrives(&web(Rules::open()), OUTSIDE, UDP, &comes), Ok(()));
    assert_eq!(arrives(&user(vec![]), OUTSIDE, UDP, &comes), Ok(()));
    // A guest that sends opens its port to whom it sent, and to nobody else.
    let open = web(Rules::open());
    let mut sent = frame("10.89.0.2", OUTSIDE, UDP, &udp(8125, 123, b""));
    assert_eq!(kind(open.outbound(&mut sent)), Ok("out"));
    assert_eq!(arrives(&open, OUTSIDE, UDP, &udp(123, 8125, b"")), Ok(()));
    for (from, port) in [(OUTSIDE, 124), ("10.89.0.1", 123), ("203.0.113.10", 123)] {
        assert_eq!(arrives(&open, from, UDP, &udp(port, 8125, b"")), Err(Refused::Unasked), "{from} {port}");
    }
}

#[test]
fn what_another_port_sends_is_checked_once_more() {
    let db = db(Rules::open());
    let good =
        || [&db.filter.mac[..], &mac_of(at("10.89.0.2")), &IPV4, &ip("10.89.0.2", "10.89.0.3", UDP, b"1234")].concat();
    let with = |range: std::ops::Range<usize>, bytes: &[u8]| {
        let mut other = good();
        other[range].copy_from_slice(bytes);
        db.from_neighbour("app", &mut other)
    };
    assert_eq!(db.from_neighbour("app", &mut good()), Ok(()));
    assert_eq!(db.from_neighbour("other", &mut good()), Err(Refused::OtherNetwork));
    assert_eq!(with(6..12, &[2; 6]), Err(Refused::SenderCard));
    assert_eq!(with(12..14, &ARP), Err(Refused::Protocol));
    assert_eq!(with(30..34, &[10, 89, 0, 4]), Err(Refused::NotForIt));
    for from in [[10, 89, 0, 3], [10, 89, 0, 1], [10, 89, 0, 255], [10, 89, 1, 2]] {
        let mut other = good();
        other[6..12].copy_from_slice(&mac_of(from.into()));
        other[26..30].copy_from_slice(&from);
        assert_eq!(db.from_neighbour("app", &mut other), Err(Refused::SenderAddress), "{from:?}");
    }
    let apart = self::db(Rules { between: false, ..Rules::open() });
    assert_eq!(apart.from_neighbour("app", &mut good()), Err(Refused::Between));
    for end in 0..good().len() {
        assert!(db.from_neighbour("app", &mut good()[..end].to_vec()).is_err(), "{end}");
    }
}

/// A box with a wire of its own joins a network and leaves it; its card stays as it is.
#[test]
fn a_box_that_joins_is_reached_by_the_address_it_has_there() {
    let guest = || joined("app", APP, Rules::open(), &[("guest", "10.89.0.7"), ("db", "10.89.0.3")]);
    let (before, during) = (user(vec![]), user(vec![guest()]));
    let db = {
        let app = joined("app", APP, Rules::open(), &[("db", "10.89.0.3"), ("guest", "10.89.0.7")]);
        port("10.89.0.3", View { own_wire: false, joined: vec![app], others: vec![] })
    };
    assert_eq!(sends(&before, "10.0.2.15", "10.89.0.3"), Err(Refused::OtherNetwork));
    assert_eq!(sends(&during, "10.0.2.15", "10.89.0.3"), Ok("neighbour"));
    assert_eq!(resolves(&during, "10.0.2.2", "db", 1), Ok(Some(at("10.89.0.3"))));
    assert_eq!(resolves(&during, "10.0.2.2", "guest", 1), Ok(Some(at("10.0.2.15"))), "itself, by the address it knows");
    assert_eq!(resolves(&before, "10.0.2.2", "db", 1), Err("somebody else is asked"));
    for to in ["10.89.0.7", "10.89.0.1", "10.89.0.255"] {
        assert_eq!(sends(&during, "10.0.2.15", to), Err(Refused::NoMachine), "{to}");
    }
    // There and back again.
    let got = crosses(&during, &db, frame("10.0.2.15", "10.89.0.3", UDP, &udp(4000, 80, b"x"))).unwrap();
    let read = packet(&got[ETHERNET..]).unwrap();
    assert_eq!((read.from, read.to, &got[6..12]), (at("10.89.0.7"), at("10.89.0.3"), &mac_of(at("10.89.0.7"))[..]));
    assert_eq!(checksum(&got[ETHERNET..ETHERNET + IPV4_HEADER]), 0);
    let back = crosses(&db, &during, frame("10.89.0.3", "10.89.0.7", UDP, &udp(80, 4000, b"y"))).unwrap();
    let read = packet(&back[ETHERNET..]).unwrap();
    assert_eq!((read.from, read.to, &back[..6]), (at("10.89.0.3"), at("10.0.2.15"), &during.filter.mac[..]));
    assert_eq!(checksum(&back[ETHERNET..ETHERNET + IPV4_HEADER]), 0);
    // What leads out is as it was.
    for port in [&before, &during] {
        assert_eq!(sends(port, "10.0.2.15", OUTSIDE), Ok("out"));
        assert_eq!(sends(port, "10.0.2.15", "10.0.2.2"), Err(Refused::Gateway));
        assert_eq!(arrives(port, OUTSIDE, TCP, &tcp(4000, 80, SYN)), Ok(()));
    }
}

#[test]
fn a_box_that_leaves_the_network_of_its_card_reaches_nobody() {
    let left = port("10.89.0.2", View { own_wire: false, joined: vec![], others: vec![subnet(APP), subnet(OTHER)] });
    assert_eq!(sends(&left, "10.89.0.2", "10.89.0.3"), Err(Refused::OtherNetwork));
    assert_eq!(sends(&left, "10.89.0.2", OUTSIDE), Err(Refused::Rules));
    assert_eq!(arrives(&left, OUTSIDE, TCP, &tcp(4000, 80, SYN)), Err(Refused::Rules));
    assert_eq!(arrives(&left, "10.89.0.1", TCP, &tcp(4000, 80, ACK)), Err(Refused::Rules));
    assert_eq!(kind(left.outbound(&mut asks(&left, 1, "10.89.0.3"))), Err(Refused::OtherNetwork));
    assert_eq!(resolves(&left, "10.89.0.1", "db", 1), Err("no such name"));
    let mut late =
        [&left.filter.mac[..], &mac_of(at("10.89.0.3")), &IPV4, &ip("10.89.0.3", "10.89.0.2", UDP, b"")].concat();
    assert_eq!(left.from_neighbour("app", &mut late), Err(Refused::OtherNetwork));
    // In another it has what that one gives.
    let other = joined("other", OTHER, Rules::open(), &[("web", "10.89.1.2"), ("x", "10.89.1.3")]);
    let moved = port("10.89.0.2", View { own_wire: false, joined: vec![other], others: vec![subnet(APP)] });
    assert_eq!(sends(&moved, "10.89.0.2", "10.89.1.3"), Ok("neighbour"));
    assert_eq!(sends(&moved, "10.89.0.2", "10.89.0.3"), Err(Refused::OtherNetwork));
    assert_eq!(sends(&moved, "10.89.0.2", OUTSIDE), Ok("out"));
}
