//! Ranges of IPv4 addresses that share their first bits.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address and the number of its bits that the others share, such as `192.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    first: Ipv4Addr,
    prefix: u8,
}

/// Why something is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// An address of IPv6.
    #[error("{0} is of IPv6, and boxes have IPv4 alone yet")]
    V6(String),
    /// Nothing of the kind.
    #[error("{0:?} is no ADDRESS/PREFIX, such as 192.0.2.0/24")]
    Form(String),
    /// The address is one of the range, and not its first.
    #[error("{given} is inside {subnet}: write that")]
    Inside {
        /// As it was given.
        given: String,
        /// The range that it is in.
        subnet: Subnet,
    },
}

impl Subnet {
    /// Every address.
    pub const ALL: Self = Self { first: Ipv4Addr::UNSPECIFIED, prefix: 0 };

    /// The range of this prefix that an address is in; nothing for a prefix of more than 32 bits.
    pub fn around(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then(|| Self { first: address & mask(prefix), prefix })
    }

    /// Bits that its addresses share.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its first address, which no machine has.
    pub const fn first(self) -> Ipv4Addr {
        self.first
    }

    /// Its last address, which stands for all.
    pub fn last(self) -> Ipv4Addr {
        self.first | !mask(self.prefix)
    }

    /// The machine that leads elsewhere: the first.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first).saturating_add(1))
    }

    /// Addresses of machines, but for the gateway, in order.
    pub fn machines(self) -> impl Iterator<Item = Ipv4Addr> {
        (u32::from(self.gateway()).saturating_add(1)..u32::from(self.last())).map(Ipv4Addr::from)
    }

    /// Whether a machine other than the gateway can have an address.
    pub fn is_machine(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address > self.gateway() && address < self.last()
    }

    /// Whether an address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address & mask(self.prefix) == self.first
    }

    /// Whether an address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0))
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    /// A range, or one address.
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        if address.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(SubnetError::V6(text.into()));
        }
        let form = || SubnetError::Form(text.into());
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits).ok_or_else(form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| form())?;
        let subnet = Self::around(address, prefix).ok_or_else(form)?;
        if subnet.first == address { Ok(subnet) } else { Err(SubnetError::Inside { given: text.into(), subnet }) }
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_written_as_it_is_read_and_holds_what_it_says() {
        for text in ["10.89.0.0/24", "0.0.0.0/0", "192.0.2.7/32", "255.255.255.254/31", "128.0.0.0/1"] {
            let subnet = subnet(text);
            assert_eq!(subnet.to_string(), text);
            assert!(subnet.contains(subnet.first()) && subnet.contains(subnet.last()), "{text}");
        }
        assert_eq!(subnet("192.0.2.7"), subnet("192.0.2.7/32"));
        assert!(subnet("10.89.0.0/24").contains([10, 89, 0, 255].into()));
        assert!(!subnet("10.89.0.0/24").contains([10, 89, 1, 0].into()));
        assert_eq!(Subnet::ALL, subnet("0.0.0.0/0"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in
            ["", "/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/", "10.0.0/8", "db/24", "10.0.0.0/8/8", "10.0.0.0/ 8"]
        {
            assert_eq!(text.parse::<Subnet>(), Err(SubnetError::Form(text.into())), "{text}");
        }
        assert!(matches!("fd00::/64".parse::<Subnet>(), Err(SubnetError::V6(_))));
        let inside = "10.89.0.1/24".parse::<Subnet>().unwrap_err();
        assert!(inside.to_string().contains("10.89.0.0/24"), "{inside}");
    }

    #[test]
    fn machines_are_between_the_gateway_and_the_address_of_all() {
        let small = subnet("10.89.0.8/29");
        let all: Vec<_> = small.machines().map(|address| address.octets()[3]).collect();
        assert_eq!((small.gateway().octets()[3], all), (9, vec![10, 11, 12, 13, 14]));
        assert!(small.machines().all(|address| small.is_machine(address)));
        for nobody in [8, 9, 15, 16] {
            assert!(!small.is_machine([10, 89, 0, nobody].into()), "{nobody}");
        }
        for tiny in ["10.0.0.0/31", "10.0.0.0/32", "255.255.255.255/32"] {
            assert_eq!(subnet(tiny).machines().count(), 0, "{tiny}");
        }
    }

    #[test]
    fn ranges_overlap_where_one_is_in_the_other() {
        let of = |one: &str, other: &str| (subnet(one).overlaps(subnet(other)), subnet(other).overlaps(subnet(one)));
        assert_eq!(of("10.0.0.0/8", "10.89.0.0/24"), (true, true));
        assert_eq!(of("10.89.0.0/24", "10.89.1.0/24"), (false, false));
        assert_eq!(of("0.0.0.0/0", "203.0.113.0/24"), (true, true));
    }
}
