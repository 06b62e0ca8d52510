//! `coffer run`: creates a box, starts it, and stays with it unless told otherwise.

use std::process::ExitCode;

use coffer_runtime::boxes::Timings;

use crate::cli::Context;
use crate::create::{self, Wanted};
use crate::error::CliError;
use crate::flags::BoxFlags;
use crate::id_flags::IdFlags;
use crate::live::{self, Stay};

/// Create a box from an image and run it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer run --rm busybox echo hello
  coffer run -d --name web --tee-simulate --kbs kbs.example:8443 --kbs-pin HEX --secret kbs:///default/web/key=key IMAGE
  coffer run --tee-simulate --id-key id.pem --author-key author.pem --family-id acme --image-id web --guest-svn 3 IMAGE")]
pub struct Args {
    /// Leave the box running and print its id, once the workload runs.
    #[arg(short, long)]
    detach: bool,
    /// Remove the box when it ends.
    #[arg(long)]
    rm: bool,
    /// Name of the box [default: adjective_noun].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print what each phase of the start took.
    #[arg(long)]
    timing: bool,
    /// Believe the simulator of this installation, to show output that only the owner of a simulated box may read.
    #[arg(long)]
    allow_simulated: bool,
    /// No progress of pulls.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    id: IdFlags,
    #[command(flatten)]
    flags: BoxFlags,
}

/// Runs it; the exit code is the workload's.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let timings = Timings::start();
    let (home, state) = context.open_state()?;
    let quiet = args.quiet || context.json;
    let wanted = Wanted { name: args.name.as_deref(), remove: args.rm, quiet, id: &args.id };
    context.runtime()?.block_on(async {
        let record = create::make(context, &home, &state, &args.flags, &wanted, timings).await?;
        let stay =
            if args.detach { Stay::UntilRunning } else { Stay::ToTheEnd { allow_simulated: args.allow_simulated } };
        let ended = live::start(context, &home, &record, stay).await;
        if args.timing {
            live::print_timings(context, &state, &record.id, ended.as_ref().ok());
        }
        let ended = ended?;
        if args.detach {
            if context.json {
                println!("{}", serde_json::json!({ "id": record.id, "name": record.name }));
            } else {
                println!("{}", record.id);
            }
        }
        Ok(ended.exit_code())
    })
}
