//! `coffer create`: records a box without starting it.

use std::process::ExitCode;

use coffer_runtime::boxes::Timings;

use crate::boxes::flags::behind_the_image;
use crate::boxes::new_box::NewBox;
use crate::context::Context;
use crate::error::{self, CliError};

/// Create a box from an image, to be started later.
#[derive(Debug, clap::Args)]
#[command(override_usage = "coffer create [OPTIONS] IMAGE [COMMAND]...")]
#[command(after_help = "Examples:
  coffer create --name web busybox httpd -f
  coffer create --tee-simulate --id-key id.pem --author-key author.pem \\
      --guest-svn 3 busybox httpd -f")]
pub struct Args {
    #[command(flatten)]
    new: NewBox,
}

/// Creates it and prints its id.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let timings = Timings::start();
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let request = args.new.request(&engine, timings)?;
    let id_file = args.new.id_file()?;
    let progress = args.new.progress(context);
    let created = context.runtime()?.block_on(engine.create(request, progress.as_ref()));
    let record = created.map_err(error::of)?;
    id_file.map_or(Ok(()), |file| file.write(&record.id))?;
    behind_the_image::<Args>(args.new.words(), &record.options.command);
    if context.json {
        println!("{}", serde_json::json!({ "id": record.id, "name": record.name }));
    } else {
        println!("{}", record.id);
    }
    Ok(ExitCode::SUCCESS)
}
