//! `coffer import`.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_image::Limits;
use coffer_image::archive::Import;
use coffer_runtime::boxes::unix_ms;
use coffer_runtime::images::{self, of_image};

use crate::context::Context;
use crate::error::{Class, CliError};
use crate::image::{load, room};
use crate::table;

/// Make an image of a root file system in a tar archive, compressed by gzip or zstd or not, and print its id.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer import root.tar.gz team/root:1
  tar -C root -c . | coffer import --change 'CMD [\"/bin/sh\"]' - team/root:1")]
pub struct Args {
    /// What it runs, as a Dockerfile says it: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR.
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A word for its history.
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// The archive; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its name; without one it has its id alone.
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Makes it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let store = images::open(&context.open_home()?)?;
    let stdin = args.file == Path::new("-");
    if stdin && io::stdin().is_terminal() {
        return Err(CliError::new(Class::Usage, "an archive does not come from a terminal").hint("redirect the input"));
    }
    let from = if stdin { "standard input".to_owned() } else { args.file.display().to_string() };
    let message = if args.message.is_empty() { format!("Imported from {from}") } else { args.message.clone() };
    let import = Import {
        reference: args.name.clone(),
        changes: args.change.clone(),
        message,
        created: table::rfc3339(unix_ms()),
    };
    let path = Path::new(&from);
    let pulled = if stdin {
        store.import(path, io::stdin().lock(), &import, Limits::default())
    } else {
        store.import(path, load::open_archive(&args.file)?, &import, Limits::default())
    };
    let image = pulled.map_err(|error| of_image(&error))?.image;
    if context.json {
        let id = image.config_digest.to_string();
        println!(
            "{}",
            serde_json::json!({"id": id, "reference": image.reference, "digest": image.manifest_digest.to_string()})
        );
    } else {
        println!("{}", image.config_digest);
    }
    room::keep(context, &[image.config_digest])?;
    Ok(ExitCode::SUCCESS)
}
