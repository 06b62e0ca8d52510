//! Networks that boxes share, as they are asked for: a name, a range of addresses, and what their boxes may do.
//!
//! Which boxes are in one is said by the records of the boxes. What is here decides addresses; the switch
//! ([`coffer_vmm::net::switch`]) holds every box to its own, outside the guests.
//! Trusts: the home, which is the operator's alone. Never: touches an interface, a table or a namespace of the host's.

mod host;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;

use coffer_spec::{CardProtocol, CardRule, CardRules, Name, Neighbours, Network, Ports};
use coffer_vmm::net::switch::{Protocol, Rule, Rules, Subnet};
use serde::{Deserialize, Serialize};

use crate::home::{HomeError, private_folder};
use crate::{Class, Failure};

pub use host::host_network;

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    /// Its name.
    pub name: Name,
    /// Unix milliseconds.
    pub created: i64,
    /// Its addresses; the first is the gateway's.
    pub subnet: Subnet,
    /// How its boxes are kept from others, in one word.
    pub isolation: NetworkIsolation,
    /// The same as the switch has it.
    pub rules: Rules,
    /// What it is found by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// How the boxes of a network are kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkIsolation {
    /// They reach each other and out, and published ports lead in.
    None,
    /// They reach each other alone.
    Strict,
    /// What rules of the network's own allow.
    Custom,
}

impl NetworkIsolation {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Strict => "strict",
            Self::Custom => "custom",
        }
    }
}

/// A box in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxNetwork {
    /// Which network.
    pub name: Name,
    /// The box's address there.
    pub address: Ipv4Addr,
    /// Names that it has there beside its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Name>,
}

/// What a box is to have in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// This address; without one, any that is free.
    pub address: Option<Ipv4Addr>,
    /// These names beside its own.
    pub aliases: Vec<Name>,
}

/// Why something with a network cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Nobody else may change networks meanwhile, and that cannot be had.
    #[error("cannot lock the networks of this home")]
    Lock(#[source] std::io::Error),
    /// There is none of that name.
    #[error("no such network: {0}")]
    Unknown(Name),
    /// There is one.
    #[error("network with name {0} already exists")]
    Exists(Name),
    /// The name means something else.
    #[error("{0} is no name for a network: it says which network a box has that is in none")]
    Reserved(Name),
    /// Boxes are in it.
    #[error("network {name} has boxes: {}", .boxes.join(", "))]
    InUse {
        /// Which.
        name: Name,
        /// Names of the boxes.
        boxes: Vec<String>,
    },
    /// Boxes cannot have such addresses.
    #[error("{subnet} is no range for a network: {why}")]
    Subnet {
        /// The range.
        subnet: Subnet,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another network has some of them.
    #[error("{subnet} overlaps {other}, which is network {name}")]
    Overlaps {
        /// The range.
        subnet: Subnet,
        /// The other.
        other: Subnet,
        /// Whose it is.
        name: Name,
    },
    /// No range is left that nobody has to name.
    #[error("every range of {POOL} is a network's")]
    NoSubnet,
    /// Every address is a box's.
    #[error("network {0} has no free address")]
    Full(Name),
    /// The address is another box's.
    #[error("{address} is the address of box {holder} in network {name}")]
    AddressInUse {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        holder: String,
        /// Where.
        name: Name,
    },
    /// No box of the network can have the address.
    #[error("{address} is no address of a box in network {name}, which has {subnet}")]
    NotThere {
        /// The address.
        address: Ipv4Addr,
        /// The network.
        name: Name,
        /// Its range.
        subnet: Subnet,
    },
    /// The spec's card is of other addresses than the network.
    #[error(
        "the spec's network card has gateway {gateway} and {prefix} bits of network, and network {name} is {subnet}"
    )]
    OtherCard {
        /// In the spec.
        gateway: Ipv4Addr,
        /// In the spec.
        prefix: u8,
        /// The network.
        name: Name,
        /// Its range.
        subnet: Subnet,
    },
    /// The spec has no card.
    #[error("the spec has no network card, which a box in a network needs")]
    NoSpecCard,
    /// The box has no card.
    #[error("box {0} has no network card, and it cannot get one later")]
    NoCard(String),
    /// The box is in it.
    #[error("box {holder} is in network {name} already")]
    Joined {
        /// The box.
        holder: String,
        /// The network.
        name: Name,
    },
    /// The box is not in it.
    #[error("box {holder} is not in network {name}")]
    NotJoined {
        /// The box.
        holder: String,
        /// The network.
        name: Name,
    },
    /// The name means something else to boxes of the network.
    #[error("{alias} is no further name for a box: {why}")]
    Alias {
        /// The name.
        alias: Name,
        /// What it means.
        why: String,
    },
    /// Nothing comes in there.
    #[error("a port is published, and network {0} lets nobody in")]
    NoIngress(Name),
}

impl NetworkError {
    /// What kind of failure it is.
    pub const fn class(&self) -> Class {
        match self {
            Self::Unknown(_) => Class::NotFound,
            Self::Reserved(_)
            | Self::Subnet { .. }
            | Self::NotThere { .. }
            | Self::Alias { .. }
            | Self::NoIngress(_) => Class::Usage,
            _ => Class::Config,
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Home(error) => return error.hint(),
            Self::Unknown(_) => "`coffer network ls` lists them; `coffer network create` makes one".into(),
            Self::InUse { .. } => "disconnect or remove the boxes first".into(),
            Self::Subnet { .. } => "name a private range of 8 to 29 bits, such as 10.90.0.0/24".into(),
            Self::Overlaps { .. } => "name another range, or none: then a free one is taken".into(),
            Self::NoSubnet => "name a range with --subnet, or remove networks".into(),
            Self::Full(_) => "make a network with a larger range".into(),
            Self::AddressInUse { .. } => "name another address, or none: then a free one is taken".into(),
            Self::OtherCard { .. } => {
                "make the network with the spec's range, or write the spec for the network".into()
            }
            Self::NoSpecCard => "write the spec with `coffer spec --network NAME`".into(),
            Self::NoCard(_) => "make the box with --network (docs/network.md)".into(),
            Self::Alias { .. } => "name it otherwise, with no dot say".into(),
            Self::NoIngress(_) => "publish nothing, or make a network with --isolation custom and --ingress".into(),
            Self::Lock(_)
            | Self::Exists(_)
            | Self::Reserved(_)
            | Self::NotThere { .. }
            | Self::Joined { .. }
            | Self::NotJoined { .. } => return None,
        })
    }
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        let failure = Self::caused(error.class(), &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Words of `--network` that are no network's name.
pub const RESERVED: [&str; 5] = ["user", "none", "host", "bridge", "default"];

/// Ranges that networks have of which nobody names one.
const POOL: &str = "10.89.0.0/16";
const LEAST_PREFIX: u8 = 8;
const MOST_PREFIX: u8 = 29;

/// While it is held nobody else makes or takes away a network, or puts a box into one.
#[derive(Debug)]
pub struct Guard(#[allow(dead_code, reason = "the kernel lets go of the lock with it")] File);

/// Waits for whoever else changes networks. `folder`: of the networks of a home.
///
/// # Errors
/// [`NetworkError`].
pub fn guard(folder: &Path) -> Result<Guard, NetworkError> {
    private_folder(folder)?;
    let lock = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    lock.map(Guard).map_err(NetworkError::Lock)
}

/// The range that was asked for, or a free one.
///
/// # Errors
/// [`NetworkError`].
pub fn choose_subnet(asked: Option<Subnet>, all: &[NetworkRecord]) -> Result<Subnet, NetworkError> {
    let overlapping = |subnet: Subnet| all.iter().find(|other| other.subnet.overlaps(subnet));
    let Some(subnet) = asked else {
        let pool = (0..=255).filter_map(|third| Subnet::around(Ipv4Addr::new(10, 89, third, 0), 24));
        return pool.into_iter().find(|subnet| overlapping(*subnet).is_none()).ok_or(NetworkError::NoSubnet);
    };
    let user = Network::user();
    let within = |[a, b]: [u8; 2], prefix| Subnet::around(Ipv4Addr::new(a, b, 0, 0), prefix);
    let refused = [
        (Subnet::around(user.address, user.prefix), "boxes that are in no network have it"),
        (within([127, 0], 8), "it is loopback"),
        (within([169, 254], 16), "it is link-local"),
        (within([0, 0], 8), "it is nobody's"),
        (within([224, 0], 3), "it is of many or of nobody"),
    ];
    let size = !(LEAST_PREFIX..=MOST_PREFIX).contains(&subnet.prefix());
    let size = size.then_some("it is too large or too small");
    let is_in = |(range, why): (Option<Subnet>, _)| range.is_some_and(|range| range.overlaps(subnet)).then_some(why);
    if let Some(why) = size.or_else(|| refused.into_iter().find_map(is_in)) {
        return Err(NetworkError::Subnet { subnet, why });
    }
    match overlapping(subnet) {
        Some(other) => Err(NetworkError::Overlaps { subnet, other: other.subnet, name: other.name.clone() }),
        None => Ok(subnet),
    }
}

/// Refuses further names of a box that mean something else to the boxes of a network. `all`: every network.
///
/// # Errors
/// [`NetworkError::Alias`].
pub fn check_aliases(aliases: &[Name], all: &[NetworkRecord]) -> Result<(), NetworkError> {
    for alias in aliases {
        let text = alias.as_str().to_ascii_lowercase();
        let behind = |name: &Name| {
            text.strip_suffix(&name.as_str().to_ascii_lowercase()).is_some_and(|rest| rest.ends_with('.'))
        };
        let why = if text == "localhost" || text.ends_with(".localhost") {
            "each box is that to itself".to_owned()
        } else if let Some(network) = all.iter().find(|network| behind(&network.name)) {
            format!("names that end so are those of network {}", network.name)
        } else {
            continue;
        };
        return Err(NetworkError::Alias { alias: alias.clone(), why });
    }
    Ok(())
}

/// The address that was asked for, or a free one. `taken`: addresses in the network, and whose they are.
///
/// # Errors
/// [`NetworkError`].
pub fn choose_address(
    network: &NetworkRecord,
    asked: Option<Ipv4Addr>,
    taken: &BTreeMap<Ipv4Addr, String>,
) -> Result<Ipv4Addr, NetworkError> {
    let NetworkRecord { name, subnet, .. } = network;
    let Some(address) = asked else {
        let free = subnet.machines().find(|address| !taken.contains_key(address));
        return free.ok_or_else(|| NetworkError::Full(name.clone()));
    };
    if !subnet.is_machine(address) {
        return Err(NetworkError::NotThere { address, name: name.clone(), subnet: *subnet });
    }
    match taken.get(&address) {
        Some(holder) => Err(NetworkError::AddressInUse { address, holder: holder.clone(), name: name.clone() }),
        None => Ok(address),
    }
}

/// A card with an address in a network, and what the network's rules are now. Ports that others come in by it has none.
pub fn card(network: &NetworkRecord, address: Ipv4Addr) -> Network {
    let gateway = network.subnet.gateway();
    let rules = Some(card_rules(&network.rules));
    Network { address, prefix: network.subnet.prefix(), gateway, dns: vec![gateway], rules, ..Network::user() }
}

/// A network's rules as a guest holds its own card to them.
fn card_rules(rules: &Rules) -> CardRules {
    let one = |rule: &Rule| CardRule {
        address: rule.machines.first(),
        prefix: rule.machines.prefix(),
        protocol: rule.protocol.map(|protocol| match protocol {
            Protocol::Tcp => CardProtocol::Tcp,
            Protocol::Udp => CardProtocol::Udp,
            Protocol::Icmp => CardProtocol::Icmp,
        }),
        ports: rule.ports.map(|(first, last)| Ports { first, last }),
    };
    let each_once = |rules: &[Rule]| {
        let mut all = Vec::new();
        for rule in rules.iter().map(one) {
            if !all.contains(&rule) {
                all.push(rule);
            }
        }
        all
    };
    let neighbours = if rules.between { Neighbours::Reached } else { Neighbours::KeptApart };
    let (ingress, egress) = (each_once(&rules.ingress), each_once(&rules.egress));
    CardRules { neighbours, tcp: Vec::new(), udp: Vec::new(), ingress, egress }
}

/// Whether a spec's card is one of a network.
///
/// # Errors
/// [`NetworkError::OtherCard`].
pub fn is_of(network: &NetworkRecord, card: &Network) -> Result<(), NetworkError> {
    let subnet = network.subnet;
    if (card.gateway, card.prefix) == (subnet.gateway(), subnet.prefix()) {
        return Ok(());
    }
    Err(NetworkError::OtherCard { gateway: card.gateway, prefix: card.prefix, name: network.name.clone(), subnet })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn network(name: &str, subnet: &str) -> NetworkRecord {
        NetworkRecord {
            name: name.parse().unwrap(),
            created: 1,
            subnet: subnet.parse().unwrap(),
            isolation: NetworkIsolation::None,
            rules: Rules::open(),
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn a_range_is_free_private_and_of_a_size_that_boxes_can_have() {
        let all = [network("a", "10.89.0.0/24"), network("b", "10.89.2.0/23")];
        let chosen = |asked: Option<&str>| choose_subnet(asked.map(|text| text.parse().unwrap()), &all);
        assert_eq!(chosen(None).unwrap().to_string(), "10.89.1.0/24");
        assert_eq!(chosen(Some("192.168.7.0/24")).unwrap().to_string(), "192.168.7.0/24");
        for (asked, why) in [
            ("10.89.0.128/25", "overlaps 10.89.0.0/24, which is network a"),
            ("10.0.0.0/8", "boxes that are in no network have it"),
            ("10.0.2.0/28", "boxes that are in no network have it"),
            ("127.0.0.0/8", "loopback"),
            ("169.254.7.0/24", "link-local"),
            ("240.0.0.0/8", "of many"),
            ("0.0.0.0/0", "too large"),
            ("192.168.7.0/30", "too large or too small"),
        ] {
            let refused = chosen(Some(asked)).unwrap_err();
            assert!(refused.to_string().contains(why) && refused.hint().is_some(), "{asked}: {refused}");
        }
        let full: Vec<_> = (0..=255).map(|third| network("n", &format!("10.89.{third}.0/24"))).collect();
        assert!(matches!(choose_subnet(None, &full), Err(NetworkError::NoSubnet)));
    }

    #[test]
    fn a_further_name_means_nothing_else() {
        let all = [network("app", "10.89.0.0/24"), network("back", "10.89.1.0/24")];
        let check = |alias: &str| check_aliases(&["fine".parse().unwrap(), alias.parse().unwrap()], &all);
        for alias in ["db", "db.other", "app", "myapp", "local", "a.b"] {
            check(alias).unwrap();
        }
        for (alias, why) in [
            ("localhost", "itself"),
            ("LocalHost", "itself"),
            ("db.localhost", "itself"),
            ("db.back", "network back"),
            ("a.db.BACK", "network back"),
        ] {
            let refused = check(alias).unwrap_err();
            assert!(refused.to_string().contains(why) && refused.hint().is_some(), "{refused}");
        }
    }

    #[test]
    fn an_address_is_one_boxs() {
        let small = network("a", "10.89.0.0/29");
        let mut taken = BTreeMap::new();
        for last in 2..7 {
            let address = choose_address(&small, None, &taken).unwrap();
            assert_eq!(address, Ipv4Addr::new(10, 89, 0, last));
            taken.insert(address, format!("box{last}"));
        }
        assert!(matches!(choose_address(&small, None, &taken), Err(NetworkError::Full(_))));
        let asked =
            |last| choose_address(&small, Some(Ipv4Addr::new(10, 89, 0, last)), &taken).unwrap_err().to_string();
        assert!(asked(3).contains("of box box3"));
        for nobody in [0, 1, 7, 9] {
            assert!(asked(nobody).contains("no address of a box"), "{nobody}");
        }
    }

    #[test]
    fn a_guest_is_told_what_the_networks_rules_are() {
        let rules = |text: &[&str]| text.iter().map(|rule| rule.parse().unwrap()).collect::<Vec<Rule>>();
        let told = |between, egress: &[&str], ingress: &[&str]| {
            card_rules(&Rules { between, egress: rules(egress), ingress: rules(ingress) })
        };
        let open = card_rules(&Rules::open());
        assert_eq!(open, CardRules { neighbours: Neighbours::Reached, ..CardRules::of_own_wire(vec![], vec![]) });
        let strict = card_rules(&Rules::inside());
        assert!(strict.neighbours == Neighbours::Reached && strict.ingress.is_empty() && strict.egress.is_empty());
        let custom =
            told(false, &["192.0.2.0/24:443/tcp", "192.0.2.0/24:443/tcp", "10.0.0.0/8/icmp"], &["127.0.0.1:80-81"]);
        assert_eq!(custom.neighbours, Neighbours::KeptApart);
        let of = |address: [u8; 4], prefix, protocol, ports: Option<(u16, u16)>| CardRule {
            address: address.into(),
            prefix,
            protocol,
            ports: ports.map(|(first, last)| Ports { first, last }),
        };
        let (tcp, icmp) = (Some(CardProtocol::Tcp), Some(CardProtocol::Icmp));
        assert_eq!(custom.egress, [of([192, 0, 2, 0], 24, tcp, Some((443, 443))), of([10, 0, 0, 0], 8, icmp, None)]);
        assert_eq!(custom.ingress, [of([127, 0, 0, 1], 32, None, Some((80, 81)))]);
        assert!(told(false, &["8.8.8.8/udp"], &[]).egress[0].protocol == Some(CardProtocol::Udp));
        let all = told(true, &["0.0.0.0/0:1-65535"], &["198.51.100.7"]);
        assert!(all.ingress.iter().chain(&all.egress).all(CardRule::is_possible));
    }

    #[test]
    fn a_card_is_of_the_network_that_it_was_made_for() {
        let (one, other) = (network("a", "10.89.0.0/24"), network("b", "10.89.1.0/24"));
        let card = card(&one, [10, 89, 0, 7].into());
        assert!(is_of(&one, &card).is_ok() && is_of(&other, &card).is_err());
        assert!(is_of(&one, &Network::user()).is_err());
    }
}
