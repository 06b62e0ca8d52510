//! `coffer token issue`: what `coffer verify` says, as a token.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_token::KeySet;
use coffer_verifier::ear::{
    EarClaims, Issuer, Judged, Lifetime, Nonce, Terms, TokenId, VerifierBuild, Word, WordError,
};
use coffer_verifier::{ExpectedGuest, MaxAge, Verdict};
use serde_json::json;

use super::keys;
use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::fetching;
use crate::evidence::judging::{self, Judgement, Judging, WorkloadData};

/// Decide about evidence in a file, and say it in a signed token.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A token is printed for evidence that was refused, too: it says so, and why. Of an Azure HCL blob it holds the vTPM's key; of \
other evidence neither a key nor a nonce of the guest, which only whoever was on the other end of a connection can show.
Exit status: as of `coffer verify`.

Examples:
  coffer token issue evidence.cmw --policy fleet.toml --keys keys.json \\
      --iss https://verifier.example --aud https://bank.example > token.jwt")]
pub struct Args {
    #[command(flatten)]
    judging: Judging,

    /// The set of keys, as `coffer token init` made it.
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,

    /// Who issues: the address under which others find the keys, https://HOST.
    #[arg(long, value_name = "URL", value_parser = Issuer::parse)]
    iss: Issuer,

    /// Who alone is to believe it.
    #[arg(long, value_name = "NAME", value_parser = Word::parse)]
    aud: Word,

    /// What whoever asked wants repeated, base64url of 8 to 64 bytes.
    #[arg(long, value_name = "BASE64URL", value_parser = Nonce::parse)]
    request_nonce: Option<Nonce>,

    /// Seconds until it ends, at most 86400; sooner where a certificate or the list does.
    #[arg(long, value_name = "SECONDS", value_parser = lifetime, default_value = "300")]
    lifetime: Lifetime,
}

fn lifetime(text: &str) -> Result<Lifetime, WordError> {
    Lifetime::from_secs(text.parse().unwrap_or(0))
}

/// Decides, and signs.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    args.judging.contradiction()?;
    let set: KeySet = keys::read(&args.keys)?;
    let input = judging::read(&args.judging.file)?;
    let policy = judging::policy(&args.judging.policy, &args.judging.bundles)?;
    if policy.rules.max_manifest_age != MaxAge::Any {
        // Whoever believes the token sees this policy's name, and nothing of what was not asked.
        let message =
            "max_manifest_age is not asked here, where no manifest admits a guest: a token would affirm without it";
        return Err(CliError::new(Class::Config, message).hint("leave it out of a policy for tokens"));
    }
    let word = |text: &str| Word::parse(text).class_while(Class::Config, format!("{text:?} as the name of a policy"));
    let (name, revision) = (word(&policy.name)?, word(&policy.revision)?);
    let (developer, build) = (word("coffer")?, word(concat!("coffer-verifier/", env!("CARGO_PKG_VERSION")))?);
    let now = args.judging.at.unwrap_or_else(keys::now);
    let mut judging = args.judging.clone();
    judging.at = Some(now);
    let Judgement { appraisal, not_fetched, .. } =
        judging::judge(&judging, &input, ExpectedGuest::WhateverThePolicyAdmits, &policy, context)?;
    let presented = judging::presented(&args.judging.file, &input)?;
    let blob = presented.hcl();
    let data = args.judging.workload_data.as_ref().map(WorkloadData::read).transpose()?;
    let binding = args.judging.binding(&presented, blob.as_ref(), data.as_deref());
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| CliError::new(Class::Internal, format!("no randomness from the system: {error}")))?;
    let terms = Terms {
        issuer: &args.iss,
        audience: &args.aud,
        verifier: &VerifierBuild { developer, build },
        policy: &name,
        revision: &revision,
        lifetime: args.lifetime,
        request_nonce: args.request_nonce.as_ref(),
        id: TokenId::new(random),
        now,
    };
    let claims = EarClaims::of(&Judged::from(&appraisal), &binding, &terms).class(Class::Config)?;
    let token = claims.sign(set.signing()).class(Class::Internal)?;
    if context.json {
        let mut value = json!({ "token": token, "verdict": appraisal.verdict() });
        if args.judging.fetch {
            value["not_fetched"] = fetching::json(&not_fetched, &args.judging.asked());
        }
        println!("{value}");
    } else {
        println!("{token}");
        if appraisal.verdict() != Verdict::Accepted {
            let why = appraisal.why();
            eprintln!("coffer: the token says {}: {}", appraisal.verdict(), coffer_rim::foreign(&why));
            let own = judging::is_of_this_simulator(&appraisal, context);
            if let Some(hint) = args.judging.where_missing(&appraisal, own) {
                eprintln!("hint: {hint}");
            }
        }
        fetching::print(&not_fetched, &args.judging.asked());
    }
    Ok(ExitCode::from(judging::exit_code(appraisal.verdict())))
}
