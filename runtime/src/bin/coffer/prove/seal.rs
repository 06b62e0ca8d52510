//! `coffer seal` and `coffer unseal`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_guest_proto::owner_client::OwnerClient;
use coffer_guest_proto::{SealRequest, Sealed, UnsealRequest};
use coffer_rim::file::write_private;
use coffer_runtime::supervisor::of_state;
use coffer_runtime::{BoxRecord, Home, agent};
use coffer_spec::{Act, Document};
use coffer_verifier::binding::length_prefixed;
use zeroize::Zeroizing;

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::guest::{self, Trust};
use crate::logs::read_input;

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
    let (home, record, document) = open(args, context)?;
    let plaintext = Zeroizing::new(read_input(args.input.as_deref(), LIMIT)?);
    let answer = context.runtime()?.block_on(async {
        let connection = guest::connect(context, &home, &record, &args.trust).await?;
        let tenant = document.spec().tenant.as_str().as_bytes();
        let aad = length_prefixed(&[tenant, args.context.as_bytes(), b"seal"]);
        let sealed = connection.seal("coffer.agent.v1.Owner/Seal", &aad, &plaintext).class(Class::Internal)?;
        let request = SealRequest {
            policy: "measurement-and-chip".into(),
            context: args.context.clone().into_bytes(),
            plaintext: Some(Sealed { enc: sealed.enc, ciphertext: sealed.ciphertext }),
        };
        let answer = OwnerClient::new(connection.channel()).seal(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| agent::of_status(&status))
    })?;
    finish(args, context, &answer.sealed, answer.rollback_protected)
}

/// Unseals.
pub fn unseal(args: &UnsealArgs, context: &Context) -> Result<ExitCode, CliError> {
    let args = &args.common;
    let (home, record, _) = open(args, context)?;
    let sealed = read_input(args.input.as_deref(), 2 * LIMIT)?;
    let answer = context.runtime()?.block_on(async {
        let connection = guest::connect(context, &home, &record, &args.trust).await?;
        let request = UnsealRequest { sealed, context: args.context.clone().into_bytes() };
        let answer = OwnerClient::new(connection.channel()).unseal(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| agent::of_status(&status))
    })?;
    let plaintext = Zeroizing::new(answer.plaintext);
    finish(args, context, &plaintext, answer.rollback_protected)
}

fn open(args: &Common, context: &Context) -> Result<(Home, BoxRecord, Document), CliError> {
    let (home, state) = context.open_state()?;
    let record = state.find(&args.name).map_err(of_state)?;
    guest::must_run(&record)?;
    let document = guest::document(&home, &record)?;
    guest::owner_listed(&home, &document, &record.name, Act::Unseal)?;
    Ok((home, record, document))
}

fn finish(args: &Common, context: &Context, bytes: &[u8], rollback_protected: bool) -> Result<ExitCode, CliError> {
    match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => {
            write_private(path, bytes).class_while(Class::Config, format!("cannot write {}", path.display()))?;
            if context.json {
                println!(
                    "{}",
                    serde_json::json!({ "output": path, "bytes": bytes.len(), "rollback_protected": rollback_protected })
                );
            }
        }
        None => std::io::stdout().lock().write_all(bytes).class_while(Class::Config, "cannot write standard output")?,
    }
    Ok(ExitCode::SUCCESS)
}
