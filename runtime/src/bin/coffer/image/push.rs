//! `coffer push`.

use std::process::ExitCode;

use coffer_image::Pushed;
use coffer_rim::foreign;
use coffer_runtime::images::{self, of_image};

use crate::context::Context;
use crate::error::CliError;
use crate::image::progress;

/// Send an image to the registry that its name says. `coffer tag` gives it such a name.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer tag busybox registry.example/team/tools:1
  coffer push registry.example/team/tools:1")]
pub struct Args {
    /// Print the reference only.
    #[arg(short, long)]
    quiet: bool,
    /// Speak plain http to this registry.
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
    /// Its name, maybe with a tag.
    image: String,
}

/// Sends what the registry has not.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let store = images::open(&context.open_home()?)?;
    let progress = progress::lines(args.quiet || context.json);
    let options = context.engine()?.pull_options(&args.insecure_registry, progress.as_ref())?;
    let pushed = context.runtime()?.block_on(store.push(&args.image, &options));
    let Pushed { reference, digest, size, sent } = pushed.map_err(|error| of_image(&error))?;
    if context.json {
        let document = serde_json::json!({
            "reference": reference, "digest": digest.to_string(), "size": size, "sent": sent,
        });
        println!("{document}");
    } else if args.quiet {
        println!("{}", foreign(&reference));
    } else {
        let tag = reference.rsplit(':').next().unwrap_or_default();
        println!("{tag}: digest: {digest} size: {size}");
    }
    Ok(ExitCode::SUCCESS)
}
