//! Logins of registries, from Docker's configuration file: its `auths`, `credHelpers` and `credsStore`.
//!
//! The file is the caller's own, and so are the helpers it names: programs `docker-credential-NAME` on the path, which may ask
//! whoever sits there, and are waited for as long as that takes and no longer. No error of this has a secret, or what a helper said, in it.
//! Source: docker login's reference; docker-credential-helpers' protocol.

mod config;
pub(crate) mod error;
mod helper;
pub mod keep;
mod login;

use crate::error::{ImageError, Result};
use crate::store::read_at_most;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
pub use error::HelperError;
pub use login::Login;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// As [`lookup`], without keeping others waiting for a helper.
pub(crate) async fn find(file: Option<PathBuf>, registry: &str) -> Result<Login> {
    let registry = registry.to_owned();
    let found = tokio::task::spawn_blocking(move || lookup(file.as_deref(), &registry)).await;
    found.map_err(|error| ImageError::Client { reason: error.to_string() })?
}

/// The login for `registry` (host and port as in the reference), anonymous where the file has none.
///
/// # Errors
/// [`ImageError::Credentials`] where the file or the entry cannot be read, [`ImageError::Helper`] where a helper fails.
pub fn lookup(file: Option<&Path>, registry: &str) -> Result<Login> {
    let Some(path) = file else { return Ok(Login::Anonymous) };
    let Some(bytes) = read(path)? else { return Ok(Login::Anonymous) };
    if let Some(token) = token_of(path, &bytes, registry)? {
        return Ok(Login::Bearer(token.into()));
    }
    let mut config = config::parsed(path, &bytes)?;
    let (own, every) = (config::helpers(&config), config::every_helper(&config));
    // Without its helpers, which the library would wait for without end.
    config.retain(|key, _| !["credHelpers", "credsStore"].contains(&key.as_str()));
    let entries = serde_json::Value::Object(config).to_string();
    for name in names(registry) {
        use CredentialRetrievalError as Failed;
        let reason = match own.get(name) {
            Some(helper) => match helper::get(helper, name)? {
                Some(login) => return Ok(login),
                None => continue,
            },
            None => match get_credential_from_reader(entries.as_bytes(), name) {
                Ok(DockerCredential::UsernamePassword(user, password)) => {
                    return Ok(Login::Basic(user, password.trim_end_matches('\0').into()));
                }
                Ok(DockerCredential::IdentityToken(token)) => return Ok(Login::Identity(token.into())),
                Err(Failed::NoCredentialConfigured) => match every.as_ref().map(|helper| helper::get(helper, name)) {
                    Some(found) => match found? {
                        Some(login) => return Ok(login),
                        None => continue,
                    },
                    None => continue,
                },
                Err(Failed::CredentialMismatchError) => format!("the entry of {registry} says two different logins"),
                Err(_) => format!("the entry of {registry} is not user:password in base64"),
            },
        };
        return Err(ImageError::Credentials { path: path.to_owned(), reason });
    }
    Ok(Login::Anonymous)
}

/// The file; `None` where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let error = |reason: String| ImageError::Credentials { path: path.to_owned(), reason };
    match read_at_most(path, MAX_CONFIG_FILE) {
        Ok(Some(bytes)) => Ok(Some(bytes)),
        Ok(None) => Err(error(format!("it is longer than {MAX_CONFIG_FILE} bytes"))),
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(error(other.to_string())),
    }
}

/// Docker's configuration file has an entry of some hundred bytes for each registry.
const MAX_CONFIG_FILE: u64 = 1 << 20;

/// A token for the registry itself, which the library does not know; and whether the file can be read at all.
fn token_of(path: &Path, bytes: &[u8], registry: &str) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct ConfigFile {
        #[serde(default)]
        auths: BTreeMap<String, Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        registrytoken: Option<String>,
    }
    // serde_json's errors may quote the value; only the position is passed on.
    let config: ConfigFile = serde_json::from_slice(bytes).map_err(|at| {
        let reason = format!("not a Docker configuration (line {}, column {})", at.line(), at.column());
        ImageError::Credentials { path: path.to_owned(), reason }
    })?;
    let entry = config.auths.into_iter().find(|(key, _)| is_of(key, registry));
    Ok(entry.and_then(|(_, entry)| entry.registrytoken).filter(|token| !token.is_empty()))
}

/// What the file calls a registry, the name that is written first.
pub(crate) fn names(registry: &str) -> Vec<&str> {
    if registry == "docker.io" { vec![DOCKER_HUB, "docker.io"] } else { vec![registry] }
}

/// Docker's own registry has the name that it had first.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Whether an `auths` key, with or without scheme and path, names this registry.
pub(crate) fn is_of(key: &str, registry: &str) -> bool {
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
    use secrecy::ExposeSecret as _;

    /// Its kind, and what is in it.
    pub(super) fn inside(login: &Login) -> (String, String) {
        let text = match login {
            Login::Anonymous => String::new(),
            Login::Basic(user, password) => format!("{user} {}", password.expose_secret()),
            Login::Bearer(token) | Login::Identity(token) => token.expose_secret().to_owned(),
        };
        (format!("{login:?}"), text)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn finds_the_entry_of_the_registry_and_no_other() {
        let file = file(
            r#"{"auths":{"127.0.0.1:5000":{"auth":"dTpwOnE="},"https://index.docker.io/v1/":{"username":"a","password":"b"},
                "t":{"registrytoken":"abc"},"i":{"auth":"dTp2","identitytoken":"def"}}}"#,
        );
        let find = |registry| inside(&lookup(Some(file.path()), registry).unwrap());
        let is = |kind: &str, text: &str| (kind.to_owned(), text.to_owned());
        assert_eq!(find("127.0.0.1:5000"), is("Basic", "u p:q"));
        assert_eq!(find("docker.io"), is("Basic", "a b"));
        assert_eq!(find("t"), is("Bearer", "abc"));
        assert_eq!(find("i"), is("Identity", "def"));
        assert_eq!(find("127.0.0.1"), is("Anonymous", ""));
        assert!(matches!(lookup(Some(Path::new("/nonexistent")), "x").unwrap(), Login::Anonymous));
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = lookup(Some(Path::new("/dev/zero")), "r").unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_named_without_its_contents() {
        let contents = [
            r#"{"auths":{"r":{"auth":"SECRET!"}}}"#,
            r#"{"auths":"SECRET"}"#,
            r#"{"auths":{"r":{"auth":"dTpw","username":"u","password":"SECRET"}}}"#,
        ];
        for text in contents {
            let error = lookup(Some(file(text).path()), "r").unwrap_err();
            assert_eq!(error.class(), "config");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let all = [Login::Basic("u".into(), "SECRET".into()), Login::Bearer("SECRET".into())];
        assert_eq!(format!("{all:?}"), "[Basic, Bearer]");
    }
}
