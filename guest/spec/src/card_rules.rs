//! What may pass a guest's card, as its spec has it: the same that the switch outside holds plain boxes to, in a guest that proves itself
//! measured, and enforced inside of it too.
//!
//! What no rule allows does not pass. The gateway stands for who comes from the host's loopback: rules know it as 127.0.0.1, and nobody
//! begins anything with it but questions for names. Servers of [`crate::Network::dns`] are asked over UDP at port 53 whatever rules say.

use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Rules of a card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardRules {
    /// What the other addresses of the card's own network are.
    pub neighbours: Neighbours,
    /// Ports of TCP that others come in by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<u16>,
    /// The same of UDP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub udp: Vec<u16>,
    /// Who comes in by them: `ports` are the guest's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<CardRule>,
    /// Where the guest goes: `ports` are the others'.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<CardRule>,
}

/// The other addresses of a card's own network, but for the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Neighbours {
    /// Machines like any other: the wire is the guest's alone.
    LikeOthers,
    /// Boxes that it reaches and that reach it, at every port.
    Reached,
    /// Boxes that it neither reaches nor hears.
    KeptApart,
}

/// Machines, and what is spoken with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardRule {
    /// The first address of a range.
    pub address: Ipv4Addr,
    /// Bits that its addresses share.
    pub prefix: u8,
    /// Which protocol; all, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<CardProtocol>,
    /// Which ports; all, if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
}

/// Ports in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, included.
    pub last: u16,
}

/// A protocol that rules know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CardProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

impl CardRules {
    /// Most ports of either protocol.
    pub const MOST_PORTS: usize = 256;
    /// Most rules of either direction.
    pub const MOST_RULES: usize = 64;

    /// Those of a card that is in no network: everybody comes in by these ports, and the guest goes everywhere.
    pub fn of_own_wire(tcp: Vec<u16>, udp: Vec<u16>) -> Self {
        Self { neighbours: Neighbours::LikeOthers, tcp, udp, ingress: vec![CardRule::ALL], egress: vec![CardRule::ALL] }
    }
}

impl CardRule {
    /// Every machine, by whatever protocol.
    pub const ALL: Self = Self { address: Ipv4Addr::UNSPECIFIED, prefix: 0, protocol: None, ports: None };

    /// The bits that its addresses share.
    pub fn mask(&self) -> Ipv4Addr {
        mask(self.prefix)
    }

    /// Whether it is a range by its first address, and its ports are some of a protocol that has any.
    pub fn is_possible(&self) -> bool {
        let range = self.prefix <= 32 && self.address & self.mask() == self.address;
        let ports = self.ports.is_none_or(|ports| ports.first > 0 && ports.first <= ports.last);
        range && ports && (self.ports.is_none() || self.protocol != Some(CardProtocol::Icmp))
    }
}

/// The first bits of an address.
pub(crate) fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_range_by_its_first_address_with_ports_that_there_are() {
        let with = |address: [u8; 4], prefix| CardRule { address: address.into(), prefix, ..CardRule::ALL };
        for good in [CardRule::ALL, with([192, 0, 2, 0], 24), with([192, 0, 2, 7], 32), with([128, 0, 0, 0], 1)] {
            assert!(good.is_possible(), "{good:?}");
        }
        for bad in [with([192, 0, 2, 1], 24), with([0, 0, 0, 1], 0), with([0, 0, 0, 0], 33), with([64, 0, 0, 0], 1)] {
            assert!(!bad.is_possible(), "{bad:?}");
        }
        let at = |first, last, protocol| CardRule { ports: Some(Ports { first, last }), protocol, ..CardRule::ALL };
        assert!(at(1, 65535, None).is_possible() && at(53, 53, Some(CardProtocol::Udp)).is_possible());
        assert!(!at(0, 1, None).is_possible() && !at(2, 1, None).is_possible());
        assert!(!at(1, 2, Some(CardProtocol::Icmp)).is_possible());
    }
}
