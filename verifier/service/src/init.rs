//! A new state folder: keys, a certificate of its own making, one key that may ask, and a configuration that says so.
//!
//! Never: overwrites anything; puts a key where others than the folder's owner may write; keeps the key that may ask, which is printed once.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use coffer_rim::file::Writer;
use coffer_rim::folder::private_and_empty;
use coffer_token::{KeySet, KeySetError};
use coffer_verifier::ear::Issuer;
use zeroize::Zeroizing;

use crate::access::new_key;
use crate::challenge::KEY_LEN;
use crate::config::{ConfigFile, KeyEntry, config_path};
use crate::limits::LimitsEntry;
use crate::secret_file;
use crate::tls::TlsEntry;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where callers will connect.
    pub listen: SocketAddr,
    /// Names and addresses in the certificate.
    pub names: Vec<String>,
    /// Who issues tokens; nobody where none is named.
    pub issuer: Option<Issuer>,
}

/// What was made.
pub struct Initialized {
    /// The key that may ask: it is nowhere else.
    pub api_key: String,
    /// The certificate, for callers to believe.
    pub certificate: PathBuf,
}

/// Nothing was made, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// There is something.
    #[error("{} is there and not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The file system.
    #[error("{} cannot be made", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Keys that sign tokens.
    #[error("keys that sign tokens cannot be made")]
    Tokens(#[from] KeySetError),
    /// The certificate.
    #[error("no certificate can be made for {names}")]
    Certificate {
        /// For which names.
        names: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// Randomness.
    #[error("no randomness from the system: {0}")]
    Random(String),
    /// The configuration cannot be written out.
    #[error("the configuration cannot be written as TOML")]
    Toml(#[from] toml::ser::Error),
}

impl InitError {
    /// What the operator can do.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NotEmpty(_) => "nothing is overwritten: name a new folder",
            Self::Certificate { .. } => "give --name host names and IP addresses",
            _ => "see that the folder can be written, and begin with an empty one",
        }
    }
}

/// Makes a state folder.
///
/// # Errors
/// [`InitError`].
pub fn init(state: &Path, wanted: &Wanted) -> Result<Initialized, InitError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| InitError::File { path, source }
    };
    private_and_empty(state).map_err(|source| match source.kind() {
        io::ErrorKind::DirectoryNotEmpty => InitError::NotEmpty(state.to_owned()),
        _ => file(state)(source),
    })?;
    let secret = |name: &str, bytes: &[u8]| {
        let path = state.join(name);
        secret_file::write_new(&path, bytes).map_err(file(&path))
    };
    let challenge_key = Zeroizing::new(hex::encode(*Zeroizing::new(random::<KEY_LEN>()?)));
    secret(CHALLENGE_KEY, challenge_key.as_bytes())?;
    if wanted.issuer.is_some() {
        KeySet::generate()?.write_new(&state.join(TOKEN_KEYS))?;
    }
    let certified = rcgen::generate_simple_self_signed(wanted.names.clone())
        .map_err(|source| InitError::Certificate { names: wanted.names.join(", "), source })?;
    let key = Zeroizing::new(certified.signing_key.serialize_pem());
    secret(KEY, key.as_bytes())?;
    let certificate = state.join(CERTIFICATE);
    let public = Writer::private().mode(0o644).new_only();
    public.write(&certificate, certified.cert.pem().as_bytes()).map_err(file(&certificate))?;
    let (api_key, digest) = new_key(random()?);
    let config = ConfigFile {
        listen: wanted.listen.to_string(),
        challenge_key: CHALLENGE_KEY.into(),
        issuer: wanted.issuer.as_ref().map(ToString::to_string),
        token_keys: wanted.issuer.is_some().then(|| TOKEN_KEYS.into()),
        default_policy: None,
        endorsements: Vec::new(),
        plain_http_for_this_machine_alone: false,
        local_socket: false,
        anyone_who_connects_may_ask: false,
        tls: Some(TlsEntry { certificate: CERTIFICATE.into(), key: KEY.into(), client_roots: None }),
        api_keys: vec![KeyEntry { name: "first".into(), sha256: hex::encode(digest) }],
        policies: std::collections::BTreeMap::new(),
        kds: None,
        traces: None,
        limits: LimitsEntry::default(),
    };
    let path = config_path(state);
    Writer::private().new_only().write(&path, toml::to_string(&config)?.as_bytes()).map_err(file(&path))?;
    Ok(Initialized { api_key, certificate })
}

fn random<const N: usize>() -> Result<[u8; N], InitError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| InitError::Random(error.to_string()))?;
    Ok(bytes)
}

const CHALLENGE_KEY: &str = "challenge.key";
const TOKEN_KEYS: &str = "tokens.json";
const CERTIFICATE: &str = "tls.pem";
const KEY: &str = "tls-key.pem";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn no_key_lies_where_others_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Wanted { listen: ([127, 0, 0, 1], 0).into(), names: vec!["localhost".into()], issuer: None };
        let mode = |folder: &Path| fs::metadata(folder).unwrap().permissions().mode() & 0o7777;
        for bits in [0o777, 0o1777, 0o770, 0o755] {
            let folder = dir.path().join(format!("{bits:o}"));
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(bits)).unwrap();
            init(&folder, &wanted).unwrap();
            assert_eq!(mode(&folder), 0o700, "{bits:o}");
            // What was there before stays as it was, and is named.
            fs::set_permissions(&folder, fs::Permissions::from_mode(bits)).unwrap();
            assert!(matches!(init(&folder, &wanted), Err(InitError::NotEmpty(named)) if named == folder));
            assert_eq!(mode(&folder), bits);
        }
    }
}
