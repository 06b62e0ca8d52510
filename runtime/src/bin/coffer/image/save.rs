//! `coffer save`.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_image::ImageError;
use coffer_rim::file::Writer;
use coffer_rim::out;
use coffer_runtime::images::{self, of_image};

use crate::context::Context;
use crate::error::{Class, CliError};

/// Write images to one archive, an OCI layout that is Docker's archive too: `docker load`, `skopeo` and `coffer load` read it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer save -o busybox.tar busybox
  coffer save busybox | gzip > busybox.tar.gz")]
pub struct Args {
    /// File to write; without it standard output, which must not be a terminal.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// References, ids or unique prefixes of ids.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Writes them. A file is there whole or not at all.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let store = images::open(&context.open_home()?)?;
    let Some(path) = &args.output else {
        if context.json || io::stdout().is_terminal() {
            let message = if context.json {
                "--json and the archive both want standard output"
            } else {
                "an archive is nothing for a terminal"
            };
            return Err(CliError::new(Class::Usage, message).hint("name a file with -o, or redirect the output"));
        }
        let to = Path::new("standard output");
        let buffered = io::BufWriter::with_capacity(256 << 10, out::Stdout);
        return store.save(&args.images, to, buffered).map(|_| ExitCode::SUCCESS).map_err(|error| of_image(&error));
    };
    let mut failure: Option<ImageError> = None;
    let mut saved = Vec::new();
    let written = Writer::private().into_pipes().write_with(path, |file| {
        match store.save(&args.images, path, io::BufWriter::with_capacity(256 << 10, file)) {
            Ok(images) => saved = images,
            Err(error) => failure = Some(error),
        }
        if failure.is_none() { Ok(()) } else { Err(io::Error::other("not saved")) }
    });
    if let Some(error) = &failure {
        return Err(of_image(error));
    }
    written.map_err(|error| CliError::new(Class::Config, format!("cannot write {}: {error}", path.display())))?;
    if context.json {
        let names: Vec<_> = saved.iter().map(|image| &image.reference).collect();
        println!("{}", serde_json::json!({"output": path, "images": names}));
    }
    Ok(ExitCode::SUCCESS)
}
