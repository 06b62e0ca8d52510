//! `coffer manifest export`: a manifest's reference values in a form that other verifiers read.
//!
//! Trusts: the manifest keys that are named. Never: signs what it did not believe, leaves unsaid that the form says less than the manifest.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use coffer_rim::input;
use coffer_runtime::signing_key::{KeyPurpose, SigningKey, read_public, write_over};
use coffer_verifier::UnixTime;
use coffer_verifier::manifest::{CORIM_PROFILE, Corim, UNSAID};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::launch::signed_manifest;

/// Write a manifest's measurements for other verifiers: CoRIM, by its profile for SEV-SNP, exact values alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --sign it is an unsigned CoRIM, which anybody can write: sign it, or carry it where nobody else does.
Exit status: 0 written, 2 usage, 3 a file, 5 the manifest is not believed.

Examples:
  coffer manifest export web.json --key manifest.pem.pub --out web.corim
  coffer manifest export web.json --sign manifest.pem --out web.corim --json")]
pub struct Args {
    /// Signed manifest.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What to write.
    #[arg(long, value_name = "FORM", value_enum, default_value = "corim")]
    format: Format,
    /// File to write, whole or not at all.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    /// Public key that the manifest is believed for, PEM; repeatable [default: that of --sign].
    #[arg(long, value_name = "PEM", required_unless_present_any = ["sign", "unverified"])]
    key: Vec<PathBuf>,
    /// Private manifest key that signs the CoRIM (COSE_Sign1, ES384).
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Write what a manifest says, whoever signed it and however old it is. The answer says so.
    #[arg(long, conflicts_with_all = ["key", "sign"])]
    unverified: bool,
}

/// Forms of other verifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Concise Reference Integrity Manifest, CBOR.
    Corim,
}

/// Reads, writes it otherwise, says what is lost.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let key = args.sign.as_ref().map(|path| SigningKey::read(path, KeyPurpose::Manifest)).transpose()?;
    let mut believed = args.key.iter().map(|path| read_public(path)).collect::<Result<Vec<_>, _>>()?;
    if let (Some(key), true) = (&key, believed.is_empty()) {
        believed.push(*key.public());
    }
    let manifest = if args.unverified {
        signed_manifest::parse(&args.file)?.unverified().class_while(Class::Config, args.file.display())?
    } else {
        let bytes = input::read(&args.file, input::DOCUMENT)
            .class_while(Class::Config, format!("cannot read {}", args.file.display()))?;
        signed_manifest::believed(&bytes, &args.file, &believed, UnixTime::from(SystemTime::now()))?
    };
    let Format::Corim = args.format;
    let corim = Corim::of(&manifest);
    let bytes = match &key {
        Some(key) => corim.signed(key.public(), &key.sign(&corim.signing_input(key.public()))?),
        None => corim.unsigned().to_vec(),
    };
    write_over(&args.out, &bytes, 0o644)?;
    let signer = key.as_ref().map(|key| key.public().spki_digest());
    let contents = manifest.contents();
    if context.json {
        let unsaid: Vec<Value> = UNSAID.iter().map(|(what, why)| json!({ "what": what, "why": why })).collect();
        let value = json!({
            "file": args.out, "format": "corim", "profile": CORIM_PROFILE, "id": corim.id(), "tags": corim.tags(),
            "name": contents.name, "sequence": contents.sequence, "created": contents.created, "expires": contents.expires,
            "workload_digest": contents.workload, "verified": !args.unverified, "key": signer, "unsaid": unsaid,
        });
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("written   {}", coffer_rim::foreign(&args.out.display().to_string()));
    println!("profile   {CORIM_PROFILE}");
    println!("id        {}", corim.id());
    println!("tags      {}, a launch each", corim.tags());
    println!("expires   {}", contents.expires);
    match signer {
        Some(signer) => println!("signed    {signer}"),
        None => println!("signed    no: anybody can write one"),
    }
    if args.unverified {
        println!("NOT VERIFIED: whose manifest it is was not looked at");
    }
    for (what, why) in UNSAID {
        println!("unsaid    {what}: {why}");
    }
    Ok(ExitCode::SUCCESS)
}
