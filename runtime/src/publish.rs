//! `-p`: which port of the host leads to which port of a box.
//!
//! The host's end decides nothing: it copies bytes, and what they are worth is settled by RA-TLS between the client and the guest.

use core::fmt;
use core::str::FromStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use coffer_spec::{Ingress, IngressClients};
use serde::{Deserialize, Serialize};

/// A port of the host that leads to a port of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Where the host listens; port 0: one that is free.
    pub host: SocketAddr,
    /// Port of the workload.
    pub guest: u16,
    /// What its clients speak.
    #[serde(default)]
    pub how: How,
}

/// What clients of a port speak with the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// RA-TLS: the guest proves itself to each of them.
    #[default]
    RaTls,
    /// TLS with a certificate of the key broker's: for clients that know nothing of evidence.
    Tls,
}

impl How {
    /// Behind the slash.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RaTls => "ra-tls",
            Self::Tls => "tls",
        }
    }
}

/// How it is written.
pub const PUBLISH: &str = "[ADDRESS:][HOST-PORT:]PORT/ra-tls or …/tls, such as 8443:8080/ra-tls";

/// Why a text is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Another protocol, or none, which Docker takes for TCP.
    #[error("a box has no network card yet, so that a port is reached through /ra-tls or /tls alone")]
    Protocol,
    /// No port.
    #[error("{0:?} is no port, 1 to 65535")]
    Port(String),
    /// No address.
    #[error("{0:?} is no address in numbers of this machine's, such as 127.0.0.1 or [::1]")]
    Address(String),
    /// Several at once.
    #[error("{0:?} is a range; name each port")]
    Range(String),
}

impl Publish {
    /// Whether it is this port of a spec, for clients that speak as the spec has it.
    pub fn leads_to(&self, ingress: &Ingress) -> bool {
        let how = match ingress.clients {
            IngressClients::Anyone | IngressClients::Keys(_) | IngressClients::Guests(_) => How::RaTls,
            IngressClients::Certificate(_) => How::Tls,
        };
        ingress.port == self.guest && how == self.how
    }
}

impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let with = |how: How| Some((text.strip_suffix(how.word())?.strip_suffix('/')?, how));
        let (rest, how) = with(How::RaTls).or_else(|| with(How::Tls)).ok_or(PublishError::Protocol)?;
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
        let host = match host {
            None | Some("" | "0") => 0,
            Some(text) => port(text)?,
        };
        Ok(Self { host: SocketAddr::new(address, host), guest: port(guest)?, how })
    }
}

fn port(text: &str) -> Result<u16, PublishError> {
    if text.contains('-') {
        return Err(PublishError::Range(text.into()));
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = if plain { text.parse().ok() } else { None };
    port.filter(|port| *port > 0).ok_or_else(|| PublishError::Port(text.into()))
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}/{}", self.host, self.guest, self.how.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, u16), PublishError> {
        text.parse().map(|Publish { host, guest, .. }| (host.to_string(), guest))
    }

    #[test]
    fn each_form_says_where_the_host_listens_and_what_it_leads_to() {
        for (text, host, guest) in [
            ("8443:8080/ra-tls", "0.0.0.0:8443", 8080),
            ("8080/ra-tls", "0.0.0.0:0", 8080),
            ("0:8080/ra-tls", "0.0.0.0:0", 8080),
            ("127.0.0.1:8443:8080/ra-tls", "127.0.0.1:8443", 8080),
            ("127.0.0.1::8080/ra-tls", "127.0.0.1:0", 8080),
            ("[::1]:8443:8080/ra-tls", "[::1]:8443", 8080),
            ("[::1]::8080/ra-tls", "[::1]:0", 8080),
        ] {
            assert_eq!(read(text), Ok((host.to_owned(), guest)), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_by_its_part() {
        assert_eq!(
            "443:80/tls".parse::<Publish>().map(|it| (it.how, it.to_string())),
            Ok((How::Tls, "0.0.0.0:443->80/tls".into()))
        );
        for text in ["8443:8080", "8443:8080/tcp", "8080/xra-tls", "8080tls", "8443:8080/udp", "", "/ra-tls/"] {
            assert_eq!(read(text), Err(PublishError::Protocol), "{text}");
        }
        for (text, part) in [
            ("/ra-tls", ""),
            ("8443:/ra-tls", ""),
            ("1:65536/ra-tls", "65536"),
            ("+1:2/ra-tls", "+1"),
            ("1:0/ra-tls", "0"),
        ] {
            assert_eq!(read(text), Err(PublishError::Port(part.into())), "{text}");
        }
        assert_eq!(read("80-90:80-90/ra-tls"), Err(PublishError::Range("80-90".into())));
        assert_eq!(read("host:1:2/ra-tls"), Err(PublishError::Address("host".into())));
    }
}
