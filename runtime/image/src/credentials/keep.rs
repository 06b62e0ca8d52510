//! Logins that are kept and forgotten, where Docker keeps them: with a helper, or in its configuration file.
//!
//! Of the file nothing else changes; it is replaced whole and readable by its owner alone.

use super::{helper, is_of, names, read};
use crate::error::{ImageError, Result};
use base64::Engine as _;
use coffer_rim::file::Writer;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Where a login lies now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file, as good as readable.
    File,
    /// With a program of this name.
    Helper(String),
}

/// Keeps a login of a registry.
///
/// # Errors
/// [`ImageError::Credentials`].
pub fn keep(file: &Path, registry: &str, user: &str, password: &SecretString) -> Result<Place> {
    let failed = |reason: String| ImageError::Credentials { path: file.to_owned(), reason };
    let mut config = config(file)?;
    let name = names(registry).first().copied().unwrap_or(registry).to_owned();
    if let Some(helper) = helper_of(&config, registry) {
        let document = json!({ "ServerURL": name, "Username": user, "Secret": password.expose_secret() }).to_string();
        helper::run(&helper, "store", document.as_bytes()).map_err(|error| failed(error.to_string()))?;
        // As Docker has it: an empty entry says that there is one elsewhere.
        entries(&mut config, file)?.retain(|key, _| !is_of(key, registry));
        entries(&mut config, file)?.insert(name, json!({}));
        write(file, &config)?;
        return Ok(Place::Helper(helper::program(&helper)));
    }
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    entries(&mut config, file)?.retain(|key, _| !is_of(key, registry));
    entries(&mut config, file)?.insert(name, json!({ "auth": auth }));
    write(file, &config)?;
    Ok(Place::File)
}

/// Forgets the logins of a registry; whether there was one.
///
/// # Errors
/// [`ImageError::Credentials`].
pub fn forget(file: &Path, registry: &str) -> Result<bool> {
    let mut config = config(file)?;
    let helper = helper_of(&config, registry);
    let auths = entries(&mut config, file)?;
    let before = auths.len();
    auths.retain(|key, _| !is_of(key, registry));
    let there = auths.len() != before;
    if let Some(helper) = helper.filter(|_| there) {
        let name = names(registry).first().copied().unwrap_or(registry);
        helper::run(&helper, "erase", name.as_bytes())
            .map_err(|error| ImageError::Credentials { path: file.to_owned(), reason: error.to_string() })?;
    }
    if there {
        write(file, &config)?;
    }
    Ok(there)
}

/// The document; an empty one where there is no file.
fn config(file: &Path) -> Result<Map<String, Value>> {
    let Some(bytes) = read(file)? else { return Ok(Map::new()) };
    serde_json::from_slice(&bytes).map_err(|at| {
        let reason = format!("not a Docker configuration (line {}, column {})", at.line(), at.column());
        ImageError::Credentials { path: file.to_owned(), reason }
    })
}

/// The helper of a registry, or of all.
fn helper_of(config: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = names(registry).into_iter().find_map(|name| config.get("credHelpers")?.get(name)?.as_str());
    own.or_else(|| config.get("credsStore")?.as_str()).filter(|name| !name.is_empty()).map(str::to_owned)
}

fn entries<'a>(config: &'a mut Map<String, Value>, file: &Path) -> Result<&'a mut Map<String, Value>> {
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    auths.as_object_mut().ok_or_else(|| ImageError::Credentials {
        path: file.to_owned(),
        reason: "its \"auths\" is no object".to_owned(),
    })
}

fn write(file: &Path, config: &Map<String, Value>) -> Result<()> {
    let failed = |reason: String| ImageError::Credentials { path: file.to_owned(), reason };
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| failed(error.to_string()))?;
    }
    let text = format!("{:#}\n", Value::Object(config.clone()));
    Writer::private().write(file, text.as_bytes()).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::lookup;
    use crate::credentials::tests::inside;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_login_is_kept_found_and_forgotten_and_nothing_else_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("docker/config.json");
        assert_eq!(keep(&file, "r.example:5000", "u", &"p:w".into()).unwrap(), Place::File);
        assert_eq!(inside(&lookup(Some(&file), "r.example:5000").unwrap()).1, "u p:w");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, r#"{"x":1,"auths":{"https://docker.io":{"auth":"YTpi"},"o":{"auth":"YTpi","y":2}}}"#).unwrap();
        keep(&file, "docker.io", "new", &"one".into()).unwrap();
        assert_eq!(inside(&lookup(Some(&file), "docker.io").unwrap()).1, "new one");
        assert!(forget(&file, "docker.io").unwrap() && !forget(&file, "docker.io").unwrap());
        let left: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(left, json!({"x": 1, "auths": {"o": {"auth": "YTpi", "y": 2}}}));
        assert!(!forget(&dir.path().join("none"), "o").unwrap() && !dir.path().join("none").exists());
        for damaged in ["[]", r#"{"auths":"SECRET"}"#, "{\"SECRET"] {
            fs::write(&file, damaged).unwrap();
            let error = keep(&file, "o", "u", &"p".into()).unwrap_err().to_string();
            assert!(!error.contains("SECRET") && fs::read(&file).unwrap() == damaged.as_bytes(), "{error}");
        }
    }

    #[test]
    fn a_helper_that_is_not_there_or_has_a_path_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        for name in ["coffer-nosuch", "../../bin/true"] {
            let text = json!({ "credsStore": name }).to_string();
            fs::write(&file, &text).unwrap();
            let error = keep(&file, "r", "u", &"SECRET".into()).unwrap_err();
            assert!(error.class() == "config" && !error.to_string().contains("SECRET"), "{error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }
}
