//! Networks that boxes share: made, listed, removed; and boxes that join and leave them.

use std::collections::BTreeMap;

use coffer_spec::{Name, Network};
use coffer_vmm::net::switch::{Rules, Subnet};

use super::named::NamedFilter;
use super::{Engine, Fault, Hint, OpenError};
use crate::boxes::unix_ms;
use crate::home::HomeError;
use crate::networks::{
    self, BoxNetwork, Guard, NetworkError, NetworkIsolation, NetworkRecord, RESERVED, Wish, choose_address,
    choose_subnet,
};
use crate::state::{BoxRecord, State, StateError};
use crate::supervisor::control;
use crate::{Class, Failure};

/// Why something with a network is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworksError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database does not answer.
    #[error(transparent)]
    State(#[from] StateError),
    /// The networks.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A box that runs was not told. A box that was to leave is recorded as gone; one that was to join did not.
    #[error("the box runs, and its supervisor was not told")]
    Told(#[source] Failure),
}

impl From<HomeError> for NetworksError {
    fn from(error: HomeError) -> Self {
        Self::Open(error.into())
    }
}

impl Fault for NetworksError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::State(error) => error.class(),
            Self::Network(error) => error.class(),
            Self::Told(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::State(error) => Fault::hint(error),
            Self::Network(error) => error.hint().map(Hint::Words),
            Self::Told(_) => Some("stop the box, and start it again".into()),
        }
    }
}

/// A network to make.
#[derive(Clone, Debug)]
pub struct NetworkRequest {
    /// Its name.
    pub name: Name,
    /// Its addresses; without a word some that are free.
    pub subnet: Option<Subnet>,
    /// How its boxes are kept from others.
    pub isolation: NetworkIsolation,
    /// The same, rule by rule.
    pub rules: Rules,
    /// What it is found by.
    pub labels: BTreeMap<String, String>,
}

/// A network, and which boxes are in it.
#[derive(Clone, Debug)]
pub struct ListedNetwork {
    /// The network.
    pub network: NetworkRecord,
    /// The boxes, each with what it has there.
    pub boxes: Vec<(BoxRecord, BoxNetwork)>,
}

/// A place in a network for a box that is about to be recorded. Nobody else gets it meanwhile.
#[derive(Debug)]
pub struct Placed {
    /// The card that a box there has.
    pub card: Network,
    /// As the record has it.
    pub place: BoxNetwork,
    _guard: Guard,
}

impl Engine {
    /// With the database open: opening it mends records.
    fn networks_guard(&self) -> Result<Guard, NetworksError> {
        self.open()?;
        Ok(networks::guard(&self.home()?.networks())?)
    }

    /// Makes a network.
    ///
    /// # Errors
    /// [`NetworksError`].
    pub fn create_network(&self, request: NetworkRequest) -> Result<NetworkRecord, NetworksError> {
        let NetworkRequest { name, subnet, isolation, rules, labels } = request;
        if RESERVED.contains(&name.as_str()) {
            return Err(NetworkError::Reserved(name).into());
        }
        let _guard = self.networks_guard()?;
        let state = self.state()?;
        let all = state.networks()?;
        if all.iter().any(|network| network.name == name) {
            return Err(NetworkError::Exists(name).into());
        }
        let subnet = choose_subnet(subnet, &all)?;
        let network = NetworkRecord { name, created: unix_ms(), subnet, isolation, rules, labels };
        state.add_network(&network)?;
        Ok(network)
    }

    /// The networks that a filter admits, by name.
    ///
    /// # Errors
    /// [`NetworksError`].
    pub fn list_networks(&self, filter: &NamedFilter) -> Result<Vec<ListedNetwork>, NetworksError> {
        let state = self.state()?;
        let listed = |network: NetworkRecord| {
            let boxes = state.boxes_in(&network.name)?;
            Ok::<_, NetworksError>(ListedNetwork { network, boxes })
        };
        let mut all = state.networks()?.into_iter().map(listed).collect::<Result<Vec<_>, _>>()?;
        all.retain(|ListedNetwork { network, boxes }| filter.admits(&network.name, &network.labels, boxes.is_empty()));
        Ok(all)
    }

    /// One network.
    ///
    /// # Errors
    /// [`NetworkError::Unknown`] in particular.
    pub fn inspect_network(&self, name: &Name) -> Result<ListedNetwork, NetworksError> {
        let state = self.state()?;
        let network = named(&state, name)?;
        Ok(ListedNetwork { boxes: state.boxes_in(name)?, network })
    }

    /// Removes a network that no box is in.
    ///
    /// # Errors
    /// [`NetworkError::InUse`] in particular.
    pub fn remove_network(&self, name: &Name) -> Result<(), NetworksError> {
        let guard = self.networks_guard()?;
        let ListedNetwork { boxes, .. } = self.inspect_network(name)?;
        if !boxes.is_empty() {
            let boxes = boxes.into_iter().map(|(found, _)| found.name).collect();
            return Err(NetworkError::InUse { name: name.clone(), boxes }.into());
        }
        self.forget_network(&guard, name)
    }

    /// Removes every network that no box is in and a filter admits, and names them.
    ///
    /// # Errors
    /// [`NetworksError`]; what was removed before it is gone.
    pub fn prune_networks(&self, filter: &NamedFilter) -> Result<Vec<Name>, NetworksError> {
        let guard = self.networks_guard()?;
        let mut gone = Vec::new();
        for ListedNetwork { network, .. } in self.list_networks(&filter.unused())? {
            self.forget_network(&guard, &network.name)?;
            gone.push(network.name);
        }
        Ok(gone)
    }

    /// Where sockets lie nobody listens any more.
    fn forget_network(&self, _: &Guard, name: &Name) -> Result<(), NetworksError> {
        self.state()?.remove_network(name)?;
        let _ = std::fs::remove_dir_all(self.home()?.networks().join(name.as_str()));
        Ok(())
    }

    /// A place in a network for a box that is about to be made.
    pub(super) fn place(&self, name: &Name, wish: &Wish) -> Result<Placed, NetworksError> {
        let guard = self.networks_guard()?;
        let state = self.state()?;
        let network = named(&state, name)?;
        networks::check_aliases(&wish.aliases, &state.networks()?)?;
        let address = choose_address(&network, wish.address, &state.addresses_in(name)?)?;
        let place = BoxNetwork { name: name.clone(), address, aliases: wish.aliases.clone() };
        Ok(Placed { card: networks::card(&network, address), place, _guard: guard })
    }

    /// The place that a spec's card has in a network.
    pub(super) fn place_of(&self, name: &Name, card: Option<&Network>, wish: &Wish) -> Result<Placed, NetworksError> {
        let card = card.ok_or(NetworkError::NoSpecCard)?;
        networks::is_of(&named(&*self.state()?, name)?, card)?;
        self.place(name, &Wish { address: Some(card.address), ..wish.clone() })
    }

    /// Refuses published ports where nobody is let in.
    pub(super) fn lets_in(&self, name: &Name) -> Result<(), NetworksError> {
        let open = !named(&*self.state()?, name)?.rules.ingress.is_empty();
        open.then_some(()).ok_or_else(|| NetworkError::NoIngress(name.clone()).into())
    }

    /// Puts a box into a network, whether it runs or not, and gives its address there.
    ///
    /// # Errors
    /// [`NetworksError`]; the box is not in it then.
    pub async fn connect_network(&self, name: &Name, word: &str, wish: &Wish) -> Result<BoxNetwork, NetworksError> {
        let (record, place, _guard) = {
            let guard = self.networks_guard()?;
            let state = self.state()?;
            let (network, record) = (named(&state, name)?, state.find(word)?);
            networks::check_aliases(&wish.aliases, &state.networks()?)?;
            let (options, holder) = (&record.options, record.name.clone());
            if !options.card {
                return Err(NetworkError::NoCard(holder).into());
            }
            if options.networks.iter().any(|place| place.name == *name) {
                return Err(NetworkError::Joined { holder, name: name.clone() }.into());
            }
            let mut taken = state.addresses_in(name)?;
            // It has the address of its card again, which nobody else got.
            let own = options.card_network.as_ref().filter(|place| place.name == *name).map(|place| place.address);
            let own = own.filter(|address| network.subnet.is_machine(*address));
            if let Some(own) = own {
                taken.remove(&own);
            }
            let address = choose_address(&network, wish.address.or(own), &taken)?;
            let place = BoxNetwork { name: name.clone(), address, aliases: wish.aliases.clone() };
            let networks = [&options.networks[..], std::slice::from_ref(&place)].concat();
            state.set_networks(&record.id, &networks)?;
            (record, place, guard)
        };
        if let Err(failure) = self.tell(&record).await {
            self.state()?.set_networks(&record.id, &record.options.networks)?;
            return Err(failure);
        }
        Ok(place)
    }

    /// Takes a box out of a network, whether it runs or not.
    ///
    /// # Errors
    /// [`NetworksError`].
    pub async fn disconnect_network(&self, name: &Name, word: &str) -> Result<(), NetworksError> {
        let (record, _guard) = {
            let guard = self.networks_guard()?;
            let state = self.state()?;
            let record = state.find(word)?;
            named(&state, name)?;
            let mut networks = record.options.networks.clone();
            networks.retain(|place| place.name != *name);
            if networks.len() == record.options.networks.len() {
                return Err(NetworkError::NotJoined { holder: record.name, name: name.clone() }.into());
            }
            state.set_networks(&record.id, &networks)?;
            (record, guard)
        };
        self.tell(&record).await
    }

    async fn tell(&self, record: &BoxRecord) -> Result<(), NetworksError> {
        let folder = self.home()?.box_folder(&record.id);
        control::tell_networks(&folder).await.map_err(NetworksError::Told)
    }
}

fn named(state: &State, name: &Name) -> Result<NetworkRecord, NetworksError> {
    let found = state.networks()?.into_iter().find(|network| network.name == *name);
    found.ok_or_else(|| NetworkError::Unknown(name.clone()).into())
}
