//! `coffer logout`.

use std::process::ExitCode;

use coffer_image::credentials::keep;
use coffer_runtime::images::of_image;

use crate::context::Context;
use crate::error::CliError;
use crate::image::login::{file, registry};

/// Forget the login of a registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer logout registry.example")]
pub struct Args {
    /// HOST or HOST:PORT; Docker's own without it.
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    registry: String,
}

/// Forgets it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let registry = registry(&args.registry)?;
    let removed = keep::forget(&file(context)?, &registry).map_err(|error| of_image(&error))?;
    if context.json {
        println!("{}", serde_json::json!({ "registry": registry, "removed": removed }));
    } else if removed {
        println!("Removing login credentials for {registry}");
    } else {
        println!("Not logged in to {registry}");
    }
    Ok(ExitCode::SUCCESS)
}
