//! The network card of a guest: its addresses, and whom it asks for names.
//!
//! Everything that the guest configures stands here: it asks no DHCP server and heeds no router's advertisement. What answers at the
//! other end of the card is the host, whose word all of it is.

use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{CardRules, Domain, Name, ResolverOption, card_rules::mask};

/// A network card behind which the host carries frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Bits of it that its network shares.
    pub prefix: u8,
    /// Where everything else is sent.
    pub gateway: Ipv4Addr,
    /// Who is asked for names, the first first; nobody if there is none.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Domains that a short name is looked for in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<Domain>,
    /// How the workload's resolver asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<ResolverOption>,
    /// Names in `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostEntry>,
    /// What passes it. A guest with a TEE enforces them, and does not start with a card without any; others have none, since what is
    /// outside of them holds them to theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<CardRules>,
}

/// A name that the guest knows without asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEntry {
    /// The name.
    pub name: Name,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Network {
    /// Most servers that are asked for names: what resolvers read.
    pub const MOST_DNS: usize = 3;
    /// Most domains that are searched: what resolvers read.
    pub const MOST_SEARCH: usize = 6;
    /// And bytes of them with the blanks between. Source: resolv.conf(5).
    pub const MOST_SEARCH_BYTES: usize = 256;
    /// Most words for resolvers.
    pub const MOST_OPTIONS: usize = 16;
    /// Most names of `/etc/hosts`.
    pub const MOST_HOSTS: usize = 64;

    /// The user-mode network of one guest: the same for all, as each has a wire of its own.
    pub fn user() -> Self {
        Self {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Self::USER_GATEWAY,
            dns: vec![Self::USER_GATEWAY],
            search: Vec::new(),
            options: Vec::new(),
            hosts: Vec::new(),
            rules: None,
        }
    }

    /// Gateway of [`Network::user`], where the host answers for its own resolver too.
    const USER_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    /// The mask of the guest's network.
    pub fn mask(&self) -> Ipv4Addr {
        mask(self.prefix)
    }

    /// Whether an address is one of the guest's network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.address & self.mask()
    }
}
