//! `coffer inject-secret`.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_guest_proto::owner_client::OwnerClient;
use coffer_guest_proto::{InjectRequest, Sealed};
use coffer_runtime::agent;
use coffer_runtime::supervisor::of_state;
use coffer_spec::Act;
use coffer_verifier::binding::length_prefixed;
use zeroize::Zeroizing;

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::guest::{self, Trust};
use crate::logs::read_input;

/// Write a value to /run/secrets/NAME of a guest that proves itself first, encrypted to that guest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  printf %s \"$TOKEN\" | coffer inject-secret web api-token --file -")]
pub struct Args {
    /// File with the value; - is standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    trust: Trust,
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
    /// Name of the value; the spec must list it (`--inject NAME`).
    #[arg(value_name = "NAME")]
    secret: String,
}

/// Longest value in bytes.
const LIMIT: u64 = 1 << 20;

/// Injects it and prints its name. Nothing that is made from the value is shown: a value may be guessable.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (home, state) = context.open_state()?;
    let record = state.find(&args.name).map_err(of_state)?;
    guest::must_run(&record)?;
    let document = guest::document(&home, &record)?;
    let spec = document.spec();
    if !spec.inject.iter().any(|name| *name == *args.secret) {
        return Err(CliError::new(
            Class::Refused,
            format!("the spec of {} lists no {:?} to inject", record.name, args.secret),
        )
        .hint(format!("create the box with --inject {}", args.secret)));
    }
    guest::owner_listed(&home, &document, &record.name, Act::Inject)?;
    let value = Zeroizing::new(read_input(Some(&args.file), LIMIT)?);
    if value.is_empty() {
        return Err(CliError::new(Class::Usage, format!("the value for {} is empty", args.secret))
            .hint("an empty value would replace the one that is there; to take a secret away, remove the box"));
    }
    context.runtime()?.block_on(async {
        let connection = guest::connect(context, &home, &record, &args.trust).await?;
        let aad = length_prefixed(&[spec.tenant.as_str().as_bytes(), args.secret.as_bytes(), b"inject"]);
        let sealed = connection.seal("coffer.agent.v1.Owner/Inject", &aad, &value).class(Class::Internal)?;
        let request = InjectRequest {
            name: args.secret.clone(),
            value: Some(Sealed { enc: sealed.enc, ciphertext: sealed.ciphertext }),
        };
        let answer = OwnerClient::new(connection.channel()).inject(request).await;
        answer.map(drop).map_err(|status| agent::of_status(&status))
    })?;
    if context.json {
        println!("{}", serde_json::json!({ "name": args.secret }));
    } else {
        println!("{}", args.secret);
    }
    Ok(ExitCode::SUCCESS)
}
