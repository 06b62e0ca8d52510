//! One policy of the configuration: its typed floor, the Rego behind it, and whose simulated evidence it believes.

use std::path::{Path, PathBuf};

use coffer_policies::folder::{self, Folder};
use coffer_policies::lint::Finding;
use coffer_policies::typed::{Guests, lint_typed};
use coffer_policies::{Bundle, BundleError, BundleKey, BundleTrust, File, POLICY_LIMIT, Policy as Rego, Shipped};
use coffer_rim::{chain, input};
use coffer_verifier::abi::{ProductLine, SpkiDigest};
use coffer_verifier::{EvidencePolicy, PolicyFileError, STRICT, amd_root};
use serde::{Deserialize, Serialize};

use crate::policies::STRICT_NAME;

/// The floor that asks for little; a word that says so.
const VMPL_AND_DEBUG_ALONE: &str = "vmpl-and-debug-alone";
/// Files of a folder of Rego.
const REGO_FILES: usize = 256;

/// One policy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// `strict`, `vmpl-and-debug-alone`, or a policy file of `coffer verify`. Left out: `strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
    /// Rego behind it, which can only refuse more: a file, a folder of them, or a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rego: Option<PathBuf>,
    /// PEM of the key that must have signed the bundle. Left out: a bundle may have no signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_key: Option<PathBuf>,
    /// SHA-256 of the SubjectPublicKeyInfo of simulators' roots that this policy believes beside AMD's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub simulated_evidence_is_believed_of: Vec<String>,
}

/// Every mistake of a floor with its place, where `error` is the first of them.
fn each_mistake(name: &str, file: &str, text: &str, error: &PolicyFileError) -> Vec<String> {
    let found = lint_typed(file, text, Guests::Here).into_iter().filter(|one| one.code == "mistake");
    let all: Vec<_> = found
        .map(|Finding { line, column, message, .. }| {
            format!("policies.{name}.floor ({file}:{line}:{column}): {message}")
        })
        .collect();
    // What can be read, and is no floor all the same, is not said there.
    if all.is_empty() { vec![format!("policies.{name}.floor ({file}): {}", chain(error))] } else { all }
}

impl PolicyEntry {
    pub(super) fn floor(
        &self,
        name: &str,
        folder: &Path,
        mistakes: &mut Vec<String>,
        found: &mut Vec<String>,
    ) -> Option<(EvidencePolicy, String)> {
        let words = format!("{STRICT_NAME:?} and {VMPL_AND_DEBUG_ALONE:?} are words, anything else is a file");
        match self.floor.as_deref().unwrap_or(STRICT_NAME) {
            STRICT_NAME => Some((EvidencePolicy::strict(), STRICT.to_owned())),
            VMPL_AND_DEBUG_ALONE => Some((EvidencePolicy::default_floor(), env!("CARGO_PKG_VERSION").to_owned())),
            "" => {
                mistakes.push(format!("policies.{name}.floor is empty; {words}"));
                None
            }
            file if Path::new(file).extension().is_some_and(|end| end == "rego") || Shipped::named(file).is_some() => {
                mistakes.push(format!(
                    "policies.{name}.floor ({file}) is Rego, and a floor is a typed policy; {words}. Rego goes behind it, as rego"
                ));
                None
            }
            file => {
                let text = input::read_text(&folder.join(file), input::DOCUMENT)
                    .map_err(|error| mistakes.push(format!("policies.{name}.floor ({file}): {error}; {words}")))
                    .ok()?;
                match EvidencePolicy::from_toml(&text).and_then(EvidencePolicy::without_manifests) {
                    Ok(rules) => {
                        let all = lint_typed(file, &text, Guests::Here);
                        found.extend(all.iter().map(|one| format!("policies.{name}.floor ({one})")));
                        Some((rules, text))
                    }
                    Err(error) => {
                        mistakes.extend(each_mistake(name, file, &text, &error));
                        None
                    }
                }
            }
        }
    }

    pub(super) fn rego(
        &self,
        name: &str,
        folder: &Path,
        mistakes: &mut Vec<String>,
        found: &mut Vec<String>,
    ) -> Option<Rego> {
        let Some(file) = &self.rego else {
            if self.bundle_key.is_some() {
                mistakes.push(format!("policies.{name}.bundle_key: there is no rego that it could have signed"));
            }
            return None;
        };
        let key = self.bundle_key.as_ref().map(|file| {
            let text = input::read_text(&folder.join(file), input::DOCUMENT).map_err(|error| error.to_string());
            let key = text.and_then(|text| BundleKey::from_pem(&text).map_err(|error| error.to_string()));
            key.map_err(|why| mistakes.push(format!("policies.{name}.bundle_key ({}): {why}", file.display())))
        });
        let trust = match &key {
            None => BundleTrust::Unsigned,
            Some(Ok(key)) => BundleTrust::Key(key),
            // Nothing is believed with a mistake: it is read for what else is wrong with it.
            Some(Err(())) => BundleTrust::SignatureWaived,
        };
        if file.as_os_str().is_empty() {
            mistakes.push(format!("policies.{name}.rego is empty: expected a file, a folder or a bundle"));
            return None;
        }
        let path = folder.join(file);
        // The words of a command line are none here: what a service asks lies beside its configuration.
        if let Some(word) = file.to_str().filter(|word| Shipped::named(word).is_some() && !path.exists()) {
            mistakes.push(format!(
                "policies.{name}.rego ({word}): no such file is there; `coffer policy show {word} > {word}.rego` writes the text that \
                 comes with Coffer"
            ));
            return None;
        }
        let read = self.read_rego(name, &path, trust, found);
        read.map_err(|why| mistakes.push(format!("policies.{name}.rego ({}): {why}", file.display()))).ok()
    }

    /// A folder, a bundle by its first bytes, or one text.
    fn read_rego(
        &self,
        name: &str,
        path: &Path,
        trust: BundleTrust<'_>,
        found: &mut Vec<String>,
    ) -> Result<Rego, String> {
        let mut lint = |files: &[File], data| {
            // What cannot be looked at is said to be no policy.
            let all = coffer_policies::lint::lint(name, files, data).unwrap_or_default();
            found.extend(all.iter().map(|one| format!("policies.{name}.rego ({one})")));
        };
        let no_bundle = || match &self.bundle_key {
            Some(_) => Err("it is no bundle, and bundle_key demands one that is signed".to_owned()),
            None => Ok(()),
        };
        if path.is_dir() {
            no_bundle()?;
            let texts = input::texts_below(path, &folder::is_part, POLICY_LIMIT as u64, REGO_FILES);
            let texts = texts.map_err(|error| error.to_string())?;
            // Called by where they lie in the folder, which may be another on the next machine.
            let named = |(file, text): (PathBuf, String)| {
                let below = file.strip_prefix(path).unwrap_or(&file).display().to_string();
                (folder::data_folder(&below), File::new(below, text))
            };
            let whole = Folder::of(texts.into_iter().map(named).collect());
            let Folder { files, data, digest } = whole.map_err(|(file, why)| format!("{file}: {why}"))?;
            if files.is_empty() {
                return Err("no .rego file is there".to_owned());
            }
            lint(&files, data.as_ref());
            let deciding = coffer_policies::deciding(name, &files).map_err(|error| chain(&error))?;
            return Rego::of(name, &deciding, data.as_ref(), digest).map_err(|error| chain(&error));
        }
        let bytes = input::read(path, input::DOCUMENT).map_err(|error| error.to_string())?;
        if Bundle::is_one(&bytes) {
            let bundle = Bundle::read(name, &bytes, trust).map_err(|error| match error {
                BundleError::Signature { .. } => format!("{}; bundle_key names the key that signed it", chain(&error)),
                other => chain(&other),
            })?;
            lint(bundle.files(), bundle.data());
            return bundle.policy().map_err(|error| chain(&error));
        }
        no_bundle()?;
        let text = String::from_utf8(bytes).map_err(|_| "is neither text nor a bundle (.tar.gz)".to_owned())?;
        let policy = Rego::parse(name, &text).map_err(|error| chain(&error))?;
        lint(&[File::new(path.file_name().unwrap_or_default().to_string_lossy(), text)], None);
        Ok(policy)
    }

    pub(super) fn roots(&self, name: &str, mistakes: &mut Vec<String>) -> Vec<SpkiDigest> {
        let mut all: Vec<SpkiDigest> = Vec::new();
        for (at, text) in self.simulated_evidence_is_believed_of.iter().enumerate() {
            let field = format!("policies.{name}.simulated_evidence_is_believed_of[{at}]");
            match text.parse::<SpkiDigest>() {
                Ok(root) if root.is_zero() => mistakes.push(format!("{field}: a zero digest never matches")),
                Ok(root) if ProductLine::ALL.iter().any(|product| amd_root(*product) == root) => {
                    mistakes.push(format!("{field} is AMD's own root, which is not simulated"));
                }
                Ok(root) if all.contains(&root) => mistakes.push(format!("{field}: {root} stands twice")),
                Ok(root) => all.push(root),
                Err(error) => mistakes.push(format!("{field}: {error}")),
            }
        }
        all
    }
}
