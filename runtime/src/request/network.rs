//! What a user says about a box's network, and the card that follows.
//!
//! A box that nobody measures has a card unless one is refused. In a guest that proves itself
//! the card is part of what is measured, and a way in beside RA-TLS: it has one where something asks for it, on any machine alike.

use std::net::Ipv4Addr;

use coffer_spec::{CardRules, Domain, HostEntry, Name, Network, ResolverOption, Tee};

use super::RequestError;
use crate::networks::Wish;
use crate::publish::{self, How, Publish};

/// What `--network` chooses among.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No card: the guest's loopback alone.
    Nothing,
    /// A card behind which the host carries connections out, and published ports in.
    User,
    /// The same, with an address in a network of the user's making.
    Network(Name),
}

impl core::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::Nothing),
            "user" => Ok(Self::User),
            "host" => Err("a box shares no network with its host; write user, none or the name of a network".into()),
            "bridge" | "default" => Err("a box that is in no network has one of its own; write user".into()),
            name => name.parse().map(Self::Network).map_err(super::told),
        }
    }
}

/// What is said about a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkWords {
    /// `--network`, if it is there.
    pub wanted: Option<Wanted>,
    /// Whom the guest asks for names, in place of the host's own resolver.
    pub dns: Vec<Ipv4Addr>,
    /// Domains that it looks for short names in.
    pub search: Vec<Domain>,
    /// Words for its resolver.
    pub options: Vec<ResolverOption>,
    /// Names it knows without asking.
    pub hosts: Vec<HostEntry>,
    /// Every port that the image says it listens on is published.
    pub publish_all: bool,
    /// Further ports of that kind.
    pub expose: Vec<(u16, How)>,
    /// What it is to have in its network.
    pub wish: Wish,
}

impl NetworkWords {
    /// The network that the box is to be in.
    pub fn network(&self) -> Option<&Name> {
        match &self.wanted {
            Some(Wanted::Network(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether they ask for a card.
    ///
    /// # Errors
    /// [`RequestError::NoNetwork`] if they refuse one as well.
    pub fn ask_for_card(&self, publish: &[Publish]) -> Result<bool, RequestError> {
        let of_card = |what| (self.wanted == Some(Wanted::Nothing)).then_some(what);
        let asked = [
            (publish.iter().any(|publish| publish.how.is_of_card()), "a port published without /ra-tls or /tls"),
            (self.publish_all, "--publish-all"),
            (!self.dns.is_empty(), "--dns"),
            (!self.search.is_empty(), "--dns-search"),
            (!self.options.is_empty(), "--dns-option"),
            (!self.hosts.is_empty(), "--add-host"),
        ];
        let asked = asked.into_iter().find_map(|(is_there, what)| is_there.then_some(what));
        match asked.and_then(of_card) {
            Some(what) => Err(RequestError::NoNetwork(what)),
            None => Ok(asked.is_some() || matches!(self.wanted, Some(Wanted::User | Wanted::Network(_)))),
        }
    }

    /// The card. `shared`: the one of its place in a network.
    ///
    /// # Errors
    /// As [`NetworkWords::ask_for_card`].
    pub fn card(
        &self,
        publish: &[Publish],
        tee: Tee,
        shared: Option<Network>,
    ) -> Result<Option<Network>, RequestError> {
        let usual = tee == Tee::None && self.wanted.is_none();
        if !self.ask_for_card(publish)? && !usual {
            return Ok(None);
        }
        let (search, options) = (self.search.clone(), self.options.clone());
        let mut card = Network { search, options, hosts: self.hosts.clone(), ..shared.unwrap_or_else(Network::user) };
        if !self.dns.is_empty() {
            card.dns.clone_from(&self.dns);
        }
        let of_network = card.rules.take().unwrap_or_else(|| CardRules::of_own_wire(Vec::new(), Vec::new()));
        // What no TEE proves is held to them outside alone, and says nothing of them.
        card.rules = (tee != Tee::None).then(|| CardRules {
            tcp: published(publish, How::Tcp),
            udp: published(publish, How::Udp),
            ..of_network
        });
        Ok(Some(card))
    }

    /// What is published of the ports that an image says it listens on, each at a port that is free, behind what is published already.
    ///
    /// # Errors
    /// [`RequestError::Exposed`] for one that cannot be.
    pub fn publish_exposed(&self, image: &[String], published: &[Publish]) -> Result<Vec<Publish>, RequestError> {
        let mut all = published.to_vec();
        if !self.publish_all {
            return Ok(all);
        }
        let mut ports = self.expose.clone();
        for text in image {
            ports.extend(publish::exposed(text).map_err(|_| RequestError::Exposed(text.clone()))?);
        }
        ports.sort_unstable();
        ports.dedup();
        ports.retain(|port| !published.iter().any(|it| (it.guest, it.how) == *port));
        let anywhere = (Ipv4Addr::UNSPECIFIED, 0).into();
        all.extend(ports.into_iter().map(|(guest, how)| Publish { host: anywhere, guest, how }));
        Ok(all)
    }
}

/// Ports of the guest that are published, each once and in order.
fn published(all: &[Publish], how: How) -> Vec<u16> {
    let mut ports: Vec<u16> = all.iter().filter(|publish| publish.how == how).map(|publish| publish.guest).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// How an entry of `/etc/hosts` is written.
pub const ADD_HOST: &str = "NAME:ADDRESS, such as db:192.0.2.9";

/// `NAME:ADDRESS`, or `NAME=ADDRESS`.
///
/// # Errors
/// What is wrong with it.
pub fn host_entry(text: &str) -> Result<HostEntry, String> {
    let (name, address) = text.split_once([':', '=']).ok_or("it has no address")?;
    let name: Name = name.parse().map_err(super::told)?;
    if address == "host-gateway" {
        return Err("the host's loopback is not reached from a box".into());
    }
    let address = address.parse().map_err(|_| format!("{address:?} is no address of IPv4"))?;
    Ok(HostEntry { name, address })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::tests::one;

    #[test]
    fn a_box_that_nobody_measures_has_a_card_and_another_only_if_it_is_asked_for() {
        let words = NetworkWords::default();
        for (tee, card) in [(Tee::None, true), (Tee::Simulated, false), (Tee::Snp, false)] {
            assert_eq!(words.card(&[one("80/ra-tls")], tee, None).unwrap().is_some(), card, "{tee:?}");
            let ports = [one("80"), one("8080:53/udp"), one("1:443"), one("2:443"), one("81/ra-tls")];
            let asked = words.card(&ports, tee, None).unwrap();
            let rules = CardRules::of_own_wire(vec![80, 443], vec![53]);
            let rules = (tee != Tee::None).then_some(rules);
            assert_eq!(asked, Some(Network { rules, ..Network::user() }), "{tee:?}");
            let none = NetworkWords { wanted: Some(Wanted::Nothing), ..NetworkWords::default() };
            assert_eq!(none.card(&[one("80/ra-tls")], tee, None).unwrap(), None);
        }
        let server = Ipv4Addr::new(192, 0, 2, 53);
        let named = NetworkWords { dns: vec![server], ..words };
        assert_eq!(named.card(&[], Tee::Simulated, None).unwrap().unwrap().dns, [server]);
        // In a network it has the card of its place there, whatever proves it.
        let none = CardRules { egress: Vec::new(), ..CardRules::of_own_wire(Vec::new(), Vec::new()) };
        let address = Ipv4Addr::new(10, 89, 0, 2);
        let shared = Network { address, rules: Some(none.clone()), ..Network::user() };
        let words = NetworkWords { wanted: Some("app".parse().unwrap()), ..NetworkWords::default() };
        assert_eq!(words.network().unwrap().as_str(), "app");
        let of = |tee| words.card(&[one("80")], tee, Some(shared.clone())).unwrap().unwrap();
        assert_eq!(of(Tee::Snp), Network { rules: Some(CardRules { tcp: vec![80], ..none }), ..shared.clone() });
        assert_eq!(of(Tee::None), Network { rules: None, ..shared.clone() });
    }

    #[test]
    fn what_needs_a_card_is_refused_beside_the_word_that_takes_it_away() {
        let none = NetworkWords { wanted: Some(Wanted::Nothing), ..NetworkWords::default() };
        assert!(none.ask_for_card(&[one("80")]).unwrap_err().to_string().contains("a port published"));
        let entry = host_entry("db:192.0.2.9").unwrap();
        for (words, what) in [
            (NetworkWords { publish_all: true, ..none.clone() }, "--publish-all"),
            (NetworkWords { dns: vec![Ipv4Addr::new(192, 0, 2, 53)], ..none.clone() }, "--dns"),
            (NetworkWords { search: vec!["a.example".parse().unwrap()], ..none.clone() }, "--dns-search"),
            (NetworkWords { options: vec!["rotate".parse().unwrap()], ..none.clone() }, "--dns-option"),
            (NetworkWords { hosts: vec![entry], ..none.clone() }, "--add-host"),
        ] {
            assert!(words.ask_for_card(&[]).unwrap_err().to_string().contains(what), "{what}");
        }
        assert!(!none.ask_for_card(&[]).unwrap());
        for no_network in ["bridge", "default", "host", "container:web", ""] {
            assert!(no_network.parse::<Wanted>().is_err(), "{no_network}");
        }
    }

    #[test]
    fn every_port_of_the_image_and_those_named_are_published_once() {
        let words = NetworkWords {
            publish_all: true,
            expose: vec![(9000, How::Tcp), (80, How::Tcp), (80, How::Udp)],
            ..NetworkWords::default()
        };
        let image = ["80/tcp".to_owned(), "443".to_owned(), "8000-8001/tcp".to_owned(), "53/udp".to_owned()];
        let said = |published: &[Publish]| {
            let all = words.publish_exposed(&image, published).unwrap();
            all.iter().map(Publish::to_string).collect::<Vec<_>>()
        };
        let all = ["53/udp", "80/tcp", "80/udp", "443/tcp", "8000/tcp", "8001/tcp", "9000/tcp"];
        assert_eq!(said(&[]), all.map(|port| format!("0.0.0.0:0->{port}")));
        let some = ["0.0.0.0:8080->80/tcp", "0.0.0.0:0->53/udp", "0.0.0.0:0->80/udp", "0.0.0.0:0->443/tcp"];
        assert_eq!(said(&[one("8080:80")])[..4], some);
        for bad in ["53/sctp", "x/tcp", "1-9999"] {
            assert!(words.publish_exposed(&[bad.into()], &[]).unwrap_err().to_string().contains(bad));
        }
        let not = NetworkWords::default();
        assert_eq!(not.publish_exposed(&image, &[one("1:2")]).unwrap(), [one("1:2")]);
    }

    #[test]
    fn an_entry_has_a_name_and_an_address_in_numbers() {
        let entry = host_entry("db.example:192.0.2.9").unwrap();
        assert_eq!((entry.name.as_str(), entry.address), ("db.example", Ipv4Addr::new(192, 0, 2, 9)));
        assert_eq!(host_entry("db=192.0.2.9").unwrap().address, entry.address);
        for bad in ["db", "db:", "db:host-gateway", ":192.0.2.9", "db:::1", "db:x"] {
            assert!(host_entry(bad).is_err(), "{bad}");
        }
    }
}
