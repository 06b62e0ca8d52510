//! `coffer pull`.

use std::process::ExitCode;

use coffer_image::{Platform, PullOptions, Pulled};
use coffer_runtime::images::{self, of_image};

use crate::context::Context;
use crate::error::CliError;
use crate::image::progress;

/// Pull an image and make its root file system.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer pull docker.io/library/busybox:1.36")]
pub struct Args {
    /// Print the reference only.
    #[arg(short, long)]
    quiet: bool,
    /// Speak plain http to this registry.
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
    /// Platform of an image that is there for several: linux/amd64, maybe with a level of it (linux/amd64/v3).
    #[arg(long, value_name = "OS/ARCH[/LEVEL]", default_value_t)]
    platform: Platform,
    /// Image reference.
    image: String,
}

/// Pulls it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let home = context.open_home()?;
    let store = images::open(&home)?;
    let progress = progress::shown(args.quiet || context.json);
    let options = PullOptions {
        platform: args.platform.clone(),
        ..context.engine()?.pull_options(&args.insecure_registry, progress.as_ref())
    };
    let pulled = context.runtime()?.block_on(store.pull(&args.image, &options));
    let Pulled { image, rootfs } = pulled.map_err(|error| of_image(&error))?;
    if context.json {
        let space = store.space(&image);
        println!(
            "{}",
            serde_json::json!({
                "reference": image.reference, "digest": image.repo_digest.to_string(), "id": image.config_digest.to_string(),
                "root_hash": rootfs.verity.root_hash, "manifest": image.manifest_digest.to_string(),
                "download": image.size, "size": space.disk, "unpacked": space.unpacked, "left_out": rootfs.dropped,
            })
        );
    } else {
        if !args.quiet {
            println!("Digest: {}", image.repo_digest);
            println!("Root hash: {}", rootfs.verity.root_hash);
        }
        println!("{}", image.reference);
    }
    Ok(ExitCode::SUCCESS)
}
