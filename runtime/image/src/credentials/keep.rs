//! Logins that are kept and forgotten, where Docker keeps them: with a helper, or in its configuration file.
//!
//! Of the file nothing else changes; it is replaced whole and readable by its owner alone. Two that change it at once do so one
//! after the other.

use super::config::{every_helper, helpers, parsed};
use super::{helper, is_of, names, read};
use crate::error::{ImageError, Result};
use base64::Engine as _;
use coffer_rim::file::Writer;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
/// [`ImageError::Credentials`], [`ImageError::Helper`].
pub fn keep(file: &Path, registry: &str, user: &str, password: &SecretString) -> Result<Place> {
    let file = &target(file);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| ImageError::Credentials { path: file.clone(), reason: error.to_string() })?;
    let _lock = lock(file)?;
    let mut config = config(file)?;
    let name = names(registry).first().copied().unwrap_or(registry).to_owned();
    let helper = names(registry).into_iter().find_map(|name| helpers(&config).remove(name));
    let (entry, place) = if let Some(helper) = helper.or_else(|| every_helper(&config)) {
        let document = json!({ "ServerURL": name, "Username": user, "Secret": password.expose_secret() });
        // What the file cannot say is not kept with a helper either.
        entries(&mut config, file)?;
        helper::store(&helper, document.to_string().as_bytes())?;
        // As Docker has it: an empty entry says that there is one elsewhere.
        (json!({}), Place::Helper(helper::program(&helper)))
    } else {
        let text = format!("{user}:{}", password.expose_secret());
        (json!({ "auth": base64::engine::general_purpose::STANDARD.encode(text) }), Place::File)
    };
    let auths = entries(&mut config, file)?;
    auths.retain(|key, _| !is_of(key, registry));
    auths.insert(name, entry);
    write(file, &config)?;
    Ok(place)
}

/// Forgets the logins of a registry, under every name that the file has for it; whether there was one.
///
/// # Errors
/// [`ImageError::Credentials`]; [`ImageError::Helper`], where the file stays as it was.
pub fn forget(file: &Path, registry: &str) -> Result<bool> {
    let file = &target(file);
    if !file.exists() {
        return Ok(false);
    }
    let _lock = lock(file)?;
    let mut config = config(file)?;
    let (own, every) = (helpers(&config), every_helper(&config));
    let auths = entries(&mut config, file)?;
    let mut spellings: BTreeSet<String> = auths.keys().filter(|key| is_of(key, registry)).cloned().collect();
    if spellings.is_empty() {
        return Ok(false);
    }
    auths.retain(|key, _| !is_of(key, registry));
    spellings.extend(own.keys().filter(|key| is_of(key, registry)).cloned());
    spellings.extend(names(registry).into_iter().map(str::to_owned));
    // All of them are tried: one that fails keeps no other.
    let erased: Vec<_> =
        spellings.iter().filter_map(|name| Some(helper::erase(own.get(name).or(every.as_ref())?, name))).collect();
    erased.into_iter().collect::<std::result::Result<(), _>>()?;
    write(file, &config)?;
    Ok(true)
}

/// The document; an empty one where there is no file.
fn config(file: &Path) -> Result<Map<String, Value>> {
    read(file)?.map_or_else(|| Ok(Map::new()), |bytes| parsed(file, &bytes))
}

/// Where a link to the file leads: it stays one.
fn target(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}

/// Keeps others of us from changing the file between our reading and our writing it: a lock of its folder, which leaves
/// nothing behind. Others hold it for as long as a helper may take.
fn lock(file: &Path) -> Result<File> {
    let failed = |reason: String| ImageError::Credentials { path: file.to_owned(), reason };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = File::open(folder).map_err(|error| failed(error.to_string()))?;
    let end = Instant::now() + PATIENCE;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::WouldBlock) => return Err(failed("another login or logout is under way".to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error.to_string())),
        }
    }
}

/// A little longer than a helper has.
const PATIENCE: Duration = Duration::from_secs(150);

fn entries<'a>(config: &'a mut Map<String, Value>, file: &Path) -> Result<&'a mut Map<String, Value>> {
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    auths.as_object_mut().ok_or_else(|| ImageError::Credentials {
        path: file.to_owned(),
        reason: "its \"auths\" is no object".to_owned(),
    })
}

fn write(file: &Path, config: &Map<String, Value>) -> Result<()> {
    let failed = |reason: String| ImageError::Credentials { path: file.to_owned(), reason };
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
    fn logins_at_once_lose_nothing_and_a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("config.json"), dir.path().join("link"));
        fs::write(&file, "{}").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = if number % 2 == 0 { &file } else { &link };
                scope.spawn(move || keep(path, &format!("r{number}.example"), "u", &"p".into()).unwrap());
            }
        });
        let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(kept["auths"].as_object().unwrap().len(), 16);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn every_name_of_a_registry_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let all = json!({"auths": {"docker.io": {}, "index.docker.io": {}, "https://index.docker.io/v1/": {},
            "https://registry-1.docker.io": {}, "http://docker.io/v2/": {}, "docker.io.example": {}}});
        fs::write(&file, all.to_string()).unwrap();
        assert!(forget(&file, "docker.io").unwrap());
        let left: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(left, json!({"auths": {"docker.io.example": {}}}));
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
