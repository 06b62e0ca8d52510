//! `coffer spec`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use coffer_rim::file::Writer;
use coffer_rim::out;
use coffer_spec::Tee;

use crate::boxes::flags::{BoxFlags, behind_the_image};
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::image::progress;

/// Write the workload spec that `coffer run` with the same flags would launch.
#[derive(Debug, clap::Args)]
#[command(override_usage = "coffer spec [OPTIONS] IMAGE [COMMAND]...")]
#[command(after_help = "Examples:\n  coffer spec --tee-simulate --host-may stop,logs -o web.toml busybox httpd -f")]
pub struct Args {
    /// File to write instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    flags: BoxFlags,
}

/// Writes it. Needs no hardware: a spec for `--tee` is written anywhere.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let request = args.flags.request(&engine)?;
    let progress = progress::shown(context.json || args.output.is_none());
    let described = context.runtime()?.block_on(engine.describe(&request, progress.as_ref())).map_err(error::of)?;
    let document = &described.document;
    if args.flags.tee && document.spec().tee != Tee::Snp {
        return Err(CliError::new(Class::Internal, "the spec does not demand what --tee says"));
    }
    behind_the_image::<Args>(&args.flags.words, &document.spec().process.argv);
    match &args.output {
        Some(path) => {
            let writer = Writer::private().into_pipes().mode(0o644);
            writer
                .write(path, document.bytes())
                .class_while(Class::Config, format!("cannot write {}", path.display()))?;
        }
        // The digest is of these bytes: only a terminal gets them without what acts on it.
        None if !context.json && !std::io::stdout().is_terminal() => out::write_bytes(document.bytes()),
        None if !context.json => print!("{}", String::from_utf8_lossy(document.bytes())),
        None => {}
    }
    if context.json {
        let text = String::from_utf8_lossy(document.bytes());
        println!("{}", serde_json::json!({ "workload_digest": document.digest(), "document": text }));
    } else if args.output.is_some() {
        println!("{}", document.digest());
    }
    Ok(ExitCode::SUCCESS)
}
