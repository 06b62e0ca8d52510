//! `coffer tag`.

use std::process::ExitCode;

use coffer_runtime::images::{self, of_image};

use crate::context::Context;
use crate::error::CliError;

/// Give an image one more name. A name that led to another image leads to this one then.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer tag busybox registry.example/team/busybox:1")]
pub struct Args {
    /// Reference, id or unique prefix of an id.
    image: String,
    /// The name.
    name: String,
}

/// Names it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let store = images::open(&context.open_home()?)?;
    let image = store.tag(&args.image, &args.name).map_err(|error| of_image(&error))?;
    if context.json {
        println!("{}", serde_json::json!({"reference": image.reference, "id": image.config_digest.to_string()}));
    }
    Ok(ExitCode::SUCCESS)
}
