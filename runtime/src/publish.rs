//! `-p`: which port of the host leads to which port of a box.
//!
//! The host's end decides nothing: it copies bytes. Behind `/ra-tls` and `/tls`, and for owners, what they are worth is settled between
//! the client and the guest; behind `/tcp` and `/udp`, nowhere: they lead to the guest's network card.

use core::fmt;
use core::ops::RangeInclusive;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use coffer_spec::{Ingress, IngressClients};
use serde::{Deserialize, Serialize};

/// A port of the host that leads to a port of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Where the host listens; port 0: one that is free.
    pub host: SocketAddr,
    /// Port of the workload; 0 for owners, who come to the agent.
    pub guest: u16,
    /// What its clients speak.
    #[serde(default)]
    pub how: How,
}

/// What clients of a port speak with the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// What the workload speaks, with its network card.
    Tcp,
    /// The same in datagrams.
    Udp,
    /// RA-TLS: the guest proves itself to each of them. What a record means that does not say.
    #[default]
    RaTls,
    /// TLS with a certificate of the key broker's: for clients that know nothing of evidence.
    Tls,
    /// What owners speak with the agent: RA-TLS.
    Owners,
}

impl How {
    /// Each that leads to a port of the workload.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::RaTls, Self::Tls];

    /// Those of the guest's network card.
    pub const OF_CARD: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Behind the slash.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::RaTls => "ra-tls",
            Self::Tls => "tls",
            Self::Owners => OWNERS,
        }
    }

    /// Whether it leads to the guest's network card, not to its agent.
    pub const fn is_of_card(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

/// In place of a port of the workload.
pub const OWNERS: &str = "owners";

/// How it is written.
pub const PUBLISH: &str = "[ADDRESS:][HOST-PORT:]PORT, /tcp, /udp, /ra-tls or /tls behind it, such as 8080:80 or 8443:8080/ra-tls; or owners for PORT";

/// Ports of one range.
pub const MOST: u16 = 64;

/// Ports of one box.
pub const MOST_OF_BOX: usize = 256;

/// Why a text is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Another protocol.
    #[error("{0:?} is no protocol of a port that is published, which are tcp, udp, ra-tls and tls")]
    Protocol(String),
    /// No port.
    #[error("{0:?} is no port, 1 to 65535")]
    Port(String),
    /// No address.
    #[error("{0:?} is no address in numbers of this machine's, such as 127.0.0.1 or [::1]")]
    Address(String),
    /// Two ranges that do not lead one to the other.
    #[error("{0:?} is no range that leads to the other: both have as many ports, at most 64, the first first")]
    Range(String),
}

impl Publish {
    /// Reads what one `-p` says: a port, or a range of them.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn read(text: &str) -> Result<Vec<Self>, PublishError> {
        let (rest, how) = match text.split_once('/') {
            None => (text, How::Tcp),
            Some((rest, word)) => {
                let how = How::ALL.into_iter().find(|how| how.word() == word);
                (rest, how.ok_or_else(|| PublishError::Protocol(word.into()))?)
            }
        };
        let (before, guest) = rest.rsplit_once(':').map_or((None, rest), |(before, guest)| (Some(before), guest));
        let (address, host) = match before {
            None => (None, None),
            // Behind an address in brackets there is a port, maybe an empty one.
            Some(before) if before.ends_with(']') => (Some(before), None),
            Some(before) => match before.rsplit_once(':') {
                Some((address, host)) => (Some(address), Some(host)),
                None => (None, Some(before)),
            },
        };
        let address = match address {
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some(text) => {
                let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
                plain.parse().map_err(|_| PublishError::Address(text.into()))?
            }
        };
        let (how, guests) = match guest {
            OWNERS if rest.len() == text.len() => (How::Owners, 0..=0),
            _ => (how, ports(guest)?),
        };
        let hosts: Vec<u16> = match host {
            None | Some("" | "0") => guests.clone().map(|_| 0).collect(),
            Some(text) => {
                let hosts = ports(text)?;
                if hosts.clone().count() != guests.clone().count() {
                    return Err(PublishError::Range(text.into()));
                }
                hosts.collect()
            }
        };
        let one = |(host, guest)| Self { host: SocketAddr::new(address, host), guest, how };
        Ok(hosts.into_iter().zip(guests).map(one).collect())
    }

    /// What it leads to: `80/tcp`, `8080/ra-tls` or `owners`.
    pub fn what(&self) -> String {
        match self.how {
            How::Owners => OWNERS.to_owned(),
            how => format!("{}/{}", self.guest, how.word()),
        }
    }

    /// The workload's port, unless it leads to the agent.
    pub fn port(&self) -> Option<u16> {
        (self.how != How::Owners).then_some(self.guest)
    }

    /// Whether it is this port of a spec, for clients that speak as the spec has it.
    pub fn leads_to(&self, ingress: &Ingress) -> bool {
        let how = match ingress.clients {
            IngressClients::Anyone | IngressClients::Keys(_) | IngressClients::Guests(_) => How::RaTls,
            IngressClients::Certificate(_) => How::Tls,
        };
        ingress.port == self.guest && how == self.how
    }
}

/// Ports that a workload listens at, as images say them: `PORT[-LAST][/tcp|/udp]`.
///
/// # Errors
/// [`PublishError`].
pub fn exposed(text: &str) -> Result<Vec<(u16, How)>, PublishError> {
    let (range, word) = text.split_once('/').unwrap_or((text, How::Tcp.word()));
    let how = How::OF_CARD.into_iter().find(|how| how.word() == word);
    let how = how.ok_or_else(|| PublishError::Protocol(word.into()))?;
    Ok(ports(range)?.map(|port| (port, how)).collect())
}

/// A port, or the first and the last of several.
///
/// # Errors
/// [`PublishError`].
pub fn ports(text: &str) -> Result<RangeInclusive<u16>, PublishError> {
    let Some((first, last)) = text.split_once('-') else {
        let port = port(text)?;
        return Ok(port..=port);
    };
    let (first, last) = (port(first)?, port(last)?);
    if last.checked_sub(first).is_none_or(|beyond| beyond >= MOST) {
        return Err(PublishError::Range(text.into()));
    }
    Ok(first..=last)
}

fn port(text: &str) -> Result<u16, PublishError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = if plain { text.parse().ok() } else { None };
    port.filter(|port| *port > 0).ok_or_else(|| PublishError::Port(text.into()))
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", self.host, self.what())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The one port of a text.
    pub(crate) fn one(text: &str) -> Publish {
        let all = Publish::read(text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all[0]
    }

    fn said(text: &str) -> Result<Vec<String>, PublishError> {
        Publish::read(text).map(|all| all.iter().map(Publish::to_string).collect())
    }

    #[test]
    fn each_form_says_where_the_host_listens_and_what_it_leads_to() {
        for (text, host, guest) in [
            ("8443:8080/ra-tls", "0.0.0.0:8443", "8080/ra-tls"),
            ("8080/ra-tls", "0.0.0.0:0", "8080/ra-tls"),
            ("0:8080/ra-tls", "0.0.0.0:0", "8080/ra-tls"),
            ("127.0.0.1:8443:8080/ra-tls", "127.0.0.1:8443", "8080/ra-tls"),
            ("127.0.0.1::8080/tcp", "127.0.0.1:0", "8080/tcp"),
            ("[::1]:8443:8080/ra-tls", "[::1]:8443", "8080/ra-tls"),
            ("[::1]::8080", "[::1]:0", "8080/tcp"),
            ("443:80/tls", "0.0.0.0:443", "80/tls"),
            ("8080:80", "0.0.0.0:8080", "80/tcp"),
            ("80", "0.0.0.0:0", "80/tcp"),
            ("127.0.0.1:5353:53/udp", "127.0.0.1:5353", "53/udp"),
            ("53/udp", "0.0.0.0:0", "53/udp"),
            ("owners", "0.0.0.0:0", "owners"),
            ("7443:owners", "0.0.0.0:7443", "owners"),
            ("[::1]:7443:owners", "[::1]:7443", "owners"),
        ] {
            assert_eq!(said(text), Ok(vec![format!("{host}->{guest}")]), "{text}");
        }
    }

    #[test]
    fn a_range_is_each_of_its_ports() {
        assert_eq!(said("8000-8001:80-81").unwrap(), ["0.0.0.0:8000->80/tcp", "0.0.0.0:8001->81/tcp"]);
        assert_eq!(said("127.0.0.1::80-81/ra-tls").unwrap(), ["127.0.0.1:0->80/ra-tls", "127.0.0.1:0->81/ra-tls"]);
        assert_eq!(said("9000-9001:53-54/udp").unwrap(), ["0.0.0.0:9000->53/udp", "0.0.0.0:9001->54/udp"]);
        assert_eq!(said("1-64:1-64").unwrap().len(), 64);
        for (text, part) in [
            ("8000-8001:80", "8000-8001"),
            ("80:80-81", "80"),
            ("81-80", "81-80"),
            ("1-65:1-65", "1-65"),
            ("1-2:owners", "1-2"),
        ] {
            assert_eq!(said(text), Err(PublishError::Range(part.into())), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_by_its_part() {
        for (text, word) in [
            ("8443:8080/sctp", "sctp"),
            ("8080/xra-tls", "xra-tls"),
            ("/ra-tls/", "ra-tls/"),
            ("1/", ""),
            ("4090/owners", "owners"),
        ] {
            assert_eq!(said(text), Err(PublishError::Protocol(word.into())), "{text}");
        }
        for (text, part) in [
            ("", ""),
            ("/ra-tls", ""),
            ("8443:/ra-tls", ""),
            ("1:65536", "65536"),
            ("+1:2/ra-tls", "+1"),
            ("1:0", "0"),
            ("8080tls", "8080tls"),
            ("7443:owners/tcp", "owners"),
            ("-", ""),
            ("80-", ""),
        ] {
            assert_eq!(said(text), Err(PublishError::Port(part.into())), "{text}");
        }
        assert_eq!(said("host:1:2/ra-tls"), Err(PublishError::Address("host".into())));
    }

    #[test]
    fn what_an_image_exposes_is_of_its_card() {
        assert_eq!(exposed("53-54/udp"), Ok(vec![(53, How::Udp), (54, How::Udp)]));
        assert_eq!((exposed("80"), exposed("80/tcp")), (Ok(vec![(80, How::Tcp)]), Ok(vec![(80, How::Tcp)])));
        for (text, why) in [
            ("80/ra-tls", PublishError::Protocol("ra-tls".into())),
            ("80/sctp", PublishError::Protocol("sctp".into())),
            ("x/udp", PublishError::Port("x".into())),
            ("1-9999/udp", PublishError::Range("1-9999".into())),
        ] {
            assert_eq!(exposed(text), Err(why));
        }
    }
}
