//! How images are pulled here: `images.toml` of the home. A home without one has the defaults.
//!
//! ```toml
//! limit = "20g"                        # of the disk that images take; without it there is none
//! [registry."docker.io"]
//! mirrors = ["mirror.example:5000"]    # asked in this order, before the registry itself
//! [registry."mirror.example:5000"]
//! plain_http = true
//! ```
//!
//! Trusts: whoever may write into the home. Never: takes a part of a file that has a mistake.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use coffer_image::login::registry_name;
use coffer_rim::{Foreign, input};
use serde::Deserialize;

use crate::request::bytes;
use crate::{Class, Failure};

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSettings {
    /// Bytes of the disk that images may take.
    pub limit: Option<u64>,
    /// Registries to ask in place of one, by its name.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries spoken to in plain http.
    pub plain_http: Vec<String>,
}

/// As typed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    limit: Option<String>,
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    plain_http: bool,
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {}", Foreign(&path.to_string_lossy()), Foreign(&mistakes.join("; ")))]
pub struct ImageSettingsError {
    /// The file.
    pub path: PathBuf,
    /// All of them.
    pub mistakes: Vec<String>,
}

impl From<ImageSettingsError> for Failure {
    fn from(error: ImageSettingsError) -> Self {
        let failure = Self::new(Class::Config, format!("{} cannot be used", error.path.display()));
        failure.mistakes(&error.mistakes).hint(
            "it holds limit, and tables [registry.\"HOST\"] with mirrors and plain_http; docs/images.md shows one",
        )
    }
}

impl ImageSettings {
    /// Reads the file of a home.
    ///
    /// # Errors
    /// [`ImageSettingsError`] with every mistake.
    pub fn of_home(home: &Path) -> Result<Self, ImageSettingsError> {
        let path = home.join("images.toml");
        match input::read_text(&path, MAX_BYTES) {
            Ok(text) => Self::parse(&text).map_err(|mistakes| ImageSettingsError { path, mistakes }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ImageSettingsError { path, mistakes: vec![error.to_string()] }),
        }
    }

    fn parse(text: &str) -> Result<Self, Vec<String>> {
        let file: File = toml::from_str(text).map_err(|error| vec![error.to_string().trim().replace('\n', " ")])?;
        let (mut settings, mut mistakes) = (Self::default(), Vec::new());
        settings.limit = file.limit.as_deref().and_then(bytes);
        if let Some(limit) = file.limit.filter(|_| settings.limit.is_none()) {
            mistakes.push(format!("limit = \"{limit}\" is no size, such as 20g"));
        }
        let mut known = |name: &str| {
            let right = registry_name(name).is_some_and(|known| known == name);
            if !right {
                mistakes.push(format!("\"{name}\" is no registry: HOST, HOST:PORT or docker.io"));
            }
        };
        for (name, registry) in file.registry {
            known(&name);
            registry.mirrors.iter().for_each(|mirror| known(mirror));
            if registry.plain_http {
                settings.plain_http.push(name.clone());
            }
            if !registry.mirrors.is_empty() {
                settings.mirrors.insert(name, registry.mirrors);
            }
        }
        if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
    }
}

/// A registry has some hundred bytes.
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_meant() {
        let text = "limit = \"20g\"\n[registry.\"docker.io\"]\nmirrors = [\"m.example:5000\", \"127.0.0.1:1\"]\n\
                    [registry.\"m.example:5000\"]\nplain_http = true\n";
        let settings = ImageSettings::parse(text).unwrap();
        assert_eq!(settings.mirrors["docker.io"], ["m.example:5000", "127.0.0.1:1"]);
        assert_eq!(settings.plain_http, ["m.example:5000"]);
        assert_eq!(settings.limit, Some(20 << 30));
        assert_eq!(ImageSettings::parse("").unwrap(), ImageSettings::default());
        assert_eq!(ImageSettings::of_home(Path::new("/nonexistent")).unwrap(), ImageSettings::default());
    }

    #[test]
    fn every_mistake_is_said_and_nothing_of_such_a_file_is_used() {
        let text = "limit = \"much\"\n[registry.\"team\"]\nmirrors = [\"https://m.example\", \"m.example\", \"\"]\n";
        assert_eq!(ImageSettings::parse(text).unwrap_err().len(), 4);
        for text in ["[registry.\"a.example\"]\nmirror = []", "limt = 1", "registry = 1", "="] {
            assert_eq!(ImageSettings::parse(text).unwrap_err().len(), 1, "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("images.toml"), "\u{1b}[2J").unwrap();
        let failure = Failure::from(ImageSettings::of_home(dir.path()).unwrap_err());
        assert!(failure.class == Class::Config && !failure.message.contains('\u{1b}'), "{failure}");
    }
}
