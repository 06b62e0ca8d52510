//! Rego that a command line names: a word for one that comes with Coffer, a file, a folder, or a bundle.
//!
//! Reads files, and nothing that they name. Never: passes over a part of a policy in a folder, reads more than a policy may have.

use std::io;
use std::path::{Path, PathBuf};

use coffer_policies::deciding;
use coffer_policies::folder::{self, Folder};
use coffer_policies::{
    BUNDLE_LIMIT, Bundle, BundleError, BundleKey, BundleTrust, File, POLICY_LIMIT, Policy, PolicyError, Shipped,
};
use coffer_rim::input;
use coffer_verifier::UnixTime;

use crate::error::{Class, Classify as _, CliError};

/// Files that are looked at.
const FILES: usize = 256;
/// Bytes of a typed policy; the verifier says so of a longer one.
const MAX_TYPED: u64 = 2 * 1024 * 1024;

/// What is asked of bundles.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Bundles {
    /// Public key, PEM, P-384 or P-256, that must have signed a bundle of policies. Without it a bundle may have no signature.
    #[arg(long, value_name = "FILE")]
    bundle_key: Option<PathBuf>,

    /// Waive the signature of a bundle of policies.
    #[arg(long, conflicts_with = "bundle_key")]
    no_bundle_signature: bool,
}

impl Bundles {
    /// With a key, whatever is named is a bundle that it signed, or comes with Coffer: nothing is believed unsigned beside it.
    pub fn asked(&self, paths: &[PathBuf]) -> Result<(), CliError> {
        let Some(file) = &self.bundle_key else { return Ok(()) };
        key(file)?;
        let refused = |message| {
            CliError::new(Class::Config, message).hint(
                "pack it with `tar -C DIR -czf NAME.tar.gz .`, sign it with `coffer policy sign NAME.tar.gz --sign KEY`, and name that",
            )
        };
        if let Some(other) = paths.iter().find(|path| !is_bundle(path) && !is_word(path)) {
            let message = format!("{}: it is no bundle, and --bundle-key demands one that is signed", other.display());
            return Err(refused(message));
        }
        if !paths.iter().any(|path| is_bundle(path)) {
            let message = "--bundle-key: no bundle is named that the key could have signed";
            return Err(CliError::new(Class::Usage, message)
                .hint("name a bundle (NAME.tar.gz) beside it, or leave it out: a typed policy has no signature"));
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Bundle, CliError> {
        let bytes = bytes(path)?;
        let key = self.bundle_key.as_deref().map(key).transpose()?;
        let trust = match &key {
            Some(key) => BundleTrust::Key(key),
            None if self.no_bundle_signature => BundleTrust::SignatureWaived,
            None => BundleTrust::Unsigned,
        };
        Bundle::read(&path.display().to_string(), &bytes, trust).map_err(|error| no_bundle(&error))
    }
}

/// A file that may be a bundle.
pub fn bytes(path: &Path) -> Result<Vec<u8>, CliError> {
    if path.is_dir() {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let message = format!("{} is a folder, and a bundle is one file", path.display());
        let texts =
            input::each_below(path, &|name| Ok(name.strip_suffix(".rego").is_some()), POLICY_LIMIT as u64, FILES);
        if texts.is_ok_and(|texts| texts.is_empty()) {
            return Err(CliError::new(Class::Config, format!("{message}; no .rego file is in it to pack either"))
                .hint("name the .tar.gz of a folder that a policy is in"));
        }
        let hint = format!("pack it, and name what comes of it: `tar -C {} -czf {name}.tar.gz .`", path.display());
        return Err(CliError::new(Class::Config, message).hint(hint));
    }
    input::read(path, BUNDLE_LIMIT as u64).class_while(Class::Config, path.display())
}

/// The public key in a file that a bundle must have been signed by.
pub fn key(file: &Path) -> Result<BundleKey, CliError> {
    let text = input::read_text(file, 64 * 1024).class_while(Class::Config, file.display())?;
    BundleKey::from_pem(&text).class_while(Class::Config, file.display())
}

/// What it means that a bundle is none, or not believed.
pub fn no_bundle(error: &BundleError) -> CliError {
    // Who waits for somebody's signature has a bundle that is not authentic.
    let class = match error {
        BundleError::Signature { .. } => Class::NotAuthentic,
        _ => Class::Config,
    };
    CliError::caused(class, error).hint(error.hint())
}

/// What was named.
pub struct Loaded {
    /// What it is called: the word, or the names of what was named.
    pub name: String,
    /// Its texts, those of unit tests among them.
    pub files: Vec<File>,
    /// Data beside them.
    pub data: Option<serde_json::Value>,
    /// SHA-256 of its text, or of the bundle; of several, of all names and texts.
    pub digest: [u8; 32],
    /// What a bundle calls its revision.
    pub revision: Option<String>,
    /// The date of a bundle's signature, which was checked.
    pub signed_at: Option<UnixTime>,
}

impl Loaded {
    /// The policy that its texts are, without unit tests.
    pub fn policy(&self) -> Result<Policy, CliError> {
        let files = deciding(&self.name, &self.files).map_err(|error| refused(&error))?;
        let policy =
            Policy::of(&self.name, &files, self.data.as_ref(), self.digest).map_err(|error| refused(&error))?;
        Ok(policy.with_date(self.signed_at))
    }
}

/// The failure of a policy that is none: its text has the file and line; with what helps.
pub fn refused(error: &PolicyError) -> CliError {
    CliError::caused(Class::Config, error).hint(error.hint())
}

/// Rego, and no typed policy: by its word, its name's end, or because it is a folder.
pub fn is_rego(path: &Path) -> bool {
    shipped(path).is_some() || path.extension().is_some_and(|end| end == "rego") || is_bundle(path) || path.is_dir()
}

/// Refuses Rego where a typed policy alone is asked.
///
/// # Errors
/// Class `usage`.
pub fn typed_alone(path: &Path) -> Result<(), CliError> {
    if !is_rego(path) {
        return Ok(());
    }
    let name = path.display();
    let message = format!("--policy {name}: it is Rego, and this command asks a typed policy (TOML) alone");
    Err(CliError::new(Class::Usage, message).hint(format!(
        "name a TOML file or the word `strict`; Rego decides about evidence in a file: `coffer attest BOX --cmw FILE`, then \
         `coffer verify FILE --policy {name}`"
    )))
}

/// Refuses what decides about something else than evidence.
///
/// # Errors
/// Class `usage`.
pub fn about_evidence(path: &Path) -> Result<(), CliError> {
    match shipped(path) {
        Some(shipped) if !shipped.is_for_evidence() => {
            let word = shipped.word();
            let message = format!(
                "--policy {word}: it is the key broker's policy, and asks for what evidence has not (input.spec, input.references): it \
                 would refuse everything"
            );
            Err(CliError::new(Class::Usage, message).hint(format!(
                "of those that come with Coffer `strict`, `snp` and `azure-cvm` are about evidence; `coffer policy show {word}` prints \
                 this one, and `coffer kbs policy` has a broker ask it"
            )))
        }
        _ => Ok(()),
    }
}

/// The word of one that comes with Coffer.
pub fn is_word(path: &Path) -> bool {
    shipped(path).is_some()
}

/// As `--policy` has it: what is no Rego, and not the word for what comes with Coffer.
fn is_typed(path: &Path) -> bool {
    !is_rego(path) && !is_strict(path)
}

/// The word, whatever lies there: `--policy strict` judges by what comes with Coffer. A file of that name is `./strict`.
fn is_strict(path: &Path) -> bool {
    path == Path::new("strict")
}

fn is_bundle(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "gz" || end == "tgz")
}

fn shipped(path: &Path) -> Option<Shipped> {
    Shipped::named(path.to_str()?)
}

/// The policy that a command is about.
#[derive(Clone, Debug, clap::Args)]
pub struct Texts {
    /// Rego files, folders of them, which are one policy together with its tests; or one bundle (.tar.gz), or the word of one
    /// that comes with Coffer.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// What is asked of bundles.
    #[command(flatten)]
    pub bundles: Bundles,
}

impl Texts {
    /// The word of the typed policy that comes with Coffer, and nothing else.
    pub fn is_strict(&self) -> bool {
        matches!(&self.files[..], [path] if is_strict(path))
    }

    /// Typed policies among them, each by its name: what is no Rego, as for `--policy`. `no_text` is told of one that is no text.
    pub fn typed(&self, no_text: &mut NoText<'_>) -> Result<Vec<(String, String)>, CliError> {
        let mut all = Vec::new();
        for path in self.files.iter().filter(|path| is_typed(path)) {
            match input::read_text(path, MAX_TYPED) {
                Ok(text) => all.push((path.display().to_string(), text)),
                Err(error) => no_text(path, error)?,
            }
        }
        Ok(all)
    }

    /// The others, if there are any.
    pub fn load_rego(&self, no_text: &mut NoText<'_>) -> Result<Option<Loaded>, CliError> {
        let rego: Vec<PathBuf> = self.files.iter().filter(|path| !is_typed(path)).cloned().collect();
        self.bundles.asked(&rego)?;
        if rego.is_empty() {
            return Ok(None);
        }
        gathered(&rego, &self.bundles, no_text).map(Some)
    }

    /// Reads them.
    pub fn load(&self) -> Result<Loaded, CliError> {
        self.bundles.asked(&self.files)?;
        load(&self.files, &self.bundles)
    }
}

/// What is done about a file that cannot be read: it ends what is done, or is left out.
pub type NoText<'a> = dyn FnMut(&Path, io::Error) -> Result<(), CliError> + 'a;

/// Reads all that is named.
pub fn load(paths: &[PathBuf], bundles: &Bundles) -> Result<Loaded, CliError> {
    gathered(paths, bundles, &mut |path, error| Err(error).class_while(Class::Config, path.display()))
}

/// Files, and of data where it stands.
type Parts = Vec<(Option<String>, File)>;

fn gathered(paths: &[PathBuf], bundles: &Bundles, no_text: &mut NoText<'_>) -> Result<Loaded, CliError> {
    if let [path] = paths
        && is_bundle(path)
    {
        let bundle = bundles.read(path)?;
        return Ok(Loaded {
            name: bundle.name().to_owned(),
            files: bundle.files().to_vec(),
            data: bundle.data().cloned(),
            digest: bundle.digest(),
            revision: Some(bundle.revision().to_owned()),
            signed_at: bundle.signed_at(),
        });
    }
    if let Some(bundle) = paths.iter().find(|path| is_bundle(path)) {
        let message = format!("{}: a bundle is a policy by itself, and stands beside no other file", bundle.display());
        return Err(CliError::new(Class::Usage, message));
    }
    let (mut parts, mut left_out) = (Vec::new(), false);
    let mut add = |path: &Path, data: Option<String>, text: io::Result<String>, parts: &mut Parts| match text {
        Ok(text) => {
            parts.push((data, File::new(path.display().to_string(), text)));
            Ok(())
        }
        Err(error) => {
            left_out = true;
            no_text(path, error)
        }
    };
    for path in paths {
        match shipped(path) {
            Some(shipped) => {
                let tests = shipped.name.replace(".rego", "_test.rego");
                let texts = [File::new(shipped.name, shipped.text), File::new(tests, shipped.tests)];
                parts.extend(texts.map(|file| (None, file)));
            }
            None if is_strict(path) => {
                let message = "strict is a typed policy (TOML) that comes with Coffer, and no Rego";
                return Err(CliError::new(Class::Config, message).hint(
                    "`coffer policy show strict` prints it; `snp`, `azure-cvm` and `release` are words for Rego that comes with Coffer",
                ));
            }
            None if path.extension().is_some_and(|end| end == "toml") => {
                let message = format!("{} is a typed policy (TOML), and no Rego", path.display());
                return Err(CliError::new(Class::Config, message)
                    .hint("`coffer policy lint` looks at it, and `coffer verify --policy` judges by it"));
            }
            None if path.is_dir() => {
                let left = FILES.saturating_sub(parts.len());
                let found = input::each_below(path, &folder::is_part, POLICY_LIMIT as u64, left);
                for (file, text) in found.class(Class::Config)? {
                    let below = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
                    add(&file, folder::data_folder(&below), text, &mut parts)?;
                }
            }
            None => add(path, None, input::read_text(path, POLICY_LIMIT as u64), &mut parts)?,
        }
    }
    let Folder { files, data, digest } = Folder::of(parts).map_err(|(file, why)| {
        CliError::new(Class::Config, format!("{file}: {why}"))
            .hint("data.json holds what `data` has below its folder, in one place each")
    })?;
    if files.is_empty() && !left_out {
        let named = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(CliError::new(Class::Config, format!("{named}: no .rego file is there")));
    }
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    Ok(Loaded { name: names.join(", "), files, data, digest, revision: None, signed_at: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_word_and_a_file_of_that_name_has_a_path() {
        assert!(is_strict(Path::new("strict")) && !is_typed(Path::new("strict")));
        for file in ["./strict", "a/strict", "strict.toml"] {
            assert!(!is_strict(Path::new(file)), "{file}");
        }
    }
}
