//! `coffer rmi`.

use std::process::ExitCode;

use coffer_image::Store;
use coffer_image::store::Removed;
use coffer_runtime::images::{self, in_use, of_image};
use coffer_runtime::state::BoxRecord;
use coffer_runtime::supervisor::of_state;

use crate::context::Context;
use crate::error::{Class, CliError};
use crate::several::each;

/// Remove images.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer rmi busybox:1.36
  coffer rmi --force busybox")]
pub struct Args {
    /// Also images that boxes were made from; those boxes keep their root file systems.
    #[arg(short, long)]
    force: bool,
    /// References, ids or unique prefixes of ids.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Removes them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (home, state) = context.open_state()?;
    let store = images::open(&home)?;
    let boxes = state.all().map_err(of_state)?;
    // Before anything is removed: a record that does not say what it uses stops it all.
    in_use(&boxes).map_err(|error| CliError::caused(Class::Config, &error).hint(error.hint()))?;
    let boxes: &[BoxRecord] = if args.force { &[] } else { &boxes };
    let end = each(
        context,
        ("images", "image"),
        &args.images,
        |name| remove(&store, name, boxes),
        |_, removed| {
            let Removed { references, config_digest } = removed;
            let mut lines: Vec<_> = references.iter().map(|reference| format!("Untagged: {reference}\n")).collect();
            lines.extend(config_digest.as_ref().map(|digest| format!("Deleted: {digest}\n")));
            let digest = config_digest.as_ref().map(ToString::to_string);
            (lines.concat(), serde_json::json!({ "untagged": references, "deleted": digest }))
        },
    );
    images::collect(&store, || state.all().map_err(of_state))?;
    Ok(end)
}

/// Removes one that none of these boxes was made from. A damaged one is of use to nobody: boxes made from it keep their root
/// file systems.
fn remove(store: &Store, name: &str, boxes: &[BoxRecord]) -> Result<Removed, CliError> {
    match store.resolve(name) {
        Ok(image) => {
            let digest = image.config_digest.to_string();
            // One of several names may go: by its id an image goes with all of them.
            let by_id = image.config_digest.hex().starts_with(name.strip_prefix("sha256:").unwrap_or(name));
            let others = !by_id && store.references(&image).map_err(|error| of_image(&error))?.len() > 1;
            let user = boxes.iter().find(|found| !others && found.options.image_digest == digest);
            if let Some(user) = user {
                let message = format!("image {name} is used by box {} ({})", user.id.short(), user.name);
                return Err(CliError::new(Class::Config, message).hint("remove that box first, or use -f"));
            }
        }
        Err(error) if error.class() == "corrupt" => {}
        Err(error) => {
            let failure = of_image(&error);
            // Nobody pulls an image to remove it.
            let absent = failure.class == Class::NotFound;
            return Err(if absent { failure.hint("coffer images lists what is here") } else { failure });
        }
    }
    store.remove(name).map_err(|error| of_image(&error))
}
