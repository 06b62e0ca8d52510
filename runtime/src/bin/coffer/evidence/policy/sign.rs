//! `coffer policy sign`: a bundle with its author's signature and the date of today, and the key for it.
//!
//! Trusts: the file that is named, which the author vouches for by signing it. Never: signs what lint, the engine or its own tests have
//! something against, or what somebody else signed; reads half a bundle or writes one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use coffer_policies::{
    BUNDLE_LIMIT, Bundle, BundleError, BundleKey, BundleTrust, Endorsement, PolicyError, lint, rego_test,
};
use coffer_rim::regular;
use coffer_runtime::signing_key::{KeyPurpose, SigningKey, write_over};
use coffer_verifier::{Look, UnixTime};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::{new_key, rego};

/// Make a key that signs bundles of policies: FILE, mode 0600, and FILE.pub for whoever is to believe it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer policy keygen --out policy.pem")]
pub struct KeygenArgs {
    /// File to write; nothing is ever overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Makes one.
pub fn keygen(args: &KeygenArgs, context: &Context) -> Result<ExitCode, CliError> {
    new_key::make(&args.out, KeyPurpose::Policy, context)
}

/// Sign a bundle that nobody has signed yet: every file, with the date of now, for verifiers that ask for --bundle-key.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing is signed that `coffer policy lint` or one of its own tests has something against.
Exit status: 0 signed, 2 usage, 3 a file, a finding or a test that does not hold, 5 it is signed already.

Examples:
  tar -C team -czf team.tar.gz .
  coffer policy sign team.tar.gz --sign policy.pem
  coffer verify report.bin --certs certs --policy team.tar.gz \\
      --bundle-key policy.pem.pub")]
pub struct Args {
    /// Bundle, .tar.gz.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Private policy key, from `coffer policy keygen`.
    #[arg(long, value_name = "KEY")]
    sign: PathBuf,
    /// File to write, whole or not at all [default: in place of FILE].
    #[arg(long, value_name = "OUT")]
    out: Option<PathBuf>,
}

/// Checks, signs and writes.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let key = SigningKey::read(&args.sign, KeyPurpose::Policy)?;
    let bytes = rego::bytes(&args.file)?;
    let name = args.file.display().to_string();
    let bundle = Bundle::read(&name, &bytes, BundleTrust::Unsigned).map_err(|error| match error {
        BundleError::Signature { .. } => {
            rego::no_bundle(&error).hint("`coffer policy re-endorse` gives a signed bundle another signature and date")
        }
        _ => rego::no_bundle(&error),
    })?;
    let signed = Signed::of(&bundle, &bytes, &key, None)?;
    let out = args.out.as_ref().unwrap_or(&args.file);
    if args.out.is_some() {
        in_place_of_a_bundle(out)?;
    }
    signed.write(out)?;
    signed.print("signed", out, context, json!({}));
    Ok(ExitCode::SUCCESS)
}

/// Refuses to write over what is there and is no bundle, signed or not.
fn in_place_of_a_bundle(out: &Path) -> Result<(), CliError> {
    if std::fs::symlink_metadata(out).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(());
    }
    let there = regular::read(out, BUNDLE_LIMIT as u64).class_while(Class::Config, out.display())?;
    match Bundle::read(&out.display().to_string(), &there, BundleTrust::SignatureWaived) {
        Ok(_) | Err(BundleError::Signature { .. }) => Ok(()),
        Err(_) => {
            let found = Look::of(&there);
            let message =
                format!("{} is there already, and is no bundle, but {found}: nothing was written", out.display());
            Err(CliError::new(Class::Config, message)
                .hint("name another --out; a bundle alone is replaced by a bundle"))
        }
    }
}

/// A bundle that passed, signed anew.
pub struct Signed {
    bytes: Vec<u8>,
    bundle: Bundle,
    tests: usize,
    key: Value,
}

impl Signed {
    /// Of a bundle that its caller believes, and of which these are the bytes. `first`: when its author signed it, if that is dated anew.
    ///
    /// # Errors
    /// What lint, the engine or its own tests say against it.
    pub fn of(bundle: &Bundle, bytes: &[u8], key: &SigningKey, first: Option<UnixTime>) -> Result<Self, CliError> {
        let tests = passes(bundle)?;
        let now = UnixTime::from(SystemTime::now());
        // Clocks may differ: a first date is never after the last.
        let first = first.map(|first| first.min(now));
        let next = Endorsement::new(bundle.name(), bytes, key.public(), now, first);
        let next = next.map_err(|error| rego::no_bundle(&error))?;
        let signature = key.sign(next.signing_input())?;
        let bytes = next.with_signature(&signature).map_err(|error| rego::no_bundle(&error))?;
        // Read as whoever gets it reads it, before anything is written.
        let public = BundleKey::of_p384(*key.public());
        let bundle = Bundle::read(bundle.name(), &bytes, BundleTrust::Key(&public));
        let bundle = bundle.map_err(|error| rego::no_bundle(&error))?;
        Ok(Self { bytes, bundle, tests, key: json!(key.public().spki_digest()) })
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, out: &Path) -> Result<(), CliError> {
        write_over(out, &self.bytes, 0o644)
    }

    /// Says what was done, with `more` in JSON.
    pub fn print(&self, done: &str, out: &Path, context: &Context, more: Value) {
        let (digest, signed_at) = (hex::encode(self.bundle.digest()), self.bundle.signed_at());
        let first = self.bundle.first_signed_at();
        if context.json {
            let mut value = json!({
                "file": out, "bundle": digest, "revision": self.bundle.revision(), "signed_at": signed_at,
                "first_signed_at": first, "key": self.key, "tests": self.tests,
            });
            if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
                value.extend(more);
            }
            println!("{value}");
            return;
        }
        println!("{done:<9} {}", coffer_rim::foreign(&out.display().to_string()));
        println!("bundle    {digest}");
        println!("revision  {}", coffer_rim::foreign(self.bundle.revision()));
        if let Some(at) = signed_at {
            println!("date      {at}");
        }
        if let Some(first) = first.filter(|first| Some(*first) != signed_at) {
            println!("author's  {first}");
        }
        println!("tests     {}", self.tests);
    }
}

/// What speaks against a policy before anybody vouches for it; how many tests of its own it has.
fn passes(bundle: &Bundle) -> Result<usize, CliError> {
    let nothing = |failure: CliError| failure.while_doing("nothing was signed");
    let found = lint::lint(bundle.name(), bundle.files(), bundle.data());
    let found = found.map_err(|error| nothing(rego::refused(&error)))?;
    if !found.is_empty() {
        let all: Vec<String> = found.iter().map(ToString::to_string).collect();
        return Err(nothing(CliError::of_mistakes(Class::Config, bundle.name(), &all))
            .hint("mend each at its place; `coffer policy lint FILE` says whether anything is left"));
    }
    bundle.policy().map_err(|error| nothing(rego::refused(&error)))?;
    let outcomes = match rego_test::run_all(bundle.name(), bundle.files(), bundle.data()) {
        Err(PolicyError::NoTests { .. }) => Vec::new(),
        outcomes => outcomes.map_err(|error| nothing(rego::refused(&error)))?,
    };
    let failed = outcomes.iter().filter(|outcome| !outcome.passed);
    let failed: Vec<_> = failed.map(|one| format!("{}: the test {} does not hold", one.file, one.name)).collect();
    if failed.is_empty() {
        return Ok(outcomes.len());
    }
    Err(nothing(CliError::of_mistakes(Class::Config, bundle.name(), &failed)).hint("`coffer policy test` says why"))
}
