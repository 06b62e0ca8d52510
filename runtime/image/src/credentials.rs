//! Registry credentials from Docker's configuration file: the basic `auths` entries, and tokens for a registry.
//!
//! Credential helpers are programs; none is run here.

use crate::error::{ImageError, Result};
use crate::store::read_at_most;
use base64::Engine as _;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
}

/// Credentials for `registry` (host and port as in the reference), anonymous where the file or the entry is absent.
///
/// # Errors
/// [`ImageError::Credentials`] where the file or the entry cannot be read; its text never holds a secret.
pub fn lookup(file: Option<&Path>, registry: &str) -> Result<RegistryAuth> {
    let Some(path) = file else { return Ok(RegistryAuth::Anonymous) };
    let error = |reason: String| ImageError::Credentials { path: path.to_owned(), reason };
    let bytes = match read_at_most(path, MAX_CONFIG_FILE) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(error(format!("it is longer than {MAX_CONFIG_FILE} bytes"))),
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        Err(other) => return Err(error(other.to_string())),
    };
    // serde_json's errors may quote the value; only the position is passed on.
    let config: ConfigFile = serde_json::from_slice(&bytes)
        .map_err(|at| error(format!("not a Docker configuration (line {}, column {})", at.line(), at.column())))?;
    let Some((_, entry)) = config.auths.iter().find(|(key, _)| names(key, registry)) else {
        return Ok(RegistryAuth::Anonymous);
    };
    if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
        return Ok(RegistryAuth::Basic(user.clone(), password.clone()));
    }
    if let Some(token) = entry.registrytoken.as_deref().filter(|token| !token.is_empty()) {
        return Ok(RegistryAuth::Bearer(token.to_owned()));
    }
    let Some(auth) = entry.auth.as_deref().filter(|auth| !auth.is_empty()) else {
        return Ok(RegistryAuth::Anonymous);
    };
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(auth.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| error(format!("the entry of {registry} is not base64 text")))?;
    let (user, password) =
        decoded.split_once(':').ok_or_else(|| error(format!("the entry of {registry} is not user:password")))?;
    Ok(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Docker's configuration file has an entry of some hundred bytes for each registry.
const MAX_CONFIG_FILE: u64 = 1 << 20;

/// Whether an `auths` key, with or without scheme and path, names this registry.
fn names(key: &str, registry: &str) -> bool {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = host.split('/').next().unwrap_or(host);
    let canonical = |name: &str| match name {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_ascii_lowercase(),
    };
    canonical(host) == canonical(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn finds_the_entry_of_the_registry_and_no_other() {
        let file = file(
            r#"{"auths":{"127.0.0.1:5000":{"auth":"dTpwOnE="},"https://index.docker.io/v1/":{"username":"a","password":"b"},
                "t":{"registrytoken":"abc"}}}"#,
        );
        let find = |registry| lookup(Some(file.path()), registry).unwrap();
        assert_eq!(find("127.0.0.1:5000"), RegistryAuth::Basic("u".into(), "p:q".into()));
        assert_eq!(find("docker.io"), RegistryAuth::Basic("a".into(), "b".into()));
        assert_eq!(find("t"), RegistryAuth::Bearer("abc".into()));
        assert_eq!(find("127.0.0.1"), RegistryAuth::Anonymous);
        assert_eq!(lookup(Some(Path::new("/nonexistent")), "x").unwrap(), RegistryAuth::Anonymous);
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = lookup(Some(Path::new("/dev/zero")), "r").unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_named_without_its_contents() {
        let file = file(r#"{"auths":{"r":{"auth":"SECRET!"}}}"#);
        let error = lookup(Some(file.path()), "r").unwrap_err();
        assert_eq!(error.class(), "config");
        assert!(!error.to_string().contains("SECRET"), "{error}");
        let file = self::file(r#"{"auths":"SECRET"}"#);
        let error = lookup(Some(file.path()), "r").unwrap_err();
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
}
