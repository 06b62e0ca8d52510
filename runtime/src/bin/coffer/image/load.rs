//! `coffer load`, and what it shares with pulls from files.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_image::archive::{LoadOptions, Loaded};
use coffer_image::{Limits, Platform};
use coffer_rim::foreign;
use coffer_runtime::images::{self, of_image};

use crate::context::Context;
use crate::error::{Class, CliError, NamedFile as _};
use crate::image::progress::left_out;
use crate::image::room;

/// Take images out of an archive of `docker save`, `coffer save` or an OCI layout, compressed by gzip or zstd or not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer load -i busybox.tar
  coffer load < busybox.tar.gz")]
pub struct Args {
    /// File to read; without it standard input, which must not be a terminal.
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print nothing but the names.
    #[arg(short, long)]
    quiet: bool,
    /// Platform of an image that is there for several.
    #[arg(long, value_name = "OS/ARCH[/LEVEL]", default_value_t)]
    platform: Platform,
}

/// Takes all of them.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let store = images::open(&context.open_home()?)?;
    let options = LoadOptions { platform: args.platform.clone(), ..LoadOptions::default() };
    let loaded = match &args.input {
        Some(path) => store.load(path, open_archive(path)?, &options, Limits::default()),
        None if io::stdin().is_terminal() => {
            let message = "an archive does not come from a terminal";
            return Err(CliError::new(Class::Usage, message).hint("name a file with -i, or redirect the input"));
        }
        None => store.load(Path::new("standard input"), io::stdin().lock(), &options, Limits::default()),
    };
    let loaded = loaded.map_err(|error| of_image(&error))?;
    if context.json {
        println!("{}", serde_json::json!({ "images": loaded.iter().map(described).collect::<Vec<_>>() }));
    } else {
        say(&loaded, args.quiet);
    }
    keep(context, loaded)
}

/// Lets go of what was loaded, and keeps the store to its limit.
pub fn keep(context: &Context, loaded: Vec<Loaded>) -> Result<ExitCode, CliError> {
    let came: Vec<_> = loaded.into_iter().map(|loaded| loaded.pulled.image.config_digest).collect();
    room::keep(context, &came)?;
    Ok(ExitCode::SUCCESS)
}

/// Opens an archive, or the folder of an OCI layout.
pub fn open(path: &Path) -> Result<File, CliError> {
    File::open(path).named(format!("cannot open {}", foreign(&path.to_string_lossy())))
}

/// Opens what is no folder.
pub fn open_archive(path: &Path) -> Result<File, CliError> {
    let file = open(path)?;
    if file.metadata().is_ok_and(|found| found.is_dir()) {
        let message = format!("{} is a folder, and no archive", foreign(&path.to_string_lossy()));
        return Err(CliError::new(Class::Config, message).hint(
            "of an OCI layout, `coffer pull oci:FOLDER`; of the files of an image, `tar -C FOLDER -c . | coffer import - NAME`",
        ));
    }
    Ok(file)
}

/// One that was loaded, for `--json`.
pub fn described(loaded: &Loaded) -> serde_json::Value {
    let (image, rootfs) = (&loaded.pulled.image, &loaded.pulled.rootfs);
    serde_json::json!({
        "references": loaded.references, "id": image.config_digest.to_string(), "digest": image.repo_digest.to_string(),
        "root_hash": rootfs.verity.root_hash, "left_out": rootfs.dropped,
    })
}

/// Names what was loaded, as Docker does.
fn say(loaded: &[Loaded], quiet: bool) {
    for one in loaded {
        let dropped = one.pulled.rootfs.dropped;
        if !quiet && dropped != coffer_image::Dropped::default() {
            eprintln!("{}", left_out(dropped));
        }
        if one.named {
            for name in &one.references {
                println!("Loaded image: {}", foreign(coffer_image::familiar(name)));
            }
        } else {
            println!("Loaded image ID: {}", one.pulled.image.config_digest);
        }
    }
}
