//! The programs, judged by the kernel's own verifier and tried by the kernel (`BPF_PROG_TEST_RUN`): frame by frame as a table says, and
//! thousands of frames as the model says. Needs bpf(2); where that is not permitted it says so.

use std::io;

use coffer_spec::{CardProtocol, CardRule, CardRules, Neighbours, Network, Ports};

use super::{
    hold::{HoldError, Loaded},
    model::Model,
    plan::{PATIENCE, Plan},
    program::{DROP, PASS},
    refused::{Direction, Direction::In, Direction::Out, Refused},
};

const OWN: [u8; 4] = [10, 89, 0, 7];
const GATEWAY: [u8; 4] = [10, 89, 0, 1];
const BOX: [u8; 4] = [10, 89, 0, 9];
/// Who may come in, and where the guest may go.
const CLIENT: [u8; 4] = [198, 51, 100, 3];
const SERVER: [u8; 4] = [192, 0, 2, 9];
const STRANGER: [u8; 4] = [203, 0, 113, 5];
const RESOLVER: [u8; 4] = [203, 0, 113, 53];

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn card() -> Network {
    Network {
        address: OWN.into(),
        gateway: GATEWAY.into(),
        dns: vec![GATEWAY.into(), RESOLVER.into()],
        ..Network::user()
    }
}

fn rule(address: [u8; 4], prefix: u8, protocol: Option<CardProtocol>, ports: Option<(u16, u16)>) -> CardRule {
    let ports = ports.map(|(first, last)| Ports { first, last });
    CardRule { address: address.into(), prefix, protocol, ports }
}

/// Clients of one range at two ports of each protocol, a server at three.
fn custom(neighbours: Neighbours) -> CardRules {
    CardRules {
        neighbours,
        tcp: vec![80, 8080],
        udp: vec![53, 5353],
        ingress: vec![
            rule([198, 51, 100, 0], 24, None, None),
            rule([127, 0, 0, 1], 32, Some(CardProtocol::Tcp), Some((8080, 8080))),
        ],
        egress: vec![
            rule([192, 0, 2, 0], 24, Some(CardProtocol::Tcp), Some((443, 445))),
            rule([192, 0, 2, 9], 32, Some(CardProtocol::Udp), Some((123, 123))),
            rule([192, 0, 2, 0], 25, Some(CardProtocol::Icmp), None),
        ],
    }
}

fn open(tcp: &[u16], udp: &[u16]) -> CardRules {
    CardRules::of_own_wire(tcp.to_vec(), udp.to_vec())
}

/// The programs of some rules; nothing where this kernel lets nobody try them.
fn loaded(rules: &CardRules) -> Option<Loaded> {
    match Loaded::new(&Plan::of(&card(), rules)) {
        Ok(loaded) => Some(loaded),
        Err(HoldError::Kernel { error, .. }) if error.kind() == io::ErrorKind::PermissionDenied && !is_root() => {
            println!("skipped: bpf(2) is root's");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn ethernet(kind: u16, rest: &[u8]) -> Vec<u8> {
    [&[2, 0xC0, 10, 89, 0, 7, 2, 0xC0, 10, 89, 0, 1][..], &kind.to_be_bytes(), rest].concat()
}

fn ip(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let head = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0x40, 0, 64, protocol, 0, 0]].concat();
    ethernet(0x0800, &[&head, &from[..], &to, payload].concat())
}

fn tcp(ports: (u16, u16), flags: u8) -> Vec<u8> {
    [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0]]
        .concat()
}

fn udp(ports: (u16, u16)) -> Vec<u8> {
    [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0, 12, 0, 0, 1, 2, 3, 4]].concat()
}

/// A frame with another machine, whose port comes first in `ports`.
fn with(
    way: Direction,
    other: [u8; 4],
    protocol: u8,
    payload: impl Fn((u16, u16)) -> Vec<u8>,
    ports: (u16, u16),
) -> Vec<u8> {
    match way {
        In => ip(other, OWN, protocol, &payload(ports)),
        Out => ip(OWN, other, protocol, &payload((ports.1, ports.0))),
    }
}

fn of_tcp(way: Direction, other: [u8; 4], ports: (u16, u16), flags: u8) -> Vec<u8> {
    with(way, other, 6, |ports| tcp(ports, flags), ports)
}

fn of_udp(way: Direction, other: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    with(way, other, 17, udp, ports)
}

fn of_icmp(way: Direction, other: [u8; 4], kind: u8) -> Vec<u8> {
    with(way, other, 1, |_| vec![kind, 0, 0, 0, 0, 1, 0, 1, 9, 9], (0, 0))
}

/// The beginning of a frame. The kernel makes no trial of IPv4 without a header, so that it is one of ARP then.
fn cut(frame: &[u8], length: usize) -> Vec<u8> {
    let mut short = frame[..length].to_vec();
    if length < 34 {
        short[12..14].copy_from_slice(&[8, 6]);
    }
    short
}

impl Loaded {
    /// What becomes of a frame: whether it passes, and what was counted.
    fn judge(&self, way: Direction, frame: &[u8]) -> Result<(), Refused> {
        let counts = || Refused::ALL.map(|why| self.dropped.counter(why.counter(way)).unwrap());
        let before = counts();
        let verdict = self.programs[way as usize].try_on(frame).unwrap();
        let counted = counts();
        let grown: Vec<_> = (0..before.len()).filter(|at| counted[*at] != before[*at]).collect();
        match (verdict, &grown[..]) {
            (PASS, []) => Ok(()),
            (DROP, [one]) if counted[*one] == before[*one] + 1 => Err(Refused::ALL[*one]),
            other => panic!("{other:?} for {frame:02x?}"),
        }
    }
}

/// What it is, which way it goes, and what becomes of it.
type Row = (&'static str, Direction, Vec<u8>, Result<(), Refused>);

/// Frames of a table against programs that have seen nothing else.
fn table(rules: &CardRules, rows: &[Row]) {
    for (what, way, frame, expected) in rows {
        assert_eq!(Model::of(&card(), rules).judge(*way, frame), *expected, "the model of {what}");
        let Some(loaded) = loaded(rules) else { return };
        assert_eq!(loaded.judge(*way, frame), *expected, "{what}");
    }
}

#[test]
fn what_is_no_whole_packet_of_ipv4_does_not_pass() {
    let good = of_tcp(In, CLIENT, (5000, 80), SYN);
    let changed = |at: usize, byte: u8| {
        let mut other = good.clone();
        other[at] = byte;
        other
    };
    let mut rows = vec![
        ("it as it is", In, good.clone(), Ok(())),
        ("ARP", In, ethernet(0x0806, &[0; 28]), Ok(())),
        ("ARP", Out, ethernet(0x0806, &[0; 28]), Ok(())),
        ("IPv6", In, ethernet(0x86DD, &good[14..]), Err(Refused::Kind)),
        ("IPv6", Out, ethernet(0x86DD, &good[14..]), Err(Refused::Kind)),
        ("a VLAN", In, ethernet(0x8100, &[&[0, 0, 8, 0], &good[14..]].concat()), Err(Refused::Kind)),
        ("a VLAN of providers", In, ethernet(0x88A8, &[&[0, 0, 8, 0], &good[14..]].concat()), Err(Refused::Kind)),
        ("a length in place of a kind", In, ethernet(60, &good[14..]), Err(Refused::Kind)),
        ("options", In, changed(14, 0x46), Err(Refused::Header)),
        ("a short header", In, changed(14, 0x44), Err(Refused::Header)),
        ("another version", In, changed(14, 0x65), Err(Refused::Header)),
        ("the first part", In, changed(20, 0x20), Err(Refused::Part)),
        ("a later part", In, changed(21, 1), Err(Refused::Part)),
        ("a late part", In, changed(20, 0x1F), Err(Refused::Part)),
        ("a reserved bit, which says nothing", In, changed(20, 0x80), Ok(())),
        ("more than there is", In, changed(17, 41), Err(Refused::Broken)),
        ("much more than there is", In, changed(16, 0xFF), Err(Refused::Broken)),
        ("less than TCP has", In, changed(17, 39), Err(Refused::Broken)),
        ("nothing", In, changed(17, 0), Err(Refused::Broken)),
        ("what stands behind it is none of it", In, [&good[..], &[1; 20]].concat(), Ok(())),
        ("another protocol", In, ip(CLIENT, OWN, 132, &[0; 40]), Err(Refused::Kind)),
        ("IPv4 in IPv4", Out, ip(OWN, SERVER, 4, &[0; 40]), Err(Refused::Kind)),
        ("a short UDP", In, ip(CLIENT, OWN, 17, &[0, 1, 0, 53, 0, 8, 0]), Err(Refused::Broken)),
        ("a short ICMP", In, ip(SERVER, OWN, 1, &[0; 7]), Err(Refused::Broken)),
        ("for another", In, ip(CLIENT, BOX, 6, &tcp((5000, 80), SYN)), Err(Refused::NotItsOwn)),
        ("for loopback", In, ip(CLIENT, [127, 0, 0, 1], 6, &tcp((5000, 80), SYN)), Err(Refused::NotItsOwn)),
        ("for all", In, ip(CLIENT, [255; 4], 17, &udp((5000, 53))), Err(Refused::NotItsOwn)),
        ("in another's name", Out, ip(BOX, SERVER, 6, &tcp((5000, 443), SYN)), Err(Refused::NotItsOwn)),
        ("of itself", In, ip(OWN, OWN, 6, &tcp((80, 80), SYN)), Err(Refused::NoMachine)),
    ];
    for end in 15..good.len() {
        rows.push(("cut off", In, cut(&good, end), Err(Refused::Broken)));
    }
    for nobody in [[0, 0, 0, 0], [127, 0, 0, 1], [169, 254, 169, 254], [224, 0, 0, 1], [255; 4], [10, 89, 0, 255]] {
        rows.push(("from nobody", In, of_tcp(In, nobody, (5000, 80), SYN), Err(Refused::NoMachine)));
        rows.push(("to nobody", Out, of_udp(Out, nobody, (53, 5000)), Err(Refused::NoMachine)));
    }
    table(&custom(Neighbours::LikeOthers), &rows);
}

#[test]
fn of_tcp_published_ports_are_reached_and_nothing_else_begins() {
    let rules = custom(Neighbours::LikeOthers);
    let mut rows = vec![
        ("a client", In, of_tcp(In, CLIENT, (5000, 80), SYN), Ok(())),
        ("a client goes on", In, of_tcp(In, CLIENT, (5000, 8080), ACK), Ok(())),
        ("a client is answered", Out, of_tcp(Out, CLIENT, (5000, 80), SYN | ACK), Ok(())),
        ("a client is refused", Out, of_tcp(Out, CLIENT, (5000, 80), RST), Ok(())),
        ("a client is not reached", Out, of_tcp(Out, CLIENT, (5000, 80), SYN), Err(Refused::Begins)),
        ("a client at another port", In, of_tcp(In, CLIENT, (5000, 81), SYN), Err(Refused::Begins)),
        ("between two ports", In, of_tcp(In, CLIENT, (5000, 4000), ACK), Err(Refused::Rules)),
        ("from another port", Out, of_tcp(Out, CLIENT, (5000, 81), ACK), Err(Refused::Rules)),
        ("a stranger", In, of_tcp(In, STRANGER, (5000, 80), SYN), Err(Refused::Begins)),
        ("a stranger goes on", In, of_tcp(In, STRANGER, (5000, 80), ACK), Err(Refused::Rules)),
        ("a stranger is not answered", Out, of_tcp(Out, STRANGER, (5000, 80), SYN | ACK), Err(Refused::Rules)),
        ("the host's loopback", In, of_tcp(In, GATEWAY, (5000, 8080), SYN), Ok(())),
        ("the host's loopback is answered", Out, of_tcp(Out, GATEWAY, (5000, 8080), ACK), Ok(())),
        ("the host's loopback at another port", In, of_tcp(In, GATEWAY, (5000, 80), SYN), Err(Refused::Begins)),
        ("to the host's loopback", Out, of_tcp(Out, GATEWAY, (8080, 9), SYN), Err(Refused::Begins)),
        ("a server", Out, of_tcp(Out, SERVER, (443, 5000), SYN), Ok(())),
        ("a server at the last port", Out, of_tcp(Out, SERVER, (445, 5000), SYN), Ok(())),
        ("a server at another port", Out, of_tcp(Out, SERVER, (446, 5000), SYN), Err(Refused::Begins)),
        ("a server at a port before", Out, of_tcp(Out, SERVER, (442, 5000), ACK), Err(Refused::Rules)),
        ("another server", Out, of_tcp(Out, [192, 0, 3, 9], (443, 5000), SYN), Err(Refused::Begins)),
        ("a server answers", In, of_tcp(In, SERVER, (443, 5000), SYN | ACK), Ok(())),
        ("a server refuses", In, of_tcp(In, SERVER, (443, 5000), RST), Ok(())),
        ("a server begins", In, of_tcp(In, SERVER, (443, 5000), SYN), Err(Refused::Begins)),
        ("a server begins at a port of others", In, of_tcp(In, SERVER, (443, 80), SYN), Err(Refused::Begins)),
        ("a server from another port", In, of_tcp(In, SERVER, (80, 5000), ACK), Err(Refused::Rules)),
        ("a box like any other", In, of_tcp(In, BOX, (5000, 80), SYN), Err(Refused::Begins)),
    ];
    for odd in [0, 1, SYN | RST, SYN | 1, SYN | 1 << 6, 8] {
        rows.push(("that can begin", In, of_tcp(In, SERVER, (443, 22), odd), Err(Refused::Begins)));
    }
    table(&rules, &rows);
    table(
        &open(&[80], &[]),
        &[
            ("anybody", In, of_tcp(In, STRANGER, (5000, 80), SYN), Ok(())),
            ("anybody at another port", In, of_tcp(In, STRANGER, (5000, 81), SYN), Err(Refused::Begins)),
            ("everywhere", Out, of_tcp(Out, STRANGER, (81, 5000), SYN), Ok(())),
            ("everywhere is answered", In, of_tcp(In, STRANGER, (81, 5000), SYN | ACK), Ok(())),
            ("the gateway is not everywhere", Out, of_tcp(Out, GATEWAY, (81, 5000), SYN), Err(Refused::Begins)),
            ("the gateway comes in", In, of_tcp(In, GATEWAY, (5000, 80), SYN), Ok(())),
            ("the gateway answers nothing", In, of_tcp(In, GATEWAY, (81, 5000), ACK), Err(Refused::Rules)),
        ],
    );
}

#[test]
fn of_udp_answers_pass_and_what_was_not_asked_does_not() {
    let rules = custom(Neighbours::LikeOthers);
    table(
        &rules,
        &[
            ("a client", In, of_udp(In, CLIENT, (5000, 53)), Ok(())),
            ("a client at another port", In, of_udp(In, CLIENT, (5000, 54)), Err(Refused::Rules)),
            ("a stranger", In, of_udp(In, STRANGER, (5000, 53)), Err(Refused::Rules)),
            ("the host's loopback, whom rules have for TCP", In, of_udp(In, GATEWAY, (5000, 53)), Err(Refused::Rules)),
            ("a client who did not ask", Out, of_udp(Out, CLIENT, (5000, 53)), Err(Refused::Rules)),
            ("a server", Out, of_udp(Out, SERVER, (123, 5000)), Ok(())),
            ("a server at another port", Out, of_udp(Out, SERVER, (124, 5000)), Err(Refused::Rules)),
            ("a server that was not asked", In, of_udp(In, SERVER, (123, 5000)), Err(Refused::Rules)),
            ("a name of the gateway", Out, of_udp(Out, GATEWAY, (53, 5000)), Ok(())),
            ("a name of the other server", Out, of_udp(Out, RESOLVER, (53, 5000)), Ok(())),
            ("something else of it", Out, of_udp(Out, RESOLVER, (54, 5000)), Err(Refused::Rules)),
            ("a name of somebody else", Out, of_udp(Out, STRANGER, (53, 5000)), Err(Refused::Rules)),
        ],
    );
    let Some(loaded) = loaded(&rules) else { return };
    let card = card();
    let mut model = Model::of(&card, &rules);
    let (ours, theirs) = ((123, 5000), (5001, 53));
    for (what, way, frame, expected) in [
        ("asks", Out, of_udp(Out, SERVER, ours), Ok(())),
        ("is answered", In, of_udp(In, SERVER, ours), Ok(())),
        ("from another port", In, of_udp(In, SERVER, (124, 5000)), Err(Refused::Rules)),
        ("at another port", In, of_udp(In, SERVER, (123, 5001)), Err(Refused::Rules)),
        ("by another", In, of_udp(In, [192, 0, 2, 10], ours), Err(Refused::Rules)),
        ("is asked", In, of_udp(In, CLIENT, theirs), Ok(())),
        ("answers", Out, of_udp(Out, CLIENT, theirs), Ok(())),
        ("answers at another port", Out, of_udp(Out, CLIENT, (5002, 53)), Err(Refused::Rules)),
        ("answers from another port", Out, of_udp(Out, CLIENT, (5001, 5353)), Err(Refused::Rules)),
        ("answers another", Out, of_udp(Out, [198, 51, 100, 4], theirs), Err(Refused::Rules)),
        ("asks for a name", Out, of_udp(Out, GATEWAY, (53, 6000)), Ok(())),
        ("hears it", In, of_udp(In, GATEWAY, (53, 6000)), Ok(())),
        ("hears it at another port", In, of_udp(In, GATEWAY, (53, 6001)), Err(Refused::Rules)),
    ] {
        assert_eq!(model.judge(way, &frame), expected, "the model of {what}");
        assert_eq!(loaded.judge(way, &frame), expected, "{what}");
    }
}

#[test]
fn an_answer_comes_within_three_minutes() {
    let rules = custom(Neighbours::LikeOthers);
    let Some(loaded) = loaded(&rules) else { return };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    let key = |other: [u8; 4], port: u16, own: u16| {
        let mut key = [0; 8];
        key[..4].copy_from_slice(&u32::from_be_bytes(other).to_ne_bytes());
        key[4..6].copy_from_slice(&port.to_ne_bytes());
        key[6..].copy_from_slice(&own.to_ne_bytes());
        key
    };
    let second = PATIENCE / 180;
    for (age, passes) in [(0, true), (170, true), (181, false), (100_000, false)] {
        let Some(then) = now.checked_sub(age * second) else { continue };
        loaded.sent.put(&key(SERVER, 123, 5000), then).unwrap();
        loaded.heard.put(&key(CLIENT, 5001, 53), then).unwrap();
        assert_eq!(loaded.judge(In, &of_udp(In, SERVER, (123, 5000))).is_ok(), passes, "{age}");
        assert_eq!(loaded.judge(Out, &of_udp(Out, CLIENT, (5001, 53))).is_ok(), passes, "{age}");
    }
}

#[test]
fn of_icmp_echoes_go_out_and_their_answers_and_errors_come_back() {
    let mut rows = vec![
        ("an echo", Out, of_icmp(Out, SERVER, 8), Ok(())),
        ("its answer", In, of_icmp(In, SERVER, 0), Ok(())),
        ("somebody else's echo", In, of_icmp(In, SERVER, 8), Err(Refused::Begins)),
        ("an answer to it", Out, of_icmp(Out, SERVER, 0), Err(Refused::Rules)),
        ("an echo to a stranger", Out, of_icmp(Out, STRANGER, 8), Err(Refused::Rules)),
        ("an echo beyond the rule", Out, of_icmp(Out, [192, 0, 2, 200], 8), Err(Refused::Rules)),
        ("an error of a stranger", In, of_icmp(In, STRANGER, 3), Err(Refused::Rules)),
        ("an echo to the gateway", Out, of_icmp(Out, GATEWAY, 8), Err(Refused::Rules)),
    ];
    for kind in [3, 11, 12] {
        rows.push(("an error", In, of_icmp(In, SERVER, kind), Ok(())));
        rows.push(("an error", Out, of_icmp(Out, SERVER, kind), Ok(())));
    }
    // A redirect, routers, times, masks.
    for kind in [1, 5, 9, 10, 13, 14, 17, 18, 255] {
        rows.push(("another kind", In, of_icmp(In, SERVER, kind), Err(Refused::Kind)));
        rows.push(("another kind", Out, of_icmp(Out, SERVER, kind), Err(Refused::Kind)));
    }
    table(&custom(Neighbours::LikeOthers), &rows);
    table(
        &open(&[], &[]),
        &[
            ("an error of the gateway", In, of_icmp(In, GATEWAY, 3), Ok(())),
            ("an echo to the gateway", Out, of_icmp(Out, GATEWAY, 8), Err(Refused::Rules)),
        ],
    );
}

#[test]
fn boxes_of_a_network_reach_each_other_where_it_says_so() {
    let each = |neighbours, expected: Result<(), Refused>| {
        let mut rows = Vec::new();
        for way in Direction::ALL {
            rows.push(("TCP", way, of_tcp(way, BOX, (5000, 22), SYN), expected));
            rows.push(("TCP at a port of others", way, of_tcp(way, BOX, (5000, 80), SYN), expected));
            rows.push(("UDP", way, of_udp(way, BOX, (5000, 22)), expected));
            rows.push(("DHCP", way, of_udp(way, BOX, (67, 68)), Err(Refused::Neighbour)));
            rows.push(("an echo", way, of_icmp(way, BOX, 8), expected));
            rows.push(("its answer", way, of_icmp(way, BOX, 0), expected));
        }
        rows.push(("the gateway is none", In, of_tcp(In, GATEWAY, (5000, 22), SYN), Err(Refused::Begins)));
        rows.push(("others are none", In, of_tcp(In, [10, 89, 1, 9], (5000, 22), SYN), Err(Refused::Begins)));
        rows.push(("a client still comes", In, of_tcp(In, CLIENT, (5000, 80), SYN), Ok(())));
        rows.push(("a name", Out, of_udp(Out, GATEWAY, (53, 5000)), Ok(())));
        table(&custom(neighbours), &rows);
    };
    each(Neighbours::Reached, Ok(()));
    each(Neighbours::KeptApart, Err(Refused::Neighbour));
}

/// The largest rules that a spec can have make programs that the kernel takes.
#[test]
fn the_kernel_takes_the_most_rules_that_there_can_be() {
    let many = |first: u8| {
        (0..CardRules::MOST_RULES as u8).map(move |at| {
            let port = 1000 + 10 * u16::from(at);
            rule([first, at, 0, 0], 16 + at % 17, None, Some((port, port + 7)))
        })
    };
    let ports: Vec<u16> = (1..=CardRules::MOST_PORTS as u16).map(|port| 3 * port).collect();
    let rules = CardRules {
        neighbours: Neighbours::Reached,
        tcp: ports.clone(),
        udp: ports,
        ingress: many(100).collect(),
        egress: many(50).collect(),
    };
    assert!(rules.ingress.iter().all(CardRule::is_possible));
    let Some(loaded) = loaded(&rules) else { return };
    assert_eq!(loaded.judge(Out, &of_tcp(Out, [50, 63, 0, 0], (1637, 9), SYN)), Ok(()));
    assert_eq!(loaded.judge(In, &of_tcp(In, [100, 0, 0, 1], (9, 768), SYN)), Err(Refused::Begins));
    assert_eq!(loaded.judge(In, &of_tcp(In, [100, 0, 0, 1], (9, 1002), SYN)), Err(Refused::Begins));
    let none = CardRules { neighbours: Neighbours::KeptApart, ..open(&[], &[]) };
    let none = CardRules { ingress: vec![], egress: vec![], ..none };
    let Some(loaded) = self::loaded(&none) else { return };
    assert_eq!(loaded.judge(Out, &of_tcp(Out, SERVER, (443, 9), SYN)), Err(Refused::Begins));
    assert_eq!(loaded.judge(Out, &of_udp(Out, GATEWAY, (53, 9))), Ok(()));
}

/// Small numbers of a generator (xorshift): the same on each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn some<T: Clone + Ord>(&mut self, all: &[T]) -> Vec<T> {
        let mut some: Vec<T> = (0..self.below(5)).map(|_| self.of(all)).collect();
        some.sort();
        some.dedup();
        some
    }

    fn rules(&mut self) -> CardRules {
        use CardProtocol::{Icmp, Tcp, Udp};
        let mut rules = Vec::new();
        for at in 0..40_usize {
            let prefix = self.of(&[0, 1, 8, 16, 24, 24, 25, 31, 32, 32]);
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            let machine = u32::from_be_bytes(self.of(&MACHINES)) & mask;
            let protocol = self.of(&[None, None, Some(Tcp), Some(Udp), Some(Icmp)]);
            let ports = (at % 3 > 0 && protocol != Some(Icmp)).then(|| {
                let (one, other) = (self.of(&PORTS).max(1), self.of(&PORTS).max(1));
                (one.min(other), one.max(other))
            });
            rules.push(rule(machine.to_be_bytes(), prefix, protocol, ports));
        }
        CardRules {
            neighbours: self.of(&[Neighbours::LikeOthers, Neighbours::Reached, Neighbours::KeptApart]),
            tcp: self.some(&PORTS[1..]),
            udp: self.some(&PORTS[1..]),
            ingress: self.some(&rules),
            egress: self.some(&rules),
        }
    }

    /// A frame that is mostly whole, and mostly one of the guest's.
    fn frame(&mut self, way: Direction) -> Vec<u8> {
        let other = self.of(&MACHINES);
        let ports = (self.of(&PORTS), self.of(&PORTS));
        let mut frame = match self.below(8) {
            0..=2 => {
                let flags = self.of(&[SYN, SYN | ACK, ACK, RST, RST | ACK, 0, 1, 0xFF, SYN | RST]);
                of_tcp(way, other, ports, flags)
            }
            3..=5 => of_udp(way, other, ports),
            6 => {
                let kind = self.of(&[0, 3, 5, 8, 11, 12, 13]);
                of_icmp(way, other, kind)
            }
            _ => ip(self.of(&MACHINES), self.of(&MACHINES), self.of(&[1, 6, 17, 132]), &[0; 24]),
        };
        for _ in 0..self.of(&[0, 0, 0, 1, 1, 2]) {
            let at = self.below(frame.len());
            frame[at] = self.of(&[0, 1, 0x45, 0x46, 0xFF, 8, 0x40]);
        }
        if self.below(16) == 0 {
            let length = self.below(frame.len() - 15) + 15;
            frame = cut(&frame, length);
        }
        frame
    }
}

const MACHINES: [[u8; 4]; 16] = [
    OWN,
    GATEWAY,
    BOX,
    CLIENT,
    SERVER,
    STRANGER,
    RESOLVER,
    [10, 89, 0, 0],
    [10, 89, 0, 255],
    [10, 89, 1, 2],
    [127, 0, 0, 1],
    [169, 254, 169, 254],
    [168, 63, 129, 16],
    [224, 0, 0, 1],
    [128, 0, 0, 0],
    [192, 0, 2, 8],
];
const PORTS: [u16; 11] = [0, 22, 53, 67, 68, 80, 443, 444, 5353, 40_000, 65_535];

#[test]
fn the_kernel_decides_as_the_rules_mean() {
    let mut chance = Chance(0x5EED_CA4D);
    let (mut passed, mut refused) = ([0; 2], [0; 2]);
    for _ in 0..60 {
        let rules = chance.rules();
        let Some(loaded) = loaded(&rules) else { return };
        let card = card();
        let mut model = Model::of(&card, &rules);
        for _ in 0..1500 {
            let way = chance.of(&Direction::ALL);
            let frame = chance.frame(way);
            let expected = model.judge(way, &frame);
            assert_eq!(loaded.judge(way, &frame), expected, "{way:?} {frame:02x?}\n{rules:#?}");
            let counted = if expected.is_ok() { &mut passed } else { &mut refused };
            counted[way as usize] += 1;
        }
    }
    for counted in passed.into_iter().chain(refused) {
        assert!(counted > 1000, "{passed:?} {refused:?}: hardly anything was tried");
    }
}

/// On the loopback card of a network of the test's own: everything there is of another address than the spec's.
#[test]
fn a_card_is_held_for_as_long_as_its_holder_has_it() {
    let in_a_network_of_its_own = || -> io::Result<Vec<bool>> {
        crate::sys::bpf::trial::network_of_its_own()?;
        crate::sys::net::loopback_up()?;
        let listener = std::net::UdpSocket::bind("127.0.0.1:0")?;
        listener.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
        let hears = || {
            let sent = std::net::UdpSocket::bind("127.0.0.1:0")
                .and_then(|sender| sender.send_to(b"x", listener.local_addr()?));
            sent.is_ok() && listener.recv(&mut [0; 8]).is_ok()
        };
        let mut heard = vec![hears()];
        let held = super::hold(1, &card(), &open(&[], &[])).map_err(io::Error::other)?;
        heard.push(hears());
        assert_eq!(held.dropped(), [(Out, Refused::NotItsOwn, 1)]);
        drop(held);
        heard.push(hears());
        Ok(heard)
    };
    match std::thread::spawn(in_a_network_of_its_own).join().unwrap() {
        Err(error) if !is_root() => println!("skipped: a network of one's own is root's: {error}"),
        heard => assert_eq!(heard.unwrap(), [true, false, true]),
    }
}
