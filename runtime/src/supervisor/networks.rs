//! What a box's port sees of the networks: the database, through a connection of its own.

use std::cell::Cell;

use crate::Failure;
use crate::home::Home;
use crate::id::BoxId;
use crate::monitor::network::Look;
use crate::state::State;

/// Looks for a box; in between only where somebody wrote to the database since.
///
/// # Errors
/// If the database does not open.
pub fn look(home: &Home, id: &BoxId) -> Result<Look, Failure> {
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
