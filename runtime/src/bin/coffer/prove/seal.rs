//! `coffer seal` and `coffer unseal`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coffer_rim::file::Writer;
use coffer_rim::out;
use zeroize::Zeroizing;

use crate::boxes::logs::read_input;
use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::prove::guest::Trust;

/// Seal a file to the guest of a box: only the same platform and workload on the same chip opens it again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer seal db --context backup plain.tar -o sealed.bin")]
pub struct SealArgs {
    #[command(flatten)]
    common: Common,
}

/// Open what `seal` sealed, in a guest of the same platform and workload.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer unseal db --context backup sealed.bin -o plain.tar")]
pub struct UnsealArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Label that is part of the key; the same to seal and to unseal.
    #[arg(long, value_name = "TEXT", default_value = "")]
    context: String,
    /// File to write instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
    /// File to read instead of standard input.
    #[arg(value_name = "IN")]
    input: Option<PathBuf>,
}

const LIMIT: u64 = 2 << 20;

/// Seals.
pub fn seal(args: &SealArgs, context: &Context) -> Result<ExitCode, CliError> {
    let args = &args.common;
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    engine.may_seal(&args.name).map_err(error::of)?;
    let plaintext = Zeroizing::new(read_input(args.input.as_deref(), LIMIT)?);
    let sealed = context.runtime()?.block_on(engine.seal(&args.name, &args.context, &plaintext, &trust));
    let sealed = sealed.map_err(error::of)?;
    finish(args, context, &sealed.bytes, sealed.rollback_protected)
}

/// Unseals.
pub fn unseal(args: &UnsealArgs, context: &Context) -> Result<ExitCode, CliError> {
    let args = &args.common;
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    engine.may_seal(&args.name).map_err(error::of)?;
    let sealed = read_input(args.input.as_deref(), 2 * LIMIT)?;
    let opened = context.runtime()?.block_on(engine.unseal(&args.name, &args.context, sealed, &trust));
    let opened = opened.map_err(error::of)?;
    finish(args, context, &opened.plaintext, opened.rollback_protected)
}

fn finish(args: &Common, context: &Context, bytes: &[u8], rollback_protected: bool) -> Result<ExitCode, CliError> {
    match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => {
            Writer::private()
                .into_pipes()
                .write(path, bytes)
                .class_while(Class::Config, format!("cannot write {}", path.display()))?;
            if context.json {
                println!(
                    "{}",
                    serde_json::json!({ "output": path, "bytes": bytes.len(), "rollback_protected": rollback_protected })
                );
            }
        }
        None if context.json => {
            // Not through a value of a document: it would leave copies of what may be a secret.
            let text = Zeroizing::new(STANDARD.encode(bytes));
            let rest = format!("\",\"bytes\":{},\"rollback_protected\":{rollback_protected}}}\n", bytes.len());
            for part in ["{\"base64\":\"", text.as_str(), rest.as_str()] {
                out::write_bytes(part.as_bytes());
            }
        }
        None => out::write_bytes(bytes),
    }
    Ok(ExitCode::SUCCESS)
}
