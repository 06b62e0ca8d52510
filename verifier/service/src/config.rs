//! Configuration: as typed ([`ConfigFile`]), then as meant ([`Config`]), with every mistake named at once.

mod policy_entry;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coffer_kds::{KdsEntry, Services};
use coffer_policies::reads_as_built_in;
use coffer_rim::settings::{self, Unreadable};
use coffer_rim::{chain, input};
use coffer_token::KeySet;
use coffer_verifier::abi::SpkiDigest;
use coffer_verifier::ear::{Issuer, Word};
use coffer_verifier::said::plain;
use coffer_verifier::{Endorsements, Look, MaxAge, UnixTime};
use serde::{Deserialize, Serialize};

pub use self::policy_entry::PolicyEntry;
use crate::access::Access;
use crate::appraiser::{Appraiser, TokenIssuer};
use crate::challenge::KEY_LEN;
use crate::limits::{Limits, LimitsEntry};
use crate::policies::{Parts, Policies, Policy, STRICT_NAME};
use crate::secret_file;
use crate::tls::{Tls, TlsEntry};
use crate::traces::Collector;

/// SHA-256 of no bytes.
const OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// `config.toml` of a state folder. Unknown keys are refused; files are relative to its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Where callers connect.
    pub listen: String,
    /// Key of challenges, which replicas share.
    pub challenge_key: PathBuf,
    /// Who issues tokens: the address under which others find the keys. Left out: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Keys that sign tokens, as `coffer token init` makes them; replicas share them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_keys: Option<PathBuf>,
    /// The policy of requests that name none. Left out: `strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_policy: Option<String>,
    /// Certificates and revocation lists (DER or PEM) that evidence need not bring.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endorsements: Vec<PathBuf>,
    /// Plain HTTP, on the loopback and nowhere else.
    #[serde(default, skip_serializing_if = "is_false")]
    pub plain_http_for_this_machine_alone: bool,
    /// A Unix socket too, in the state folder, for this user and root: plain HTTP, with the same keys.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local_socket: bool,
    /// Whoever connects may ask, with no key and no certificate.
    #[serde(default, skip_serializing_if = "is_false")]
    pub anyone_who_connects_may_ask: bool,
    /// Identity of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsEntry>,
    /// Who may ask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_keys: Vec<KeyEntry>,
    /// Policies beside `strict`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, PolicyEntry>,
    /// Who is asked for what evidence lacks. Left out: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kds: Option<KdsEntry>,
    /// Where traces go: OTLP over gRPC, to a collector on this machine. Left out: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<String>,
    /// What callers may cost.
    #[serde(default)]
    pub limits: LimitsEntry,
}

/// One key that may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Name in the log.
    pub name: String,
    /// SHA-256 of the key, as `coffer-verifier api-key` prints it.
    pub sha256: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Configuration with everything resolved.
pub struct Config {
    /// Where callers connect.
    pub listen: SocketAddr,
    /// In the state folder too.
    pub local_socket: bool,
    /// Key of challenges.
    pub challenge_key: [u8; KEY_LEN],
    /// Decides.
    pub appraiser: Appraiser,
    /// Who may ask.
    pub access: Access,
    /// Identity of the server; plain HTTP on the loopback without.
    pub tls: Option<Tls>,
    /// Who is asked for what evidence lacks.
    pub kds: Services,
    /// Where traces go.
    pub traces: Option<Collector>,
    /// What callers may cost.
    pub limits: Limits,
    /// What nobody will have meant, of the texts of policies.
    pub found: Vec<String>,
    /// What counts at the next start alone, by its key, in a form to compare.
    pub of_the_start: Vec<(&'static str, String)>,
}

impl Config {
    /// What nobody will have meant, and does not keep it from being used: findings in the texts of policies, and what is over `now`.
    pub fn warnings(&self, now: UnixTime) -> Vec<String> {
        let mut all = self.found.clone();
        for list in self.appraiser.endorsements.crls() {
            let (_, to) = list.validity();
            let of = list.product().map_or_else(String::new, |product| format!(" of {product}"));
            if to < now {
                all.push(format!("endorsements: revocation list {}{of} is over since {to}", list.number()));
            }
        }
        for one in self.appraiser.endorsements.certificates() {
            let (_, to) = one.validity();
            if to < now {
                all.push(format!("endorsements: a certificate ({}) is over since {to}", one.role()));
            }
        }
        if let Some(to) = self.tls.as_ref().and_then(|tls| tls.until).filter(|to| *to < now) {
            all.push(format!("tls.certificate is over since {to}: clients that look at its dates go away"));
        }
        all
    }
}

/// Everything wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Cannot be read.
    #[error("configuration {} cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not the TOML it should be.
    #[error("configuration {}: {message}", path.display())]
    Toml {
        /// Which file.
        path: PathBuf,
        /// The parser's words.
        message: String,
    },
    /// Values that mean nothing, all of them.
    #[error("configuration has {} mistake(s): {}", .0.len(), .0.join("; "))]
    Mistakes(Vec<String>),
}

impl ConfigError {
    /// All of them, where it is for what it says that it cannot be used.
    pub fn mistakes(&self) -> &[String] {
        if let Self::Mistakes(all) = self { all } else { &[] }
    }

    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "it is for the user that the service runs as alone, and so is its folder: ask as that user or as root"
            }
            Self::Read { .. } => {
                "make a state folder with `coffer-verifier init --state DIR`, or name the file with --config"
            }
            Self::Toml { .. } | Self::Mistakes(_) => {
                "mend each key that is named, and ask again with `coffer-verifier check`; its --help lists every key"
            }
        }
    }
}

/// The configuration of a state folder.
pub fn config_path(state: &Path) -> PathBuf {
    state.join("config.toml")
}

/// Keys that have to be there, with a value that can be read.
const REQUIRED: [(&str, &str); 2] = [("listen", "127.0.0.1:0"), ("challenge_key", "challenge.key")];

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::Toml`], or [`ConfigError::Mistakes`] with every key that cannot be read.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = input::read_text(path, input::DOCUMENT)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        settings::parse(&text, &REQUIRED).map_err(|error| match error {
            Unreadable::Toml(message) => ConfigError::Toml { path: path.into(), message },
            Unreadable::Mistakes(all) => ConfigError::Mistakes(all.iter().map(|one| plain(one)).collect()),
        })
    }

    /// Resolves it; files are relative to `folder`.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`] with every mistake.
    pub fn resolve(&self, folder: &Path) -> Result<Config, ConfigError> {
        let mut mistakes = Vec::new();
        let listen = self.address(&mut mistakes);
        let challenge_key = secret_file::read_key(&folder.join(&self.challenge_key))
            .map_err(|why| mistakes.push(format!("challenge_key ({}): {why}", self.challenge_key.display())));
        let issuer = self.token_issuer(folder, &mut mistakes);
        let endorsements = self.endorsement_files(folder, &mut mistakes);
        let access = self.access(&mut mistakes);
        let tls = self.tls.as_ref().and_then(|entry| entry.read(folder, &mut mistakes));
        let mut found = Vec::new();
        let (policies, simulators) = self.policies(folder, &mut mistakes, &mut found);
        let kds = self.kds.as_ref().map(|entry| entry.read(simulators, "policy", &mut mistakes)).unwrap_or_default();
        let limits = self.limits.read(&mut mistakes);
        let traces = self.traces.as_deref().map(Collector::parse).transpose();
        let traces = traces.unwrap_or_else(|why| {
            mistakes.push(why);
            None
        });
        match (challenge_key, policies) {
            (Ok(challenge_key), Some(policies)) if mistakes.is_empty() => Ok(Config {
                listen,
                local_socket: self.local_socket,
                challenge_key,
                of_the_start: vec![
                    ("listen", listen.to_string()),
                    ("local_socket", self.local_socket.to_string()),
                    ("challenge_key", hex::encode(challenge_key)),
                    ("[kds]", format!("{kds:?}")),
                    ("traces", format!("{traces:?}")),
                    ("[limits]", format!("{limits:?}")),
                    ("plain_http_for_this_machine_alone", self.plain_http_for_this_machine_alone.to_string()),
                ],
                appraiser: Appraiser::new(policies, endorsements, issuer),
                access,
                tls,
                found,
                kds,
                traces,
                limits,
            }),
            _ => Err(ConfigError::Mistakes(mistakes)),
        }
    }

    fn address(&self, mistakes: &mut Vec<String>) -> SocketAddr {
        let Ok(listen) = self.listen.parse::<SocketAddr>() else {
            mistakes.push(format!("listen is {:?}, expected IP:PORT", self.listen));
            return SocketAddr::from(([127, 0, 0, 1], 0));
        };
        match (&self.tls, self.plain_http_for_this_machine_alone) {
            (Some(_), true) => {
                mistakes
                    .push("plain_http_for_this_machine_alone stands beside [tls]: leave one of them out".to_owned());
            }
            (None, false) => mistakes.push(
                "tls is missing: name certificate and key, or say plain_http_for_this_machine_alone = true".to_owned(),
            ),
            (None, true) if !listen.ip().is_loopback() => mistakes.push(format!(
                "plain_http_for_this_machine_alone: {listen} is no address of the loopback, such as 127.0.0.1:4490"
            )),
            _ => {}
        }
        listen
    }

    fn access(&self, mistakes: &mut Vec<String>) -> Access {
        let mut access = Access {
            keys: Vec::new(),
            anyone: self.anyone_who_connects_may_ask,
            loopback_names_alone: self.anyone_who_connects_may_ask && self.plain_http_for_this_machine_alone,
        };
        for (at, KeyEntry { name, sha256 }) in self.api_keys.iter().enumerate() {
            if let Err(expected) = caller_name(name) {
                let shown = coffer_rim::foreign(name);
                mistakes.push(format!("api_keys[{at}].name is \"{shown}\", {expected}"));
            }
            if self.api_keys[..at]
                .iter()
                .any(|before| before.name == *name || before.sha256.eq_ignore_ascii_case(sha256))
            {
                mistakes.push(format!("api_keys[{at}] has a name or a digest that stands there before"));
            }
            let mut digest = [0; 32];
            match hex::decode_to_slice(sha256, &mut digest) {
                Ok(()) if digest == OF_NOTHING => mistakes.push(format!(
                    "api_keys[{at}].sha256 is that of nothing: whoever shows no key would show this one"
                )),
                Ok(()) if digest != [0; 32] => access.keys.push((name.clone(), digest)),
                _ => mistakes.push(format!("api_keys[{at}].sha256: expected 64 hexadecimal digits, not all of them 0")),
            }
        }
        let certificates = self.tls.as_ref().is_some_and(|tls| tls.client_roots.is_some());
        let somebody = !self.api_keys.is_empty() || certificates;
        if somebody == access.anyone {
            mistakes.push(if somebody {
                "anyone_who_connects_may_ask stands beside api_keys or tls.client_roots: leave one of them out"
                    .to_owned()
            } else {
                "nobody may ask: list api_keys or tls.client_roots, or say anyone_who_connects_may_ask = true"
                    .to_owned()
            });
        }
        access
    }

    fn token_issuer(&self, folder: &Path, mistakes: &mut Vec<String>) -> Option<TokenIssuer> {
        let (issuer, file) = match (&self.issuer, &self.token_keys) {
            (None, None) => return None,
            (Some(issuer), Some(file)) => (issuer, file),
            (Some(_), None) => {
                mistakes
                    .push("issuer stands there without token_keys: tokens would have nobody to sign them".to_owned());
                return None;
            }
            (None, Some(_)) => {
                mistakes.push("token_keys stands there without issuer: nobody could find the keys".to_owned());
                return None;
            }
        };
        let issuer = Issuer::parse(issuer).map_err(|error| mistakes.push(format!("issuer: {error}")));
        let keys = KeySet::read(&folder.join(file)).map_err(|error| {
            let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
            mistakes.push(format!("token_keys ({}): {}{hint}", file.display(), chain(&error)));
        });
        TokenIssuer::new(issuer.ok()?, keys.ok()?).map_err(|error| mistakes.push(format!("issuer: {error}"))).ok()
    }

    fn endorsement_files(&self, folder: &Path, mistakes: &mut Vec<String>) -> Endorsements {
        let mut all = Endorsements::new();
        for file in &self.endorsements {
            let read = input::read(&folder.join(file), input::DOCUMENT).map_err(|error| error.to_string());
            let added = read.and_then(|bytes| {
                if Look::of(&bytes) == Look::CertTable {
                    let table = Endorsements::from_cert_table(&bytes).map_err(|error| chain(&error))?;
                    all.merge(&table);
                    return Ok(());
                }
                let refused = match all.add_certificates(&bytes) {
                    Ok(()) => return Ok(()),
                    Err(refused) => refused,
                };
                let list = all.add_crl(&bytes);
                match Look::of(&bytes) {
                    Look::Certificate => list.map_err(|_| chain(&refused)),
                    Look::RevocationList => list.map_err(|error| chain(&error)),
                    look => list.map_err(|_| format!("{look} where a certificate or a list is due")),
                }
            });
            if let Err(why) = added {
                mistakes.push(format!("endorsements ({}): {why}", file.display()));
            }
        }
        all
    }

    /// The policies, and every simulator's root that one of them believes.
    fn policies(
        &self,
        folder: &Path,
        mistakes: &mut Vec<String>,
        found: &mut Vec<String>,
    ) -> (Option<Policies>, Vec<SpkiDigest>) {
        let (mut all, mut simulators) = (Vec::new(), Vec::new());
        for (name, entry) in &self.policies {
            let shown = coffer_rim::foreign(name).into_owned();
            if reads_as_built_in(name) {
                mistakes
                    .push(format!("policies.{shown} reads as one that is built in: call it otherwise, without `+`"));
                continue;
            }
            let simulated = entry.roots(&shown, mistakes);
            let floor = entry.floor(&shown, folder, mistakes, found);
            let rego = entry.rego(&shown, folder, mistakes, found);
            simulators.extend_from_slice(&simulated);
            let Some((rules, text)) = floor else { continue };
            // How old it is is asked at each appraisal; without a date nothing would ever be accepted.
            let has_date = rego.as_ref().is_some_and(|rego| rego.signed_at().is_some());
            // What cannot be read is named already, and may have had one.
            let is_whole = rego.is_some() || entry.rego.is_none();
            if rules.max_policy_age != MaxAge::Any && !has_date && is_whole {
                mistakes.push(format!(
                    "policies.{shown}: max_policy_age asks for a rego that is a bundle signed by bundle_key, whose \
                     signature has a date (iat): `coffer policy sign` makes one"
                ));
            }
            match Policy::new(Parts { name, floor: (rules, &text), rego, simulated: &simulated }) {
                Ok(policy) => all.push(policy),
                Err(error) => mistakes.push(format!("policies.{shown}: that is no name of a policy: {error}")),
            }
        }
        let default = self.default_policy.as_deref().unwrap_or(STRICT_NAME);
        let policies = Policies::new(all, default).ok().flatten();
        // One that is listed and cannot be read is named already.
        if policies.is_none() && !self.policies.contains_key(default) {
            let shown = coffer_rim::foreign(default);
            mistakes.push(format!("default_policy: no policy is called {shown}"));
        }
        (policies, simulators)
    }
}

/// What the log calls a caller.
///
/// # Errors
/// What it must be.
pub fn caller_name(name: &str) -> Result<Word, &'static str> {
    let word = Word::parse(name).ok().filter(|word| word.as_str().len() <= 64);
    word.ok_or("expected 1 to 64 ASCII characters without spaces")
}

/// How long one request waits for what is fetched for it.
pub const PATIENCE: Duration = Duration::from_secs(10);
