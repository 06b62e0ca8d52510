//! What the rules of a card mean, in plain Rust and from the spec itself: what the programs are compared with.

use std::{collections::HashSet, net::Ipv4Addr};

use coffer_spec::{CardProtocol, CardRule, CardRules, Neighbours, Network};

use super::refused::{Direction, Refused};

const METADATA: [[u8; 4]; 3] = [[168, 63, 129, 16], [100, 100, 100, 200], [192, 0, 0, 192]];

/// A card, and what was sent and heard by UDP: the other machine, its port, the guest's.
pub struct Model<'a> {
    card: &'a Network,
    rules: &'a CardRules,
    sent: HashSet<(Ipv4Addr, u16, u16)>,
    heard: HashSet<(Ipv4Addr, u16, u16)>,
}

fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

fn must(holds: bool, otherwise: Refused) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl<'a> Model<'a> {
    pub fn of(card: &'a Network, rules: &'a CardRules) -> Self {
        Self { card, rules, sent: HashSet::new(), heard: HashSet::new() }
    }

    /// Whether a frame passes, and what is remembered of it.
    pub fn judge(&mut self, way: Direction, frame: &[u8]) -> Result<(), Refused> {
        must(frame.len() >= 34, Refused::Broken)?;
        match number(frame, 12) {
            0x0806 => return Ok(()),
            0x0800 => {}
            _ => return Err(Refused::Kind),
        }
        let packet = &frame[14..];
        must(packet[0] == 0x45, Refused::Header)?;
        // The two highest bits say nothing of parts.
        must(number(packet, 6) << 2 == 0, Refused::Part)?;
        let length = usize::from(number(packet, 2));
        must(length <= packet.len(), Refused::Broken)?;
        let (from, to) = (address(packet, 12), address(packet, 16));
        let (own, other) = if way == Direction::In { (to, from) } else { (from, to) };
        must(own == self.card.address, Refused::NotItsOwn)?;
        must(self.is_machine(other), Refused::NoMachine)?;
        let of = match packet[9] {
            6 => CardProtocol::Tcp,
            17 => CardProtocol::Udp,
            1 => CardProtocol::Icmp,
            _ => return Err(Refused::Kind),
        };
        let least = if of == CardProtocol::Tcp { 40 } else { 28 };
        must(length >= least, Refused::Broken)?;
        let rest = &packet[20..length];
        match of {
            CardProtocol::Icmp => self.icmp(way, other, rest[0]),
            _ => self.with_ports(way, other, of, rest),
        }
    }

    fn is_machine(&self, it: Ipv4Addr) -> bool {
        let all_ones = self.card.address | !self.card.mask();
        let odd = it.octets()[0] == 0 || it.octets()[0] >= 224 || it.is_loopback() || it.is_link_local();
        let own = [self.card.address, all_ones, self.card.address & self.card.mask()].contains(&it);
        !odd && !own && !METADATA.contains(&it.octets())
    }

    fn is_neighbour(&self, it: Ipv4Addr) -> bool {
        it != self.card.gateway && self.card.contains(it)
    }

    /// Decides where it is one; nothing where it is none, or like any other.
    fn neighbour(&self, it: Ipv4Addr) -> Option<Result<(), Refused>> {
        match self.rules.neighbours {
            Neighbours::Reached if self.is_neighbour(it) => Some(Ok(())),
            Neighbours::KeptApart if self.is_neighbour(it) => Some(Err(Refused::Neighbour)),
            _ => None,
        }
    }

    fn admits(&self, rules: &[CardRule], it: Ipv4Addr, of: CardProtocol, port: Option<u16>) -> bool {
        let it = if it == self.card.gateway { Ipv4Addr::LOCALHOST } else { it };
        rules.iter().any(|rule| {
            let bits = 32 - u32::from(rule.prefix);
            let is_in = (u32::from(it) ^ u32::from(rule.address)).checked_shr(bits).is_none_or(|rest| {
                // Shifted by 32 there is nothing left to differ.
                bits == 32 || rest == 0
            });
            is_in
                && rule.protocol.is_none_or(|wanted| wanted == of)
                && rule.ports.is_none_or(|ports| port.is_some_and(|port| ports.first <= port && port <= ports.last))
        })
    }

    fn with_ports(&mut self, way: Direction, it: Ipv4Addr, of: CardProtocol, rest: &[u8]) -> Result<(), Refused> {
        let (own, port) = match way {
            Direction::In => (number(rest, 2), number(rest, 0)),
            Direction::Out => (number(rest, 0), number(rest, 2)),
        };
        let pair = (it, port, own);
        if of == CardProtocol::Udp && way == Direction::In && self.sent.contains(&pair) {
            return Ok(());
        }
        if of == CardProtocol::Udp && way == Direction::Out && port == 53 && self.card.dns.contains(&it) {
            self.sent.insert(pair);
            return Ok(());
        }
        if let Some(decided) = self.neighbour(it) {
            let dhcp = of == CardProtocol::Udp && (matches!(own, 67 | 68) || matches!(port, 67 | 68));
            return if dhcp { Err(Refused::Neighbour) } else { decided };
        }
        let ports = if of == CardProtocol::Tcp { &self.rules.tcp } else { &self.rules.udp };
        let comes_in = ports.contains(&own) && self.admits(&self.rules.ingress, it, of, Some(own));
        let goes = it != self.card.gateway && self.admits(&self.rules.egress, it, of, Some(port));
        if of == CardProtocol::Udp {
            return match way {
                Direction::In if comes_in => {
                    self.heard.insert(pair);
                    Ok(())
                }
                Direction::Out if comes_in && self.heard.contains(&pair) => Ok(()),
                Direction::Out if goes => {
                    self.sent.insert(pair);
                    Ok(())
                }
                _ => Err(Refused::Rules),
            };
        }
        let has = |flag: u8| rest[13] & flag != 0;
        let (syn, rst, ack) = (has(2), has(4), has(16));
        match way {
            Direction::In if comes_in => Ok(()),
            Direction::In if !ack && (syn || !rst) => Err(Refused::Begins),
            Direction::In => must(goes, Refused::Rules),
            Direction::Out if goes => Ok(()),
            Direction::Out if syn && !ack => Err(Refused::Begins),
            Direction::Out => must(comes_in, Refused::Rules),
        }
    }

    fn icmp(&self, way: Direction, it: Ipv4Addr, kind: u8) -> Result<(), Refused> {
        must(matches!(kind, 0 | 3 | 8 | 11 | 12), Refused::Kind)?;
        if let Some(decided) = self.neighbour(it) {
            return decided;
        }
        must(way == Direction::Out || kind != 8, Refused::Begins)?;
        must(way == Direction::In || kind != 0 && it != self.card.gateway, Refused::Rules)?;
        must(self.admits(&self.rules.egress, it, CardProtocol::Icmp, None), Refused::Rules)
    }
}
