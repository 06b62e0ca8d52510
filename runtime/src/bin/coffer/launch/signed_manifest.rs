//! Signed manifests in files, as several commands read them.

use std::path::Path;

use coffer_rim::input;
use coffer_verifier::manifest::{ManifestError, ManifestRefusal, ReferenceManifest, SignedManifest};
use coffer_verifier::{P384PublicKey, UnixTime};

use crate::error::{Class, Classify as _, CliError};

/// What a manifest says that one of these keys signed, and that is valid now.
///
/// # Errors
/// It is none, or not to be believed.
pub fn believed(
    bytes: &[u8],
    file: &Path,
    keys: &[P384PublicKey],
    now: UnixTime,
) -> Result<ReferenceManifest, CliError> {
    let envelope = SignedManifest::parse(bytes).map_err(|error| no_manifest(&error, file))?;
    let verified = envelope.verify(keys).map_err(|refusal| refused(&refusal, file))?;
    verified.current(now).cloned().map_err(|refusal| refused(&refusal, file))
}

/// Reads one; nobody believes it yet.
///
/// # Errors
/// A file that is none.
pub fn parse(file: &Path) -> Result<SignedManifest, CliError> {
    let bytes =
        input::read(file, input::DOCUMENT).class_while(Class::Config, format!("cannot read {}", file.display()))?;
    SignedManifest::parse(&bytes).map_err(|error| no_manifest(&error, file))
}

/// What is said of a file that is none.
pub fn no_manifest(error: &ManifestError, file: &Path) -> CliError {
    let failure =
        CliError::caused(Class::Config, error).while_doing(format!("{} is no signed manifest", file.display()));
    failure.hint("`coffer measure … --manifest FILE --sign KEY` writes one")
}

/// What it means that one is not believed.
pub fn refused(refusal: &ManifestRefusal, file: &Path) -> CliError {
    let class = if matches!(refusal, ManifestRefusal::Payload(_)) { Class::Config } else { Class::NotAuthentic };
    let failure = CliError::caused(class, refusal).while_doing(file.display());
    match refusal {
        ManifestRefusal::FromTheFuture { .. } => {
            failure.hint("compare the clocks of this machine and of whoever made it")
        }
        ManifestRefusal::Expired { .. } => failure.hint("sign a new one with a higher --sequence"),
        ManifestRefusal::UnknownKey { .. } => failure
            .hint("name the public key of whoever signed it, with --manifest-key, or --key where the command has that"),
        _ => failure,
    }
}
