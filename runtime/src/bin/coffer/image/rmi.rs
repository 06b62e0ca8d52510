//! `coffer rmi`.

use std::process::ExitCode;

use coffer_image::Store;
use coffer_image::store::Removed;
use coffer_runtime::images::{self, in_use, of_image};
use coffer_runtime::state::BoxRecord;
use coffer_runtime::supervisor::of_state;

use crate::context::Context;
use crate::error::{self, Class, CliError};

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
    let mut last = None;
    for name in &args.images {
        match remove(&store, name, if args.force { &[] } else { &boxes }) {
            Ok(removed) => {
                for reference in &removed.references {
                    println!("Untagged: {reference}");
                }
                if let Some(digest) = removed.config_digest {
                    println!("Deleted: {digest}");
                }
            }
            Err(failure) => {
                if let Some(before) = last.replace(failure) {
                    error::print(&before, context.json);
                }
            }
        }
    }
    images::collect(&store, || state.all().map_err(of_state))?;
    last.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Removes one that none of these boxes was made from. A damaged one is of use to nobody: boxes made from it keep their root
/// file systems.
fn remove(store: &Store, name: &str, boxes: &[BoxRecord]) -> Result<Removed, CliError> {
    match store.resolve(name) {
        Ok(image) => {
            let digest = image.config_digest.to_string();
            if let Some(user) = boxes.iter().find(|found| found.options.image_digest == digest) {
                let message = format!("image {name} is used by box {} ({})", user.id.short(), user.name);
                return Err(CliError::new(Class::Config, message).hint("remove that box first, or use -f"));
            }
        }
        Err(error) if error.class() == "corrupt" => {}
        Err(error) => return Err(of_image(&error)),
    }
    store.remove(name).map_err(|error| of_image(&error))
}
