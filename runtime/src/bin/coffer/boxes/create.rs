//! `coffer create`: records a box without starting it.

use std::process::ExitCode;

use coffer_runtime::boxes::Timings;
use coffer_runtime::engine::CreateRequest;

use crate::cli::Context;
use crate::error::{self, CliError};
use crate::flags::BoxFlags;
use crate::id_flags::IdFlags;
use crate::progress;

/// Create a box from an image, to be started later.
#[derive(Debug, clap::Args)]
#[command(override_usage = "coffer create [OPTIONS] IMAGE [COMMAND]...")]
#[command(after_help = "Examples:
  coffer create --name web busybox httpd -f
  coffer create --tee-simulate --id-key id.pem --author-key author.pem --guest-svn 3 busybox httpd -f")]
pub struct Args {
    /// Name of the box [default: adjective_noun].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Remove the box when it ends.
    #[arg(long)]
    rm: bool,
    /// Print nothing but the id.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    id: IdFlags,
    #[command(flatten)]
    flags: BoxFlags,
}

/// Creates it and prints its id.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let timings = Timings::start();
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let request = CreateRequest {
        what: args.flags.request(&engine)?,
        name: args.name.clone(),
        remove: args.rm,
        identity: args.id.identity()?,
        timings,
    };
    let progress = progress::shown(args.quiet || context.json);
    let created = context.runtime()?.block_on(engine.create(request, progress.as_ref()));
    let record = created.map_err(error::of)?;
    if context.json {
        println!("{}", serde_json::json!({ "id": record.id, "name": record.name }));
    } else {
        println!("{}", record.id);
    }
    Ok(ExitCode::SUCCESS)
}
