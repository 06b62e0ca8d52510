//! Datagrams of UDP between a guest and the machines behind its host: which of them answer others.
//!
//! Nothing in a datagram says that it answers one. So it is remembered who sent what to whom a little while ago: a datagram for the
//! guest answers one of its own, or goes to a port that others come in by; and one of the guest's answers where one came in before.
//! Whoever says nothing for 90 seconds may be forgotten, and is after 180, as he is by whoever floods: so many are remembered
//! of each direction, and the older half goes first.
//!
//! Trusts: nobody. Never: keeps a datagram; remembers more than [`MOST`] twice of each direction.
//! Source: RFC 768; RFC 4787 §4.3, whose two minutes for what a guest began lie between the two times.

use std::collections::{BTreeSet, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::frame::{Packet, UDP};
use super::line::now;

/// Remembered of each direction before the older ones go.
const MOST: usize = 4096;
/// How long each is remembered at least, where nobody floods; and at most twice that.
const PATIENCE: Duration = Duration::from_secs(90);

/// What one guest's datagrams are.
#[derive(Debug, Default)]
pub struct Datagrams {
    /// The guest's ports that others come in by.
    published: BTreeSet<u16>,
    /// Whose address the host's loopback comes with, and the ports that nobody else reaches.
    loopback: Option<(Ipv4Addr, BTreeSet<u16>)>,
    /// Begun by the guest.
    sent: Mutex<Recent>,
    /// Begun by others.
    heard: Mutex<Recent>,
}

impl Datagrams {
    /// Of a guest with these ports that others come in by.
    pub fn of(published: impl IntoIterator<Item = u16>) -> Self {
        Self { published: published.into_iter().collect(), ..Self::default() }
    }

    /// Those who have the gateway's address come in by these ports alone, which only the host's loopback reaches: at any other, somebody on
    /// another machine could have it too, and what answers him would go to the loopback.
    #[must_use]
    pub fn with_loopback(self, gateway: Ipv4Addr, ports: impl IntoIterator<Item = u16>) -> Self {
        Self { loopback: Some((gateway, ports.into_iter().collect())), ..self }
    }

    /// Whether others come in by this port of the guest's.
    pub fn is_published(&self, port: u16) -> bool {
        self.published.contains(&port)
    }

    /// Whether a packet for the guest goes to a port that others come in by.
    pub fn comes_in(&self, packet: &Packet<'_>) -> bool {
        Pair::inbound(packet).is_some_and(|pair| self.lets_in(pair))
    }

    fn lets_in(&self, pair: Pair) -> bool {
        let apart = self.loopback.as_ref().filter(|(gateway, _)| *gateway == pair.machine);
        self.published.contains(&pair.own) && apart.is_none_or(|(_, ports)| ports.contains(&pair.own))
    }

    /// Whether a packet for the guest answers one of its own.
    pub fn was_asked(&self, packet: &Packet<'_>) -> bool {
        Pair::inbound(packet).is_some_and(|pair| recent(&self.sent, |sent| sent.has(pair)))
    }

    /// Whether a packet of the guest's answers what came in before.
    pub fn answers(&self, packet: &Packet<'_>) -> bool {
        Pair::outbound(packet).is_some_and(|pair| recent(&self.heard, |heard| heard.has(pair)))
    }

    /// A packet of the guest's goes out.
    pub fn goes_out(&self, packet: &Packet<'_>) {
        if let Some(pair) = Pair::outbound(packet) {
            recent(&self.sent, |sent| sent.remember(pair));
        }
    }

    /// A packet is given to the guest.
    pub fn is_given(&self, packet: &Packet<'_>) {
        if let Some(pair) = Pair::inbound(packet).filter(|pair| self.lets_in(*pair)) {
            recent(&self.heard, |heard| heard.remember(pair));
        }
    }
}

/// Another machine, its port, and the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    machine: Ipv4Addr,
    port: u16,
    own: u16,
}

impl Pair {
    fn inbound(packet: &Packet<'_>) -> Option<Self> {
        let (port, own) = packet.ports().filter(|_| packet.protocol == UDP)?;
        Some(Self { machine: packet.from, port, own })
    }

    fn outbound(packet: &Packet<'_>) -> Option<Self> {
        let (own, port) = packet.ports().filter(|_| packet.protocol == UDP)?;
        Some(Self { machine: packet.to, port, own })
    }
}

/// Those of the last while, in two halves, of which the older is forgotten at once.
#[derive(Debug, Default)]
struct Recent {
    young: HashSet<Pair>,
    old: HashSet<Pair>,
    since: Option<Instant>,
}

fn recent<T>(all: &Mutex<Recent>, with: impl FnOnce(&mut Recent) -> T) -> T {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.turn();
    with(&mut all)
}

impl Recent {
    fn turn(&mut self) {
        let now = now();
        let passed = now.duration_since(*self.since.get_or_insert(now));
        if passed < PATIENCE && self.young.len() < MOST {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        if passed >= 2 * PATIENCE {
            self.old.clear();
        }
        self.since = Some(now);
    }

    fn remember(&mut self, pair: Pair) {
        self.young.insert(pair);
    }

    fn has(&self, pair: Pair) -> bool {
        self.young.contains(&pair) || self.old.contains(&pair)
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::clock;
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

    fn ports(from: u16, to: u16) -> Vec<u8> {
        [from.to_be_bytes(), to.to_be_bytes()].concat()
    }

    fn packet(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Packet<'_> {
        Packet { from, to, protocol: UDP, is_part: false, is_first: true, payload }
    }

    #[test]
    fn an_answer_is_what_came_before_turned_round_and_nothing_beside_it() {
        let all = Datagrams::of([53]);
        let (asks, answers) = (ports(5000, 53), ports(53, 5000));
        assert!(all.comes_in(&packet(CLIENT, OWN, &asks)) && !all.comes_in(&packet(CLIENT, OWN, &answers)));
        assert!(!all.answers(&packet(OWN, CLIENT, &answers)), "nobody asked");
        all.is_given(&packet(CLIENT, OWN, &asks));
        assert!(all.answers(&packet(OWN, CLIENT, &answers)));
        let elsewhere = Ipv4Addr::new(198, 51, 100, 4);
        for (to, payload) in [(elsewhere, ports(53, 5000)), (CLIENT, ports(53, 5001)), (CLIENT, ports(54, 5000))] {
            assert!(!all.answers(&packet(OWN, to, &payload)), "{to} {payload:?}");
        }
        assert!(!all.answers(&Packet { is_part: true, ..packet(OWN, CLIENT, &answers) }));
        assert!(!all.answers(&Packet { protocol: 6, ..packet(OWN, CLIENT, &answers) }));
        // What the guest was given at a port that nobody comes in by makes it no answerer.
        all.is_given(&packet(CLIENT, OWN, &ports(9, 54)));
        assert!(!all.answers(&packet(OWN, CLIENT, &ports(54, 9))));
        // What it began.
        assert!(!all.was_asked(&packet(CLIENT, OWN, &ports(123, 4000))));
        all.goes_out(&packet(OWN, CLIENT, &ports(4000, 123)));
        assert!(all.was_asked(&packet(CLIENT, OWN, &ports(123, 4000))));
        assert!(!all.was_asked(&packet(CLIENT, OWN, &ports(124, 4000))));
        assert!(!all.was_asked(&packet(elsewhere, OWN, &ports(123, 4000))));
    }

    #[test]
    fn whoever_has_the_gateways_address_comes_in_by_ports_of_the_loopback_alone() {
        let gateway = Ipv4Addr::new(10, 0, 2, 2);
        let all = Datagrams::of([53, 54]).with_loopback(gateway, [54]);
        for (from, to, comes) in [(gateway, 53, false), (gateway, 54, true), (CLIENT, 53, true), (CLIENT, 54, true)] {
            let (asks, answers) = (ports(7778, to), ports(to, 7778));
            assert_eq!(all.comes_in(&packet(from, OWN, &asks)), comes, "{from} {to}");
            all.is_given(&packet(from, OWN, &asks));
            assert_eq!(all.answers(&packet(OWN, from, &answers)), comes, "{from} {to}");
        }
    }

    #[test]
    fn whoever_says_nothing_is_forgotten_and_a_flood_has_bounds() {
        let all = Datagrams::of([53]);
        let (asks, answers) = (ports(5000, 53), ports(53, 5000));
        let heard = || all.is_given(&packet(CLIENT, OWN, &asks));
        let answered = || all.answers(&packet(OWN, CLIENT, &answers));
        heard();
        clock::pass(PATIENCE);
        assert!(answered(), "for 90 seconds");
        clock::pass(PATIENCE);
        assert!(!answered(), "for 180 at most");
        heard();
        clock::pass(2 * PATIENCE);
        assert!(!answered(), "however seldom anybody looks");
        // The guest's own answers keep nobody here.
        heard();
        for _ in 0..2 {
            clock::pass(PATIENCE);
            all.goes_out(&packet(OWN, CLIENT, &answers));
            let _ = answered();
        }
        assert!(!answered());
        heard();
        for other in 0..3 * MOST as u32 {
            all.is_given(&packet(Ipv4Addr::from(other), OWN, &asks));
            let heard = all.heard.lock().unwrap();
            assert!(heard.young.len() <= MOST && heard.old.len() <= MOST);
        }
        assert!(!answered());
        heard();
        assert!(answered());
    }
}
