//! `coffer platform`: what guests boot from.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_runtime::platform_folder::load_platform;

use crate::context::Context;
use crate::error::CliError;
use crate::row::Entry;

/// Show the guest platform.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer platform show")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[command!("show": ShowArgs => show)];

/// List its components with their SHA-256, each computed from the file and compared with the manifest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer platform show
  coffer --json platform show --platform target/release/platform-own")]
struct ShowArgs {
    /// Folder of the platform files.
    #[arg(long, value_name = "DIR")]
    platform: Option<PathBuf>,
}

fn show(args: &ShowArgs, context: &Context) -> Result<ExitCode, CliError> {
    let platform = load_platform(&context.search.platform_folder(args.platform.as_deref())?)?;
    let manifest = &platform.manifest;
    if context.json {
        println!("{}", serde_json::json!({ "folder": platform.folder, "manifest": manifest }));
        return Ok(ExitCode::SUCCESS);
    }
    println!("folder   {}", platform.folder.display());
    println!("kernel   {}", manifest.kernel_package);
    println!();
    for (name, bytes, digest) in [
        ("stage0.bin", Some(platform.stage0.len()), &manifest.stage0),
        ("kernel", Some(platform.kernel.len()), &manifest.kernel),
        ("initrd", Some(platform.initrd.len()), &manifest.initrd),
        ("  init", None, &manifest.init),
    ] {
        let bytes = bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        println!("{name:<36} {bytes:>9}  {digest}");
    }
    for (module, digest) in &manifest.modules {
        println!("{:<36} {:>9}  {digest}", format!("  {module}"), "");
    }
    Ok(ExitCode::SUCCESS)
}
