//! `coffer image prune`.

use std::process::ExitCode;

use coffer_image::Image;
use coffer_runtime::images::{self, in_use, of_image};
use coffer_runtime::supervisor::of_state;
use serde_json::json;

use crate::confirm;
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::image::room;
use crate::table;

/// Remove images without a name that no box was made from, and whatever else of the store leads to no image.
#[derive(Debug, clap::Args)]
#[command(after_help = "Asks first, unless --force is given. What was begun by a pull that did not end goes too.

Examples:
  coffer image prune -f
  coffer image prune --all --force")]
pub struct Args {
    /// Also images that have a name.
    #[arg(short, long)]
    all: bool,
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
}

/// Removes them and says what they took.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (home, state) = context.open_state()?;
    let store = images::open(&home)?;
    if !args.force {
        let what = if args.all { "every image that no box was made from" } else { "images without a name" };
        confirm::removal(context, what)?;
    }
    let boxes = state.all().map_err(of_state)?;
    let used = in_use(&boxes).map_err(|error| CliError::caused(Class::Config, &error).hint(error.hint()))?;
    let goes = |image: &Image| (args.all || image.is_unnamed()) && !used.contains(&image.config_digest);
    let mut untagged = Vec::new();
    for image in store.list().map_err(|error| of_image(&error))?.images.iter().filter(|image| goes(image)) {
        match store.remove(&image.reference) {
            Ok(removed) => untagged.extend(removed.references),
            // Somebody else was faster.
            Err(error) if error.class() == "not-found" => {}
            Err(error) => return Err(of_image(&error)),
        }
    }
    let Some(freed) = images::collect(&store, || state.all().map_err(of_state))? else {
        let failure = CliError::new(Class::Config, "the store of images is in use, so nothing is freed");
        return Err(failure.hint("try again when no pull is under way and no box is being made"));
    };
    untagged.extend(room::keep(context, &[])?);
    if context.json {
        println!("{}", json!({ "untagged": untagged, "files": freed.files, "bytes": freed.bytes }));
        return Ok(ExitCode::SUCCESS);
    }
    if !untagged.is_empty() {
        println!("Deleted images:");
        for name in &untagged {
            println!("untagged: {name}");
        }
        println!();
    }
    println!("Total reclaimed space: {}", table::size(freed.bytes));
    Ok(ExitCode::SUCCESS)
}
