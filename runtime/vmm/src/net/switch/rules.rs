//! What the boxes of a network may do beside the host's own filter: reach each other, reach out, be reached.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::subnet::{Subnet, SubnetError};
use crate::net::frame::{ICMP, TCP, UDP};

/// Rules of a network. What none of them allows is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Its boxes reach each other.
    pub between: bool,
    /// What they reach elsewhere.
    pub egress: Vec<Rule>,
    /// Who reaches their published ports; whoever comes from the host's loopback is 127.0.0.1.
    pub ingress: Vec<Rule>,
}

/// Machines, and what is spoken with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    /// Which machines.
    pub machines: Subnet,
    /// Which ports, the last included: of theirs on the way out, of the box's on the way in. All, if there are none.
    pub ports: Option<(u16, u16)>,
    /// Which protocol; all, if there is none.
    pub protocol: Option<Protocol>,
}

/// A protocol that rules know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

/// Why something is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Its machines are none.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// Its ports are none.
    #[error("{0:?} is no PORT or FIRST-LAST")]
    Ports(String),
    /// Its protocol is none that is known.
    #[error("{0:?} is no protocol of a rule: write tcp, udp or icmp")]
    Protocol(String),
    /// Ports of what has none.
    #[error("a rule for ports is one for tcp or udp")]
    NoPorts,
}

/// What a rule is held against, seen from the box.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The other machine.
    pub remote: Ipv4Addr,
    /// The other machine's port and the box's, where there are any.
    pub ports: Option<(u16, u16)>,
    /// The protocol's number.
    pub protocol: u8,
    /// It can begin a connection of TCP.
    pub opens: bool,
    /// It comes in by a port that others come in by, or would: of TCP that is not known here, and said of all.
    pub published: bool,
    /// It is, or can be, an answer to what came in.
    pub answers: bool,
}

impl Rules {
    /// Everything.
    pub fn open() -> Self {
        let all = vec![Rule { machines: Subnet::ALL, ports: None, protocol: None }];
        Self { between: true, egress: all.clone(), ingress: all }
    }

    /// Each other, and nobody else.
    pub const fn inside() -> Self {
        Self { between: true, egress: Vec::new(), ingress: Vec::new() }
    }

    /// Whether a packet may go out.
    pub fn let_out(&self, flow: &Flow) -> bool {
        self.reaches(flow) || flow.answers && self.is_reached(flow)
    }

    /// Whether a packet may come in.
    pub fn let_in(&self, flow: &Flow) -> bool {
        flow.published && self.is_reached(flow) || !flow.opens && self.reaches(flow)
    }

    fn reaches(&self, flow: &Flow) -> bool {
        let port = flow.ports.map(|(theirs, _)| theirs);
        self.egress.iter().any(|rule| rule.admits(flow.remote, port, flow.protocol))
    }

    /// Published ports are of TCP and UDP: nobody comes in by anything else.
    fn is_reached(&self, flow: &Flow) -> bool {
        let port = flow.ports.map(|(_, own)| own);
        matches!(flow.protocol, TCP | UDP)
            && self.ingress.iter().any(|rule| rule.admits(flow.remote, port, flow.protocol))
    }
}

impl Rule {
    fn admits(&self, machine: Ipv4Addr, port: Option<u16>, protocol: u8) -> bool {
        self.machines.contains(machine)
            && self.protocol.is_none_or(|wanted| wanted.number() == protocol)
            && self.ports.is_none_or(|(first, last)| port.is_some_and(|port| (first..=last).contains(&port)))
    }
}

impl Protocol {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
            Self::Icmp => ICMP,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.machines)?;
        match self.ports {
            Some((first, last)) if first == last => write!(f, ":{first}")?,
            Some((first, last)) => write!(f, ":{first}-{last}")?,
            None => {}
        }
        self.protocol.map_or(Ok(()), |protocol| write!(f, "/{}", protocol.word()))
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    /// `ADDRESS[/PREFIX][:PORT[-LAST]][/tcp|udp|icmp]`.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
        let (rest, protocol) = match text.rsplit_once('/') {
            // What is behind a slash and begins with a digit is a prefix.
            Some((rest, word)) if !word.starts_with(|first: char| first.is_ascii_digit()) => {
                let known = all.into_iter().find(|protocol| protocol.word() == word);
                (rest, Some(known.ok_or_else(|| RuleError::Protocol(word.into()))?))
            }
            _ => (text, None),
        };
        let (machines, ports) = match rest.rsplit_once(':') {
            // An address of IPv6 has colons of its own.
            Some((machines, ports)) if !machines.contains(':') => {
                let wrong = || RuleError::Ports(ports.into());
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
                let range = (port(first)?, port(last)?);
                (machines, Some(range).filter(|(first, last)| first <= last).map(Some).ok_or_else(wrong)?)
            }
            _ => (rest, None),
        };
        if ports.is_some() && protocol == Some(Protocol::Icmp) {
            return Err(RuleError::NoPorts);
        }
        Ok(Self { machines: machines.parse()?, ports, protocol })
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        for text in
            ["0.0.0.0/0", "192.0.2.0/24:443/tcp", "192.0.2.7/32:8000-8009", "10.0.0.0/8/icmp", "10.0.0.0/8:53/udp"]
        {
            assert_eq!(rule(text).to_string(), text);
        }
        assert_eq!(rule("192.0.2.7:443/tcp"), rule("192.0.2.7/32:443/tcp"));
        for (text, why) in [
            ("192.0.2.7:x", "\"x\" is no PORT"),
            ("192.0.2.7:0", "\"0\" is no PORT"),
            ("192.0.2.7:9-8", "\"9-8\" is no PORT"),
            ("192.0.2.7/sctp", "\"sctp\" is no protocol"),
            ("192.0.2.7:80/icmp", "tcp or udp"),
            ("fd00::1", "IPv6"),
            ("", "no ADDRESS/PREFIX"),
            ("192.0.2.0/24/", "\"\" is no protocol"),
        ] {
            let refused = text.parse::<Rule>().unwrap_err().to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    fn flow(remote: [u8; 4], ports: (u16, u16), protocol: u8, opens: bool) -> Flow {
        let ports = (protocol != ICMP).then_some(ports);
        Flow {
            remote: remote.into(),
            ports,
            protocol,
            opens,
            published: protocol == TCP,
            answers: protocol == TCP && !opens,
        }
    }

    #[test]
    fn what_is_let_out_is_answered_and_nothing_is_begun_against_the_rules() {
        let rules = Rules { between: false, egress: vec![rule("192.0.2.0/24:443/tcp")], ingress: vec![] };
        let there = [192, 0, 2, 9];
        assert!(rules.let_out(&flow(there, (443, 5000), TCP, true)));
        assert!(rules.let_in(&flow(there, (443, 5000), TCP, false)), "its answer");
        for (remote, ports, protocol) in [
            (there, (80, 5000), TCP),
            (there, (443, 5000), UDP),
            ([192, 0, 3, 9], (443, 5000), TCP),
            (there, (0, 0), ICMP),
        ] {
            assert!(!rules.let_out(&flow(remote, ports, protocol, protocol == TCP)), "{remote:?} {ports:?} {protocol}");
        }
        assert!(!rules.let_in(&flow(there, (443, 5000), TCP, true)), "from there nobody begins");
        assert!(!rules.let_out(&Flow { ports: None, ..flow(there, (443, 1), TCP, true) }), "no port is not any port");
    }

    #[test]
    fn who_is_let_in_is_answered_and_not_reached_by_itself() {
        let rules = Rules { between: false, egress: vec![], ingress: vec![rule("198.51.100.0/24:8080")] };
        let client = [198, 51, 100, 3];
        assert!(rules.let_in(&flow(client, (5000, 8080), TCP, true)));
        assert!(rules.let_out(&flow(client, (5000, 8080), TCP, false)));
        assert!(!rules.let_out(&flow(client, (5000, 8080), TCP, true)), "it begins nothing");
        assert!(!rules.let_in(&flow(client, (5000, 22), TCP, true)));
        assert!(!rules.let_in(&flow([198, 51, 101, 3], (5000, 8080), TCP, true)));
        assert!(!rules.let_in(&flow(client, (5000, 8080), UDP, false)));
    }

    #[test]
    fn datagrams_come_in_by_published_ports_and_answers_alone_go_back() {
        let udp = |text: &str| Rules { between: false, egress: vec![], ingress: vec![rule(text)] };
        let rules = udp("198.51.100.0/24:53/udp");
        let asks = Flow { published: true, ..flow([198, 51, 100, 3], (5000, 53), UDP, false) };
        assert!(rules.let_in(&asks) && !rules.let_in(&Flow { published: false, ..asks }));
        assert!(!rules.let_in(&Flow { remote: [198, 51, 101, 3].into(), ..asks }));
        assert!(!rules.let_in(&Flow { ports: Some((5000, 54)), ..asks }));
        assert!(!udp("198.51.100.0/24:53/tcp").let_in(&asks));
        assert!(!rules.let_out(&asks), "it begins nothing");
        assert!(rules.let_out(&Flow { answers: true, ..asks }));
        assert!(!Rules::inside().let_out(&Flow { answers: true, ..asks }));
    }

    #[test]
    fn all_is_all_and_inside_is_nothing_elsewhere() {
        for protocol in [TCP, UDP, ICMP] {
            let any = flow([8, 8, 8, 8], (1, 2), protocol, protocol == TCP);
            assert!(Rules::open().let_out(&any), "{protocol}");
            for shut in [Rules::inside(), Rules { between: false, ..Rules::inside() }] {
                assert!(!shut.let_out(&any) && !shut.let_in(&any), "{protocol}");
                assert!(!shut.let_out(&Flow { opens: false, ..any }), "{protocol}");
            }
        }
    }
}
