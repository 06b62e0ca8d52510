//! The limit of the disk, after images came.

use coffer_image::Digest;

use crate::context::Context;
use crate::error::CliError;
use crate::image::progress;

/// Keeps images to their limit, and says for people which went. `came`: configurations of images that stay in any case.
pub fn keep(context: &Context, came: &[Digest]) -> Result<Vec<String>, CliError> {
    let gone = context.engine()?.make_room(came)?;
    if !context.json {
        progress::removed(&gone);
    }
    Ok(gone)
}
