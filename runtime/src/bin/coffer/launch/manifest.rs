//! `coffer manifest`: keys of reference manifests, what a manifest says, its date, and other forms of it.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_runtime::signing_key::{KeyPurpose, read_public};
use coffer_verifier::UnixTime;
use coffer_verifier::manifest::ReferenceManifest;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::new_key;
use crate::launch::signed_manifest::{parse, refused};
use crate::launch::{export, re_endorse};
use crate::row::Entry;

/// Make keys for signed reference manifests, and check and show manifests: which measurements a workload may have.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer manifest keygen --out manifest.pem
  coffer measure --spec web.toml --manifest web.json --sign manifest.pem \\
      --name web --expires 90d
  coffer manifest verify web.json --key manifest.pem.pub
  coffer kbs manifest-key add manifest.pem.pub && \\
      coffer kbs manifest add web.json")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    command!("keygen": KeygenArgs => keygen),
    command!("verify": VerifyArgs => verify),
    command!("show": ShowArgs => show),
    command!("re-endorse": re_endorse),
    command!("export": export),
];

/// Make a manifest key: FILE, mode 0600, and FILE.pub for whoever is to believe it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer manifest keygen --out manifest.pem")]
struct KeygenArgs {
    /// File to write; nothing is ever overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn keygen(args: &KeygenArgs, context: &Context) -> Result<ExitCode, CliError> {
    new_key::make(&args.out, KeyPurpose::Manifest, context)
}

/// Check signature and expiry. Exits 3 for a malformed manifest, 5 for one not to be believed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer manifest verify web.json --key manifest.pem.pub \\
      --at 2027-01-01T00:00:00Z")]
struct VerifyArgs {
    /// Signed manifest.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Public manifest key, PEM; repeatable.
    #[arg(long, value_name = "PEM", required = true)]
    key: Vec<PathBuf>,
    /// Decide as of this time.
    #[arg(long, value_name = "RFC3339", value_parser = UnixTime::parse)]
    at: Option<UnixTime>,
}

fn verify(args: &VerifyArgs, context: &Context) -> Result<ExitCode, CliError> {
    let now = args.at.unwrap_or_else(|| std::time::SystemTime::now().into());
    let file = &args.file;
    let keys = args.key.iter().map(|path| read_public(path)).collect::<Result<Vec<_>, _>>()?;
    let verified = match parse(file)?.verify(&keys).map_err(|refusal| refused(&refusal, file)) {
        Ok(verified) => verified,
        Err(failure) => return not_believed(failure, context),
    };
    let manifest = match verified.current(now).map_err(|refusal| refused(&refusal, file)) {
        Ok(manifest) => manifest,
        Err(failure) => return not_believed(failure, context),
    };
    if context.json {
        let mut value = describe(manifest);
        value["verdict"] = json!("valid");
        value["key"] = json!(verified.signer());
        println!("{value}");
    } else {
        println!("valid");
        println!("key       {}", verified.signer());
        print(manifest);
    }
    Ok(ExitCode::SUCCESS)
}

/// A script gets a verdict whenever there is one, beside the failure that every command prints.
fn not_believed(failure: CliError, context: &Context) -> Result<ExitCode, CliError> {
    if !context.json || failure.class != Class::NotAuthentic {
        return Err(failure);
    }
    let mut value = failure.json();
    value["verdict"] = json!(failure.class.word());
    println!("{value}");
    Ok(context.exit(&failure))
}

/// Print what a manifest says. It decides nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer manifest show web.json")]
struct ShowArgs {
    /// Signed manifest.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn show(args: &ShowArgs, context: &Context) -> Result<ExitCode, CliError> {
    let envelope = parse(&args.file)?;
    let manifest = envelope.unverified().class_while(Class::Config, args.file.display())?;
    let keys: Vec<_> = envelope.keys().collect();
    if context.json {
        let mut value = describe(&manifest);
        value["keys"] = json!(keys);
        println!("{value}");
    } else {
        println!("not verified: anybody can write these fields; `coffer manifest verify` decides");
        for key in keys {
            println!("key       {key}");
        }
        print(&manifest);
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(manifest: &ReferenceManifest) -> Value {
    let contents = manifest.contents();
    let components: Vec<_> =
        contents.components.iter().map(|one| json!({ "name": one.name, "sha256": hex::encode(one.sha256) })).collect();
    let launch = |one: &coffer_verifier::manifest::MeasuredLaunch| {
        json!({ "launch": one.launch, "vcpus": one.vcpus,
        "vcpu_type": one.vcpu_type, "measurement": one.measurement })
    };
    json!({
        "name": contents.name, "sequence": contents.sequence, "release": contents.released(), "created": contents.created, "expires": contents.expires,
        "workload_digest": contents.workload, "components": components,
        "measurements": contents.measurements.iter().map(launch).collect::<Vec<_>>(),
    })
}

fn print(manifest: &ReferenceManifest) {
    let contents = manifest.contents();
    println!("name      {}", contents.name);
    println!("sequence  {}", contents.sequence);
    println!("release   {}", contents.released());
    println!("created   {}", contents.created);
    println!("expires   {}", contents.expires);
    println!("workload  {}", contents.workload);
    for component in &contents.components {
        println!("sha256    {}  {}", hex::encode(component.sha256), component.name);
    }
    for launch in &contents.measurements {
        println!("measured  {}  {} {} x {}", launch.measurement, launch.launch, launch.vcpus, launch.vcpu_type);
    }
}
