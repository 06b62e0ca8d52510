//! `coffer rmi`.

use std::process::ExitCode;

use coffer_runtime::images::{self, in_use, of_image};
use coffer_runtime::supervisor::of_state;

use crate::cli::Context;
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
        let removed = store.resolve(name).map_err(|error| of_image(&error)).and_then(|image| {
            let digest = image.config_digest.to_string();
            if let Some(user) = boxes.iter().find(|found| found.options.image_digest == digest && !args.force) {
                let message = format!("image {name} is used by box {} ({})", user.id.short(), user.name);
                return Err(CliError::new(Class::Config, message).hint("remove that box first, or use -f"));
            }
            store.remove(name).map_err(|error| of_image(&error))
        });
        match removed {
            Ok(removed) => {
                for reference in &removed.references {
                    println!("Untagged: {reference}");
                }
                println!("Deleted: {}", removed.config_digest);
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
