//! `coffer policy re-endorse`: the same bundle with a signature and a date of today, once somebody has looked whether it still deserves one.
//!
//! The twin of `coffer manifest re-endorse`, made for a timer: verifiers whose policy has `max_policy_age` ask a bundle only while this goes
//! on. Nothing is written unless every check holds. Trusts: the keys and the revocation list that are named. Never: changes what a policy
//! says, dates a bundle whose signature is not by a key that is named, or an older one than it dated last.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use coffer_policies::{Bundle, BundleError, BundleKey, BundleTrust};
use coffer_runtime::signing_key::{KeyPurpose, SigningKey};
use coffer_verifier::UnixTime;
use coffer_verifier::manifest::CLOCKS_DIFFER_BY;
use serde_json::json;

use super::sign::Signed;
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::evidence::rego;
use crate::evidence::revoked::{self, Endorsing};

/// Give a signed bundle of policies a new date, after asking a revocation list: what a timer does for floors with `max_policy_age`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing is written unless the bundle is signed by a named key, no list names it, `coffer policy lint` finds nothing and its tests hold.
Exit status: 0 endorsed, 2 usage, 3 a file, a finding or a test that does not hold, 5 the bundle is not believed, 6 it is revoked, or a \
later one is endorsed already.

Examples:
  coffer policy re-endorse team.tar.gz --sign witness.pem \\
      --key author.pem.pub --revoked revoked.toml --out endorsed.tar.gz
  coffer policy re-endorse team.tar.gz --sign policy.pem \\
      --no-revocation-list --json")]
pub struct Args {
    #[command(flatten)]
    what: Endorsing,
}

/// Checks, signs and writes.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let key = SigningKey::read(&args.what.sign, KeyPurpose::Policy)?;
    let own = BundleKey::of_p384(*key.public());
    let mut keys = args.what.key.iter().map(|path| rego::key(path)).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        keys.push(own.clone());
    }
    let bytes = rego::bytes(&args.what.file)?;
    let now = UnixTime::from(SystemTime::now());
    let bundle = believed(&args.what.file, &bytes, &keys)?;
    if let Some(at) = bundle.signed_at().filter(|at| at.0 > now.0.saturating_add(CLOCKS_DIFFER_BY)) {
        let message = format!("{} was signed at {at}, and now is {now}", args.what.file.display());
        return Err(CliError::new(Class::NotAuthentic, message)
            .hint("compare the clocks of this machine and of whoever signed it"));
    }
    if let Some(path) = &args.what.revoked {
        let digest = bundle.digest();
        if revoked::read(path, now)?.lists_policy(&digest) {
            let (file, list) = (args.what.file.display(), path.display());
            return Err(revoked::refused(format!("{file} is not endorsed any more: {list} lists {}", hex::encode(digest)))
                .hint("make a bundle that says something else; whoever asks for max_policy_age refuses this one when its date is over"));
        }
    }
    let signed = Signed::of(&bundle, &bytes, &key, bundle.first_signed_at())?;
    let out = args.what.out();
    if let Some(before) = args.what.before() {
        // The last endorsement, of this text or the one before; anything else stays there. Asked last: what another run wrote meanwhile counts.
        let last = believed(before, &rego::bytes(before)?, &[own])
            .map_err(|failure| failure.hint("name another --out: what lies there is no bundle that --sign signed"))?;
        if bundle.goes_back_behind(&last) {
            let when = |at: Option<UnixTime>| at.map_or_else(|| "without a date".to_owned(), |at| format!("at {at}"));
            let (file, ours) = (args.what.file.display(), when(bundle.first_signed_at()));
            let (out, theirs) = (before.display(), when(last.first_signed_at()));
            let text = if bundle.digest() == last.digest() { "the same text" } else { "another text" };
            return Err(revoked::goes_back(format!(
                "{file} was signed by its author {ours}, and {out} is {text}, signed {theirs}"
            )));
        }
    }
    signed.write(out)?;
    signed.print("endorsed", out, context, json!({ "revocation_list": args.what.revoked }));
    if !context.json {
        args.what.print_waived();
    }
    Ok(ExitCode::SUCCESS)
}

/// The bundle, if one of these keys signed it; else what the last of them has against it.
fn believed(file: &Path, bytes: &[u8], keys: &[BundleKey]) -> Result<Bundle, CliError> {
    let name = file.display().to_string();
    let mut last = None;
    for key in keys {
        match Bundle::read(&name, bytes, BundleTrust::Key(key)) {
            Ok(bundle) => return Ok(bundle),
            Err(error @ BundleError::Signature { .. }) => last = Some(error),
            Err(error) => return Err(rego::no_bundle(&error)),
        }
    }
    Err(last.as_ref().map_or_else(
        || CliError::new(Class::Usage, "no key is named"),
        |error| {
            rego::no_bundle(error).hint(
                "name the key that signed it with --key FILE (left out: that of --sign); `coffer policy sign` signs what nobody has \
                 signed yet",
            )
        },
    ))
}
