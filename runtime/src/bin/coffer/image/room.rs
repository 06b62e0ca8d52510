//! The limit of the store, after images came.

use coffer_image::{Digest, Store};
use coffer_rim::foreign;
use coffer_runtime::image_settings::ImageSettings;
use coffer_runtime::images::keep_to;
use coffer_runtime::supervisor::of_state;

use crate::context::Context;
use crate::error::CliError;

/// Keeps the store to its limit, and says for people what went. `came`: configurations of images that stay in any case.
pub fn keep(context: &Context, store: &Store, came: &[Digest]) -> Result<Vec<String>, CliError> {
    let limit = ImageSettings::of_home(&context.home)?.limit;
    if limit.is_none() {
        return Ok(Vec::new());
    }
    let (_, state) = context.open_state()?;
    let gone = keep_to(store, limit, came, || state.all().map_err(of_state))?;
    if !context.json {
        for name in &gone {
            eprintln!("removed, to keep images to their limit: {}", foreign(name));
        }
    }
    Ok(gone)
}
