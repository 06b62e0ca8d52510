//! The network of a run, and what its box's port sees of the networks: the database, through a connection of its own.

use std::cell::Cell;
use std::path::Path;

use coffer_spec::Network;

use crate::Failure;
use crate::home::Home;
use crate::id::BoxId;
use crate::monitor::network::{self, Beginning, Look};
use crate::publish::Publish;
use crate::published::Held;
use crate::state::State;
use crate::tools::Search;

/// Begins the network of a box that has a card, with the ports that lead to it.
///
/// # Errors
/// As [`network::begin`], and as the database.
pub(super) fn begin(
    (home, id, search): (&Home, &BoxId, &Search),
    folder: &Path,
    card: Option<&Network>,
    ports: Vec<(Publish, Held)>,
) -> Result<Option<Beginning>, Failure> {
    let Some(card) = card else { return Ok(None) };
    network::begin(search, folder, card, ports, home.networks(), look(home, id)?).map(Some)
}

/// Looks for a box; in between only where somebody wrote to the database since.
///
/// # Errors
/// If the database does not open.
fn look(home: &Home, id: &BoxId) -> Result<Look, Failure> {
    let (state, id, seen) = (State::open(home)?, id.clone(), Cell::new(None));
    Ok(Box::new(move |always| {
        let now = Some(state.generation()?);
        if !always && seen.get() == now {
            return Ok(None);
        }
        let view = state.view_of(&id)?;
        // What was written in between is looked at once more.
        seen.set(now);
        Ok(Some(view))
    }))
}
