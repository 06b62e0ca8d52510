//! Bundles, as OPA packs them: a gzipped tar of `.manifest`, `data.json`, `*.rego` and `.signatures.json`.
//!
//! Believes nothing in them before it is bounded; with a key, nothing that the signature does not name. Refuses by name what it does not know, so
//! that nothing in a bundle is passed over. Never: writes a file, follows a link, fetches; says whether a bundle is the newest one (a
//! revision is a name, and the date of its signature is for whoever asks for an age).
//! Source: OPA's documentation, "Bundles: Bundle File Format" and "Signing".

mod archive;
mod endorse;
mod entry;
mod error;
mod json;
mod roots;
mod signature;

use coffer_verifier::UnixTime;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use archive::{BUNDLE_FILES, UNPACKED_LIMIT};
pub use endorse::Endorsement;
pub use error::{BUNDLE_LIMIT, BundleError};
pub use signature::{BundleKey, KeyError, SignatureError};

use crate::{File, Policy, PolicyError, deciding::deciding};
use entry::{DATA, Entry, MANIFEST, SIGNATURES};
use roots::Roots;
use signature::Dates;

/// Which signature is asked for.
#[derive(Clone, Copy, Debug)]
pub enum BundleTrust<'a> {
    /// None; a bundle that has one is refused, for somebody meant it to be looked at.
    Unsigned,
    /// One by this key.
    Key(&'a BundleKey),
    /// None, and one that is there is not looked at.
    SignatureWaived,
}

/// A bundle that was read, within bounds, and whose signature is what was asked for.
#[derive(Clone, Debug)]
pub struct Bundle {
    name: String,
    revision: String,
    files: Vec<File>,
    data: Option<Value>,
    digest: [u8; 32],
    dates: Dates,
}

/// `.manifest`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(default)]
    revision: String,
    #[serde(default)]
    roots: Option<Vec<String>>,
    #[serde(default)]
    rego_version: Option<u32>,
    #[serde(default)]
    file_rego_versions: Option<Map<String, Value>>,
    #[serde(default)]
    wasm: Option<Vec<Value>>,
    #[serde(default)]
    #[allow(dead_code, reason = "anybody's words, which nothing here rests on")]
    metadata: Option<Map<String, Value>>,
}

impl Bundle {
    /// True for bytes that begin as a gzip stream does.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(&[0x1f, 0x8b])
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// [`BundleError`], which names the file and, in a text, the line.
    pub fn read(name: &str, bytes: &[u8], trust: BundleTrust<'_>) -> Result<Self, BundleError> {
        let entries = archive::entries(name, bytes)?;
        let refused =
            |file: &str, message: String| BundleError::Entry { bundle: name.into(), file: file.into(), message };
        let read = |entry: &Entry| -> Result<Value, BundleError> {
            // A key that stands twice would be one thing here and another elsewhere.
            json::once(&entry.bytes).map_err(|message| refused(&entry.path, message))
        };
        let of_signature = |source| BundleError::Signature { bundle: name.into(), source };
        let signatures = entries.iter().find(|entry| entry.path == SIGNATURES);
        let rest: Vec<&Entry> = entries.iter().filter(|entry| entry.path != SIGNATURES).collect();
        let dates = match (trust, signatures) {
            // A date that nobody vouches for is none.
            (BundleTrust::SignatureWaived, _) | (BundleTrust::Unsigned, None) => Dates::default(),
            (BundleTrust::Unsigned, Some(_)) => return Err(of_signature(SignatureError::NoKey)),
            (BundleTrust::Key(_), None) => return Err(of_signature(SignatureError::None)),
            (BundleTrust::Key(key), Some(signatures)) => {
                signature::verify(&signatures.bytes, &rest, key).map_err(of_signature)?
            }
        };
        let digest = entry::digest(&rest).map_err(|(file, message)| refused(file, message))?;
        let manifest = match entries.iter().find(|entry| entry.path == MANIFEST) {
            Some(entry) => {
                let manifest: Manifest =
                    serde_json::from_value(read(entry)?).map_err(|error| refused(MANIFEST, error.to_string()))?;
                manifest.is_for_us().map_err(|message| refused(MANIFEST, message))?;
                manifest
            }
            None => Manifest {
                revision: String::new(),
                roots: None,
                rego_version: None,
                file_rego_versions: None,
                wasm: None,
                metadata: None,
            },
        };
        let roots = Roots::new(manifest.roots.as_deref()).map_err(|message| refused(MANIFEST, message))?;
        let (mut files, mut data) = (Vec::new(), Value::Object(Map::new()));
        for entry in &entries {
            let (folder, file) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            if entry.path == MANIFEST || entry.path == SIGNATURES {
                continue;
            }
            if file == DATA {
                roots.hold(folder, &read(entry)?).map_err(|message| refused(&entry.path, message))?;
                roots::merge(&mut data, folder, read(entry)?).map_err(|message| refused(&entry.path, message))?;
            } else if file.strip_suffix(".rego").is_some_and(|stem| !stem.is_empty()) {
                let text = String::from_utf8(entry.bytes.clone()).map_err(|error| {
                    refused(&entry.path, format!("byte {} is no UTF-8", error.utf8_error().valid_up_to()))
                })?;
                files.push(File::new(format!("{name}/{}", entry.path), text));
            } else {
                return Err(refused(&entry.path, "nothing here reads such a file".into()));
            }
        }
        let data = data.as_object().is_some_and(|fields| !fields.is_empty()).then_some(data);
        let bundle = Self { name: name.into(), revision: manifest.revision, files, data, digest, dates };
        bundle.packages_below(&roots)?;
        Ok(bundle)
    }

    /// Packages stand below the roots. A text that does not parse is told by [`Self::policy`].
    fn packages_below(&self, roots: &Roots) -> Result<(), BundleError> {
        for file in &self.files {
            let Some(package) = crate::bounds::package(file) else { continue };
            if !roots.cover(&package.join("/")) {
                let entry = file.name.strip_prefix(&format!("{}/", self.name)).unwrap_or(&file.name);
                let message = format!("package {} stands below none of the roots", package.join("."));
                return Err(BundleError::Entry { bundle: self.name.clone(), file: entry.into(), message });
            }
        }
        Ok(())
    }

    /// What it is called in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The manifest's revision; empty where it has none. Anybody's word, unless the bundle is signed.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Its Rego, unit tests among it.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Its data, merged.
    pub fn data(&self) -> Option<&Value> {
        self.data.as_ref()
    }

    /// SHA-256 of its files, its signature left out: their paths, and what their signature is over, which of JSON is what it says and not
    /// how it lies. So it names what the bundle says, whoever signs that and when.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// When it was signed (`iat`), in the words of the key that was asked for; `None` where no signature was checked, or it has no date.
    pub fn signed_at(&self) -> Option<UnixTime> {
        self.dates.signed_at
    }

    /// When its author signed it, whoever has dated it anew since; `None` where no signature was checked, or it has no date.
    pub fn first_signed_at(&self) -> Option<UnixTime> {
        self.dates.first_at
    }

    /// True if this must not take the place of `before`: it says something else, and was not signed later by its author, or nobody knows;
    /// or it says the same, and its author signed it earlier. Dating an older bundle anew makes no newer one of it, and what is
    /// remembered of the newest never goes back: what lies between the two would be let in after it.
    pub fn goes_back_behind(&self, before: &Self) -> bool {
        let dates = self.dates.first_at.zip(before.dates.first_at);
        if self.digest == before.digest {
            // One without a date gets that of now, which is no step back.
            return dates.is_some_and(|(this, that)| this < that);
        }
        dates.is_none_or(|(this, that)| this <= that)
    }

    /// The policy it holds.
    ///
    /// # Errors
    /// [`PolicyError`], with file and line.
    pub fn policy(&self) -> Result<Policy, PolicyError> {
        let files = deciding(&self.name, &self.files)?;
        let policy = Policy::of(&self.name, &files, self.data.as_ref(), self.digest)?;
        Ok(policy.with_date(self.dates.signed_at))
    }
}

/// A file of that name is data.
pub(crate) fn is_data(name: &str) -> bool {
    name == DATA
}

/// Puts the text of a file of data where its folder says.
pub(crate) fn data_at(data: &mut Value, folder: &str, text: &[u8]) -> Result<(), String> {
    roots::merge(data, folder, json::once(text)?)
}

impl Manifest {
    fn is_for_us(&self) -> Result<(), String> {
        let versions = self.file_rego_versions.iter().flatten().map(|(_, version)| version.as_u64());
        if self.rego_version.is_some_and(|version| version != 1)
            || versions.into_iter().any(|version| version != Some(1))
        {
            return Err("rego_version: only Rego v1 is read".into());
        }
        if self.wasm.as_ref().is_some_and(|wasm| !wasm.is_empty()) {
            return Err("wasm: compiled policies are not run".into());
        }
        if self.revision.len() > 256 || self.revision.contains(char::is_control) {
            return Err("revision: at most 256 bytes of plain text".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
