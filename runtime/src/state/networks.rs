//! Which networks there are, and which boxes are in them: the latter by the records of the boxes alone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use coffer_spec::Name;
use coffer_vmm::net::switch::{Joined, View};
use rusqlite::params;

use super::record::json;
use super::{BoxRecord, State, StateError};
use crate::id::BoxId;
use crate::networks::{BoxNetwork, NetworkRecord};

impl State {
    /// Every network, by name.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn networks(&self) -> Result<Vec<NetworkRecord>, StateError> {
        let mut query = self.db.prepare("select name, record from networks order by name")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let read = |row: rusqlite::Result<(String, String)>| {
            let (id, record) = row?;
            serde_json::from_str(&record).map_err(|_| StateError::Record { id, field: "network" })
        };
        rows.map(read).collect()
    }

    /// Records a network.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn add_network(&self, network: &NetworkRecord) -> Result<(), StateError> {
        let insert = "insert into networks (name, record) values (?1, ?2)";
        self.db.execute(insert, params![network.name.as_str(), json(network)])?;
        Ok(())
    }

    /// Forgets a network.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn remove_network(&self, name: &Name) -> Result<(), StateError> {
        self.db.execute("delete from networks where name = ?1", [name.as_str()])?;
        Ok(())
    }

    /// A box is in these networks from now on.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Unknown`] if there is no such box.
    pub fn set_networks(&self, id: &BoxId, networks: &[BoxNetwork]) -> Result<(), StateError> {
        // That option alone: others may change at the same time.
        let changed = self.db.execute(
            "update boxes set options = json_set(options, '$.networks', json(?2)) where id = ?1",
            params![id.as_str(), json(&networks)],
        )?;
        if changed == 1 { Ok(()) } else { Err(StateError::Unknown(id.to_string())) }
    }

    /// The boxes that are in a network, newest first, each with what it has there.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn boxes_in(&self, network: &Name) -> Result<Vec<(BoxRecord, BoxNetwork)>, StateError> {
        let all = self.all()?;
        let there = all.into_iter().filter_map(|found| {
            let place = found.options.networks.iter().find(|place| place.name == *network).cloned()?;
            Some((found, place))
        });
        Ok(there.collect())
    }

    /// Addresses of a network that are a box's, and whose. A box that left the network of its card keeps its address.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn addresses_in(&self, network: &Name) -> Result<BTreeMap<Ipv4Addr, String>, StateError> {
        let mut taken = BTreeMap::new();
        for BoxRecord { name, options, .. } in self.all()? {
            for place in options.networks.iter().chain(&options.card_network).filter(|place| place.name == *network) {
                taken.insert(place.address, name.clone());
            }
        }
        Ok(taken)
    }

    /// A number that changes when others write to the database.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn generation(&self) -> Result<i64, StateError> {
        Ok(self.db.pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// The networks as the port of a box has them. Of other boxes those that run are in them.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn view_of(&self, id: &BoxId) -> Result<View, StateError> {
        let (boxes, networks) = (self.all()?, self.networks()?);
        let own = boxes.iter().find(|found| found.id == *id).ok_or_else(|| StateError::Unknown(id.to_string()))?;
        let mut view = View { own_wire: own.options.card_network.is_none(), joined: Vec::new(), others: Vec::new() };
        for network in networks {
            let has =
                |found: &BoxRecord| found.options.networks.iter().find(|place| place.name == network.name).cloned();
            let Some(place) = has(own) else {
                view.others.push(network.subnet);
                continue;
            };
            let there = boxes.iter().filter(|found| found.state.is_up() || found.id == *id);
            let members = there.filter_map(|found| has(found).map(|place| (place.address, names(found, &place))));
            view.joined.push(Joined {
                name: network.name.to_string(),
                subnet: network.subnet,
                address: place.address,
                rules: network.rules.clone(),
                members: members.collect(),
            });
        }
        Ok(view)
    }
}

/// Names by which others find a box in a network: its own, its short id and its aliases, each by itself and below the network's.
fn names(found: &BoxRecord, place: &BoxNetwork) -> Vec<String> {
    let all = [found.name.as_str(), found.id.short()].into_iter().chain(place.aliases.iter().map(Name::as_str));
    let lower = all.map(str::to_ascii_lowercase);
    let network = place.name.as_str().to_ascii_lowercase();
    lower.flat_map(|name| [format!("{name}.{network}"), name]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::BoxState;
    use super::super::tests::{home, record};
    use super::*;
    use crate::networks::tests::network;

    fn place(name: &str, last: u8) -> BoxNetwork {
        BoxNetwork {
            name: name.parse().unwrap(),
            address: [10, 89, 0, last].into(),
            aliases: vec!["Alias".parse().unwrap()],
        }
    }

    #[test]
    fn a_network_is_kept_as_it_was_made_and_once() {
        let (_dir, home) = home();
        let state = State::open(&home).unwrap();
        let (b, a) = (network("b", "10.89.1.0/24"), network("a", "10.89.0.0/24"));
        state.add_network(&b).unwrap();
        state.add_network(&a).unwrap();
        assert!(state.add_network(&a).is_err());
        assert_eq!(state.networks().unwrap(), [a.clone(), b.clone()]);
        state.remove_network(&a.name).unwrap();
        assert_eq!(state.networks().unwrap(), [b]);
    }

    #[test]
    fn a_view_has_boxes_that_run_by_their_names_and_follows_what_changes() {
        let (_dir, home) = home();
        let (state, other) = (State::open(&home).unwrap(), State::open(&home).unwrap());
        state.add_network(&network("app", "10.89.0.0/24")).unwrap();
        state.add_network(&network("more", "10.89.1.0/24")).unwrap();
        let (mut web, mut db, mut off) = (record("Web"), record("db"), record("off"));
        web.options.card_network = Some(place("app", 2));
        for (found, last) in [(&mut web, 2), (&mut db, 3), (&mut off, 4)] {
            found.options.networks = vec![place("app", last)];
            state.add(found).unwrap();
        }
        super::super::tests::started(&state, &db, 1);
        let view = state.view_of(&web.id).unwrap();
        assert!(!view.own_wire && state.view_of(&db.id).unwrap().own_wire);
        assert_eq!(view.others, ["10.89.1.0/24".parse().unwrap()]);
        let [app] = &view.joined[..] else { panic!("{view:?}") };
        let of = |last: u8| app.members.get(&Ipv4Addr::new(10, 89, 0, last));
        for name in ["db", "db.app", "alias", "alias.app", db.id.short()] {
            assert!(of(3).unwrap().iter().any(|known| known == name), "{name}");
        }
        assert!(of(2).unwrap().contains(&"web".to_owned()), "itself, though it only starts");
        assert!(of(4).is_none(), "it does not run");
        assert_eq!(state.box_of(&db.id).unwrap().state, BoxState::Running);

        let before = state.generation().unwrap();
        assert_eq!(state.generation().unwrap(), before);
        other.set_networks(&web.id, &[]).unwrap();
        assert_ne!(state.generation().unwrap(), before);
        let view = state.view_of(&web.id).unwrap();
        assert!(view.joined.is_empty() && !view.own_wire && view.others.len() == 2);
        let taken = state.addresses_in(&"app".parse().unwrap()).unwrap();
        assert_eq!(taken.values().collect::<Vec<_>>(), ["Web", "db", "off"], "it keeps the address of its card");
        assert_eq!(state.boxes_in(&"app".parse().unwrap()).unwrap().len(), 2);
        assert!(matches!(state.set_networks(&BoxId::random(), &[]), Err(StateError::Unknown(_))));
    }
}
