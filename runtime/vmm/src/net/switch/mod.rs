//! The switch between guests: what becomes of each frame at one guest's port.
//!
//! ```text
//! guest ── port ──┬── the way out (passt), by the filter and by the rules of the guest's networks
//!                 ├── ports of the other guests of a network, by their addresses
//!                 └── answers of its own: who has an address (ARP), which address has a name (DNS)
//! ```
//!
//! Each guest has one port, which knows the one hardware address and the one IPv4 address that the guest speaks as. Nothing of a guest's
//! is ever sent to many: who has an address is answered here, and so no guest can answer for another. A hardware address follows from
//! the IPv4 address ([`mac_of`]), so that ports need not tell each other any. Where a guest is in a network that is not its card's, its
//! address there is written into its packets here, and the guest sees none of it.
//!
//! Trusts: the view, which is the host's. Trusts neither the guest nor what comes from elsewhere; of another port's frames it checks once
//! more that they are what that port lets through. Never: keeps state between frames but the filter's, sends anything itself.
//! Source: RFC 826; RFC 791; RFC 1035.

mod names;
pub mod opened;
mod rules;
pub mod source_ports;
mod subnet;
mod translate;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::Refused;
use super::filter::Filter;
use super::frame::{
    ARP, ARP_OF_IPV4, DNS, ETHERNET, IPV4, IPV4_HEADER, Packet, TCP, UDP, UDP_HEADER, arp, ethernet, packet,
};
use names::Question;
use translate::{FROM, TO, checksum, readdress};

pub use rules::{Flow, Protocol, Rule, RuleError, Rules};
pub use subnet::{Subnet, SubnetError};

/// A guest's port.
#[derive(Debug)]
pub struct Port {
    /// The guest's addresses, and what it may reach of the machines behind the host.
    pub filter: Filter,
    /// Whom it asks for names.
    pub dns: Vec<Ipv4Addr>,
    /// The networks as they are now.
    pub view: View,
}

/// The networks, as one guest's port sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The card's address is of no network: it has a wire of its own, on which everything leads out that the filter lets through.
    pub own_wire: bool,
    /// Those that the guest is in.
    pub joined: Vec<Joined>,
    /// Those that it is not in.
    pub others: Vec<Subnet>,
}

/// A network that a guest is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub subnet: Subnet,
    /// The guest's among them.
    pub address: Ipv4Addr,
    /// What its guests may do.
    pub rules: Rules,
    /// Every guest that is in it, with its names in lower case.
    pub members: BTreeMap<Ipv4Addr, Vec<String>>,
}

/// Where a frame of the guest's goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way<'a> {
    /// To who carries it out.
    Out,
    /// To another guest's port, as it stands now.
    Neighbour {
        /// The network that both are in.
        network: &'a str,
        /// The other's address.
        address: Ipv4Addr,
    },
    /// Nowhere; the guest is given this frame.
    Back(Vec<u8>),
}

/// The hardware address of who has an IPv4 address on a wire of ours. It is one that nobody was given (RFC 9542 §2.1).
pub const fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xC0, a, b, c, d]
}

impl Port {
    /// What becomes of a frame of the guest's. One for another guest is changed into what that guest is to see.
    ///
    /// # Errors
    /// [`Refused`]: it goes nowhere.
    pub fn outbound<'a>(&'a self, frame: &mut [u8]) -> Result<Way<'a>, Refused> {
        self.filter.outbound(frame)?;
        let (header, rest) = ethernet(frame)?;
        if header[12..] == ARP {
            return self.who_has(rest);
        }
        let packet = packet(rest)?;
        if let Some(message) = self.name(&packet) {
            return Ok(Way::Back(datagram_back(header, &packet, &message)));
        }
        let to = packet.to;
        if to != self.filter.gateway {
            if let Some(joined) = self.view.joined.iter().find(|joined| joined.subnet.contains(to)) {
                joined.between(&packet, to)?;
                joined.carry(frame, to);
                return Ok(Way::Neighbour { network: &joined.name, address: to });
            }
            if self.view.others.iter().any(|other| other.contains(to)) {
                return Err(Refused::OtherNetwork);
            }
        }
        let datagrams = &self.filter.datagrams;
        let answers = if packet.protocol == UDP { datagrams.answers(&packet) } else { !packet.opens() };
        // Names are asked for where anything may be reached by one.
        if !(self.asks_out() && to == self.filter.gateway && self.is_question(&packet)) {
            let flow = Flow { answers, ..self.flow(&packet, to, Port::swapped) };
            self.allowed(|rules| rules.let_out(&flow))?;
        }
        datagrams.goes_out(&packet);
        Ok(Way::Out)
    }

    /// Whether the guest is given a frame of who carries its frames out.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn inbound(&self, frame: &[u8]) -> Result<(), Refused> {
        self.filter.inbound(frame)?;
        let (header, rest) = ethernet(frame)?;
        if header[12..] == ARP {
            return Ok(());
        }
        let packet = packet(rest)?;
        let from = packet.from;
        let networks = self.view.joined.iter().map(|joined| joined.subnet).chain(self.view.others.iter().copied());
        if from != self.filter.gateway && networks.into_iter().any(|subnet| subnet.contains(from)) {
            return Err(Refused::OtherNetwork);
        }
        if self.is_answer_of_resolver(&packet) {
            return Ok(());
        }
        let datagrams = &self.filter.datagrams;
        let published = packet.protocol == TCP || datagrams.comes_in(&packet);
        let flow = Flow { published, ..self.flow(&packet, from, |ports| ports) };
        self.allowed(|rules| rules.let_in(&flow))?;
        datagrams.is_given(&packet);
        Ok(())
    }

    /// Makes a frame of another guest's port in a network one that the guest is given.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn from_neighbour(&self, network: &str, frame: &mut [u8]) -> Result<(), Refused> {
        let joined = self.view.joined.iter().find(|joined| joined.name == network).ok_or(Refused::OtherNetwork)?;
        let (header, rest) = ethernet(frame)?;
        if header[12..] != IPV4 {
            return Err(Refused::Protocol);
        }
        let packet = packet(rest)?;
        if packet.to != joined.address {
            return Err(Refused::NotForIt);
        }
        if header[6..12] != mac_of(packet.from) {
            return Err(Refused::SenderCard);
        }
        if !joined.subnet.is_machine(packet.from) || packet.from == joined.address {
            return Err(Refused::SenderAddress);
        }
        if !joined.rules.between {
            return Err(Refused::Between);
        }
        readdress(&mut frame[ETHERNET..], TO, self.filter.address);
        frame[..6].copy_from_slice(&self.filter.mac);
        Ok(())
    }

    /// Answers for the guests of the card's network. Who leads out answers for himself.
    fn who_has(&self, rest: &[u8]) -> Result<Way<'_>, Refused> {
        let asked = arp(rest)?;
        let target = asked.target;
        if target == self.filter.gateway || target == self.filter.address {
            return Ok(Way::Out);
        }
        if self.view.others.iter().any(|other| other.contains(target)) {
            return Err(Refused::OtherNetwork);
        }
        let Some(joined) = self.view.joined.iter().find(|joined| joined.subnet.contains(target)) else {
            return if self.view.own_wire { Ok(Way::Out) } else { Err(Refused::NoMachine) };
        };
        if !asked.is_question || !joined.members.contains_key(&target) {
            return Err(Refused::NoMember);
        }
        let (mac, to) = (mac_of(target), asked.sender_mac);
        let (ours, theirs) = (target.octets(), asked.sender.octets());
        Ok(Way::Back([&to[..], &mac, &ARP, &ARP_OF_IPV4, &[0, 2], &mac, &ours, &to, &theirs].concat()))
    }

    /// Whether a frame asks for a name: whoever has the view renewed it then.
    pub fn asks_for_a_name(&self, frame: &[u8]) -> bool {
        let packet = ethernet(frame).ok().filter(|(header, _)| header[12..] == IPV4).map(|(_, rest)| packet(rest));
        matches!(packet, Some(Ok(packet)) if self.is_question(&packet))
    }

    fn is_question(&self, packet: &Packet<'_>) -> bool {
        let to_resolver = packet.protocol == UDP && self.dns.contains(&packet.to);
        to_resolver && packet.ports().is_some_and(|(_, to)| to == DNS)
    }

    /// The answer to a question for a name, where it is given here: for a guest of its networks, or where nobody else may be asked.
    fn name(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        if !self.is_question(packet) {
            return None;
        }
        let question = Question::parse(packet.payload.get(UDP_HEADER..)?)?;
        let has = |names: &[String]| names.contains(&question.name);
        // The card's own network first.
        let is_own = |joined: &&Joined| joined.address == self.filter.address;
        let (own, more): (Vec<_>, Vec<_>) = self.view.joined.iter().partition(is_own);
        let found = own.into_iter().chain(more).find_map(|joined| {
            let (address, _) = joined.members.iter().find(|(_, names)| has(names))?;
            Some(if *address == joined.address { self.filter.address } else { *address })
        });
        match found {
            Some(address) => Some(question.answer(address)),
            None if packet.to == self.filter.gateway && !self.asks_out() => Some(question.no_such_name()),
            None => None,
        }
    }

    /// Whether the host's resolver is asked for what is no guest's name: it tells whoever answers it.
    fn asks_out(&self) -> bool {
        self.view.own_wire || self.view.joined.iter().any(|joined| !joined.rules.egress.is_empty())
    }

    fn is_answer_of_resolver(&self, packet: &Packet<'_>) -> bool {
        let from_there = packet.protocol == UDP && packet.from == self.filter.gateway;
        from_there && self.asks_out() && packet.ports().is_some_and(|(from, _)| from == DNS)
    }

    /// A packet as rules see it. `ports`: of sender and receiver, made into those of the other machine and the guest.
    fn flow(&self, packet: &Packet<'_>, remote: Ipv4Addr, ports: fn((u16, u16)) -> (u16, u16)) -> Flow {
        // It stands for who comes from the host's loopback.
        let remote = if remote == self.filter.gateway { Ipv4Addr::LOCALHOST } else { remote };
        let (ports, protocol, opens) = (packet.ports().map(ports), packet.protocol, packet.opens());
        Flow { remote, ports, protocol, opens, published: false, answers: false }
    }

    const fn swapped((from, to): (u16, u16)) -> (u16, u16) {
        (to, from)
    }

    fn allowed(&self, by: impl Fn(&Rules) -> bool) -> Result<(), Refused> {
        let allowed = self.view.own_wire || self.view.joined.iter().any(|joined| by(&joined.rules));
        allowed.then_some(()).ok_or(Refused::Rules)
    }
}

impl Joined {
    /// Whether a packet may go from its guest to another of this network.
    fn between(&self, packet: &Packet<'_>, to: Ipv4Addr) -> Result<(), Refused> {
        if !self.subnet.is_machine(to) || to == self.address {
            return Err(Refused::NoMachine);
        }
        if !self.rules.between {
            return Err(Refused::Between);
        }
        if packet.protocol == UDP && packet.ports_of_first().is_some_and(|(from, to)| is_dhcp(from) || is_dhcp(to)) {
            return Err(Refused::Dhcp);
        }
        self.members.contains_key(&to).then_some(()).ok_or(Refused::NoMember)
    }

    /// Makes a frame of its guest's one of this network.
    fn carry(&self, frame: &mut [u8], to: Ipv4Addr) {
        readdress(&mut frame[ETHERNET..], FROM, self.address);
        frame[..6].copy_from_slice(&mac_of(to));
        frame[6..12].copy_from_slice(&mac_of(self.address));
    }
}

const fn is_dhcp(port: u16) -> bool {
    matches!(port, 67 | 68)
}

/// The frame that carries an answer to where a datagram came from.
fn datagram_back(header: &[u8; ETHERNET], packet: &Packet<'_>, message: &[u8]) -> Vec<u8> {
    const LIVES: u8 = 64;
    let (from, to) = packet.ports().unwrap_or_default();
    let length = UDP_HEADER + message.len();
    let mut ip = vec![0x45, 0];
    ip.extend(((IPV4_HEADER + length) as u16).to_be_bytes());
    // Not to be cut up.
    ip.extend([0, 0, 0x40, 0, LIVES, UDP, 0, 0]);
    ip.extend(packet.to.octets());
    ip.extend(packet.from.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = [to.to_be_bytes(), from.to_be_bytes(), (length as u16).to_be_bytes(), [0, 0]].concat();
    [&header[6..12], &header[..6], &IPV4, &ip, &udp, message].concat()
}

#[cfg(test)]
mod tests;
