//! A spec's card as what enforces its rules has it: numbers, ranges, and what no rule opens.
//!
//! Trusts: the spec. Never: widens a rule.

use std::net::Ipv4Addr;

use coffer_spec::{CardProtocol, CardRule, CardRules, Neighbours, Network};

/// Everything that decides about a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The guest's address.
    pub own: u32,
    /// The gateway's, which rules know as [`LOOPBACK`].
    pub gateway: u32,
    /// Ranges in which there is no machine that a guest has to do with, in no order.
    pub nobody: Vec<Range>,
    /// The other boxes' addresses, where they are none like any other, and whether they are reached.
    pub neighbours: Option<(Range, bool)>,
    /// Who is asked for names.
    pub dns: Vec<u32>,
    /// Ports that others come in by: of TCP, then of UDP.
    pub published: [Vec<Ports>; 2],
    /// Who comes in by them.
    pub ingress: Vec<Rule>,
    /// Where the guest goes.
    pub egress: Vec<Rule>,
}

/// Addresses in a row, the last included.
pub type Range = (u32, u32);
/// Ports in a row, the last included.
pub type Ports = (u16, u16);

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The first of its machines.
    pub first: u32,
    /// The bits that they share.
    pub mask: u32,
    /// Of what.
    pub protocol: Option<CardProtocol>,
    /// At which ports.
    pub ports: Option<Ports>,
}

/// What the gateway stands for.
pub const LOOPBACK: u32 = u32::from_be_bytes([127, 0, 0, 1]);
/// Where names are asked for.
pub const DNS: u16 = 53;
/// Ports of DHCP, which boxes do not speak with each other.
pub const DHCP: Ports = (67, 68);
/// How long what was sent or heard by UDP lets answers pass, in nanoseconds.
pub const PATIENCE: u64 = 180 * 1_000_000_000;

/// What no rule opens: nobody's addresses, loopback, links, many, and where clouds tell machines about themselves.
const NOBODY: [([u8; 4], u32); 7] = [
    ([0, 0, 0, 0], 8),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([224, 0, 0, 0], 3),
    ([168, 63, 129, 16], 32),
    ([100, 100, 100, 200], 32),
    ([192, 0, 0, 192], 32),
];

impl Plan {
    /// Of a card and its rules.
    pub fn of(card: &Network, rules: &CardRules) -> Self {
        let (own, gateway, mask) = (card.address.into(), card.gateway.into(), u32::from(card.mask()));
        let (first, last) = (own & mask, own | !mask);
        let mut nobody: Vec<Range> = NOBODY
            .iter()
            .map(|(address, prefix)| (u32::from_be_bytes(*address), u32::MAX.checked_shr(*prefix).unwrap_or(0)))
            .map(|(first, rest)| (first, first | rest))
            .collect();
        nobody.extend([first, last, own].map(|one| (one, one)));
        let neighbours = match rules.neighbours {
            Neighbours::LikeOthers => None,
            Neighbours::Reached => Some(((first, last), true)),
            Neighbours::KeptApart => Some(((first, last), false)),
        };
        let rule = |rule: &CardRule| Rule {
            first: rule.address.into(),
            mask: rule.mask().into(),
            protocol: rule.protocol,
            ports: rule.ports.map(|ports| (ports.first, ports.last)),
        };
        let known_as = |server: &Ipv4Addr| if u32::from(*server) == gateway { LOOPBACK } else { u32::from(*server) };
        Self {
            own,
            gateway,
            nobody,
            neighbours,
            dns: card.dns.iter().map(known_as).collect(),
            published: [in_rows(&rules.tcp), in_rows(&rules.udp)],
            ingress: rules.ingress.iter().map(rule).collect(),
            egress: rules.egress.iter().map(rule).collect(),
        }
    }
}

/// Ports that follow each other as one range. `ports`: in order.
fn in_rows(ports: &[u16]) -> Vec<Ports> {
    let mut rows: Vec<Ports> = Vec::new();
    for port in ports {
        match rows.last_mut() {
            Some((_, last)) if u32::from(*last) + 1 == u32::from(*port) => *last = *port,
            _ => rows.push((*port, *port)),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_a_row_are_one_range() {
        assert_eq!(in_rows(&[80, 81, 82, 443, 65_534, 65_535]), [(80, 82), (443, 443), (65_534, 65_535)]);
        assert_eq!(in_rows(&[]), []);
    }

    #[test]
    fn no_rule_opens_what_is_no_machine() {
        let card = Network { address: Ipv4Addr::new(10, 89, 0, 7), ..Network::user() };
        let plan = Plan::of(&card, &CardRules::of_own_wire(vec![], vec![]));
        let nobody = |address: [u8; 4]| {
            let address = u32::from_be_bytes(address);
            plan.nobody.iter().any(|(first, last)| (*first..=*last).contains(&address))
        };
        for address in [
            [0, 0, 0, 0],
            [0, 255, 255, 255],
            [127, 0, 0, 1],
            [169, 254, 169, 254],
            [224, 0, 0, 1],
            [255, 255, 255, 255],
            [168, 63, 129, 16],
            [100, 100, 100, 200],
            [192, 0, 0, 192],
            [10, 89, 0, 0],
            [10, 89, 0, 7],
            [10, 89, 0, 255],
        ] {
            assert!(nobody(address), "{address:?}");
        }
        for address in [[1, 0, 0, 0], [126, 255, 255, 255], [128, 0, 0, 0], [169, 253, 0, 1], [223, 255, 255, 255]] {
            assert!(!nobody(address), "{address:?}");
        }
        assert!(!nobody([10, 89, 0, 6]) && !nobody([10, 89, 0, 8]));
    }
}
