//! A new key that signs, for the commands that make one.

use std::path::Path;
use std::process::ExitCode;

use coffer_runtime::signing_key::{KeyPurpose, SigningKey};
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;

/// Makes a key for this purpose, writes both halves where nothing lies yet, and says which it is.
pub fn make(out: &Path, purpose: KeyPurpose, context: &Context) -> Result<ExitCode, CliError> {
    let key = SigningKey::generate()?;
    let public = key.write_pair(out, purpose)?;
    let spki = key.public().spki_digest();
    if context.json {
        println!("{}", json!({ "file": out, "public": public, "spki_sha256": spki }));
    } else {
        println!("{spki}");
        eprintln!("coffer: the public half is {}", coffer_rim::foreign(&public.display().to_string()));
    }
    Ok(ExitCode::SUCCESS)
}
