//! `coffer run`: creates a box, starts it, and stays with it unless told otherwise.

use std::process::ExitCode;

use coffer_runtime::boxes::Timings;

use crate::boxes::attend::{Attended, of_signal};
use crate::boxes::flags::behind_the_image;
use crate::boxes::live::{self, Foreground, MANNER, Stay, Stayed};
use crate::boxes::new_box::NewBox;
use crate::context::Context;
use crate::error::{self, CliError};
use crate::output::Output;
use crate::signals;

/// Create a box from an image and run it.
#[derive(Debug, clap::Args)]
#[command(override_usage = "coffer run [OPTIONS] IMAGE [COMMAND]...")]
#[command(
    after_help = "Signals that we get go to the box's program as they are; a program without a handler ignores most of them, as it is \
the first one of its box. It is killed 10 s after SIGTERM, at a second SIGTERM or ^C, and when nobody reads its output any more (141).
Where only an owner may attach, SIGINT and SIGTERM stop the box as `coffer stop` does. With --sig-proxy=false the first one ends \
`coffer run` alone.

Examples:
  coffer run --rm busybox echo hello
  coffer run --rm -it busybox sh
  printf hello | coffer run --rm -i busybox cat
  coffer run -d --name web --tee-simulate --kbs kbs.example:4480 --kbs-pin HEX \\
      --secret key=kbs:///default/web/key,mode=0440,signal=HUP IMAGE
  coffer run --tee-simulate --id-key id.pem --author-key author.pem \\
      --family-id acme --image-id web --guest-svn 3 IMAGE
  coffer run -d --tee-simulate \\
      --peer db=5432:db.example:8443,reference=db.json IMAGE"
)]
pub struct Args {
    /// Leave the box running and print its id, once the workload runs.
    #[arg(short, long)]
    detach: bool,
    /// Print what each phase of the start took.
    #[arg(long)]
    timing: bool,
    /// Believe the simulator of this installation, to show output that only the owner of a simulated box may read.
    #[arg(long)]
    allow_simulated: bool,
    #[command(flatten)]
    attended: Attended,
    #[command(flatten)]
    new: NewBox,
}

/// Runs it; the exit code is the workload's.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let timings = Timings::start();
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let request = args.new.request(&engine, timings)?;
    let id_file = args.new.id_file()?;
    let (input, terminal) = request.what.streams();
    let ours = args.attended.ours(input, terminal, MANNER);
    if !args.detach {
        ours.check()?;
    }
    let progress = args.new.progress(context);
    let runtime = context.runtime()?;
    let ran = runtime.block_on(async {
        // From here on: what ends us leaves no box that nobody asked for.
        let mut signals = signals::coming(MANNER.proxied(!args.detach && ours.manner.proxied), !terminal)?;
        let record = tokio::select! {
            created = engine.create(request, progress.as_ref()) => created.map_err(error::of)?,
            number = signals.ending() => {
                eprintln!("coffer: signal {number} before there was a box: there is none");
                return Ok(ExitCode::from(of_signal(number)));
            }
        };
        id_file.map_or(Ok(()), |file| file.write(&record.id))?;
        let box_json = serde_json::json!({ "id": record.id, "name": record.name });
        behind_the_image::<Args>(args.new.words(), &record.options.command);
        if !args.detach && (input || terminal) {
            // Before it runs with nobody at it.
            if let Err(refused) = live::trust_to_attach(&engine, &record, args.allow_simulated) {
                if record.options.remove {
                    engine.remove(record.id.as_str(), false, false).await.map_err(error::of)?;
                }
                return Err(refused);
            }
        }
        let mut box_ = engine.start_created(record.clone()).await.map_err(error::of)?;
        if args.detach {
            let ended = live::stay_with(&engine, &mut box_, &Stay::UntilRunning, signals).await;
            if args.timing {
                live::print_timings(context, &engine, &box_);
            }
            let (_, code) = ended?.told();
            box_.detach().map_err(error::of)?;
            if context.json {
                println!("{box_json}");
            } else {
                println!("{}", record.id);
            }
            return Ok(code);
        }
        let output = Output::new(context, &box_json);
        let foreground = Foreground { output: output.clone(), allow_simulated: args.allow_simulated, ours };
        let stayed = live::stay_with(&engine, &mut box_, &Stay::ToTheEnd(foreground), signals).await;
        if args.timing {
            live::print_timings(context, &engine, &box_);
        }
        if let Ok(Stayed::Left(_)) = &stayed {
            box_.detach().map_err(error::of)?;
        }
        output.end(context, stayed.map(|stayed| stayed.told()))
    });
    // A read of our terminal may still be pending; nobody waits for it.
    runtime.shutdown_background();
    ran
}
