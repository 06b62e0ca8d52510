//! Configuration: as typed ([`ConfigFile`]), then as meant ([`Config`]), with every mistake named at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use coffer_kds::{KdsEntry, Services};
use coffer_policies::Policy;
use coffer_ratls::ServeLimits;
use coffer_rim::{
    input::DOCUMENT,
    regular,
    settings::{self, Unreadable},
};
use coffer_verifier::{
    Endorsements,
    abi::{ProductLine, SpkiDigest},
    amd_root,
};
use serde::{Deserialize, Serialize};

use crate::{
    Tenant,
    admin_socket::AdminSocketEntry,
    checkpoint_place::objection,
    floors::Floors,
    limits::{LimitsEntry, Rate},
    listeners::Listeners,
    operators::{NAMES, is_operator_name, is_same_name},
    policies::ReleasePolicies,
    revoked::Chipless,
    roles::Grant,
    sources::SourceLimits,
};

/// `config.toml` of a state folder. Unknown keys are refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Where guests connect.
    pub listen: String,
    /// Where operators connect.
    pub admin_listen: String,
    /// Operators by key.
    #[serde(default, deserialize_with = "some_admins")]
    pub admins: Vec<AdminEntry>,
    /// What a tenant accepts beyond AMD's roots.
    #[serde(default)]
    pub tenants: BTreeMap<String, TenantEntry>,
    /// Release policies beside `default`: name to Rego file, relative to this file.
    #[serde(default)]
    pub policies: BTreeMap<String, PathBuf>,
    /// Certificates and revocation lists (DER or PEM) that evidence need not bring, relative to this file.
    #[serde(default)]
    pub endorsements: Vec<PathBuf>,
    /// What strangers and guests may cost.
    #[serde(default)]
    pub limits: LimitsEntry,
    /// Where figures for Prometheus are, in plain HTTP; left out: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_listen: Option<String>,
    /// The typed floor: `strict` (also where it is left out), `vmpl-and-debug-alone`, or a policy file of `coffer verify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
    /// What `strict` does not ask for, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub floor_waivers: Vec<String>,
    /// What is not refused while chips are revoked, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocation_waivers: Vec<String>,
    /// A socket for operators on this machine; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_socket: Option<AdminSocketEntry>,
    /// Who is asked for what guests' evidence lacks; left out: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kds: Option<KdsEntry>,
    /// Where the end of the database is kept outside it, relative to the state folder; left out: in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
}

/// One operator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminEntry {
    /// Name in the audit trail.
    pub name: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub key: String,
}

/// One tenant.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantEntry {
    /// SHA-256 of the SubjectPublicKeyInfo of simulated roots this tenant accepts, where a secret accepts them too.
    #[serde(default)]
    pub simulated_anchors: Vec<String>,
    /// A policy file of `coffer verify` that this tenant's guests must meet beside the broker's floor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
}

/// Configuration with everything resolved.
pub struct Config {
    /// Guest listener.
    pub listen: SocketAddr,
    /// Admin listener.
    pub admin_listen: SocketAddr,
    /// Figures.
    pub metrics_listen: Option<SocketAddr>,
    /// Operators: key to name.
    pub admins: BTreeMap<SpkiDigest, String>,
    /// Tenants it lists: they are there without having been created.
    pub tenants: BTreeSet<Tenant>,
    /// Tenants it names without listing them, and where: they must be there.
    pub named_tenants: BTreeMap<Tenant, &'static str>,
    /// Simulated roots by tenant.
    pub simulated_anchors: BTreeMap<Tenant, BTreeSet<SpkiDigest>>,
    /// Release policies.
    pub policies: ReleasePolicies,
    /// Endorsements at hand.
    pub endorsements: Endorsements,
    /// Limits of the guest listener.
    pub serve: ServeLimits,
    /// Limits per source address.
    pub source: SourceLimits,
    /// Requests of one guest.
    pub guest_rate: Rate,
    /// What whoever comes over the local socket may; nothing: there is no such socket.
    pub admin_socket: Option<Grant>,
    /// Who is asked for what evidence lacks.
    pub kds: Services,
    /// Where the checkpoint is, if not in the state folder.
    pub checkpoint: Option<PathBuf>,
    /// Typed floors.
    pub floors: Floors,
    /// Whether evidence counts that shows no chip while chips are revoked.
    pub chipless: Chipless,
}

impl Config {
    /// What it allows or lacks that whoever reads the log should know, each in a sentence.
    pub fn cautions(&self, now_unix: i64) -> Vec<String> {
        let anchors = self.simulated_anchors.iter().filter(|(_, anchors)| !anchors.is_empty());
        let simulated = anchors.map(|(tenant, anchors)| {
            let (roots, plural) = (anchors.len(), if anchors.len() == 1 { "" } else { "s" });
            format!(
                "tenant {tenant} accepts simulated evidence under {roots} root{plural}, which proves nothing about hardware"
            )
        });
        simulated.chain(self.stale_lists(now_unix)).collect()
    }

    /// Revocation lists of `endorsements` that should have been followed by newer ones: evidence under their roots needs its own.
    pub fn stale_lists(&self, now_unix: i64) -> impl Iterator<Item = String> {
        self.endorsements.crls().filter_map(move |list| {
            let (_, next) = list.validity();
            let number = list.number();
            (next.0 < now_unix).then(|| {
                format!("endorsements: the revocation list with number {number} has been out of date since {next}")
            })
        })
    }

    /// What counts at the next start alone, by its key, in a form to compare.
    pub fn of_the_start(&self) -> Vec<(&'static str, String)> {
        let (serve, source) = (&self.serve, &self.source);
        vec![
            ("listen", self.listen.to_string()),
            ("admin_listen", self.admin_listen.to_string()),
            ("metrics_listen", format!("{:?}", self.metrics_listen)),
            ("admins", format!("{:?}", self.admins)),
            ("admin_socket", format!("{:?}", self.admin_socket)),
            ("checkpoint", format!("{:?}", self.checkpoint)),
            ("[kds]", format!("{:?}", self.kds)),
            ("tenants that are there without `tenant add`", format!("{:?}", self.tenants)),
            ("[limits] connections", serve.connections.to_string()),
            ("[limits] unattested", serve.unattested.to_string()),
            ("[limits] unattested_seconds", serve.unattested_lifetime.as_secs().to_string()),
            ("[limits] connections_per_source", source.connections.to_string()),
            ("[limits] new_per_second_per_source", format!("{:?}", source.rate)),
            ("[limits] requests_per_second_per_guest", format!("{:?}", self.guest_rate)),
        ]
    }

    /// Takes a tenant off the list: `named_by` names it, which makes none.
    pub fn only_names(&mut self, tenant: &str, named_by: &'static str) {
        let names = |one: &&Tenant| one.as_str() == tenant;
        if let Some(listed) = self.tenants.iter().find(names).cloned() {
            self.tenants.remove(&listed);
            self.named_tenants.insert(listed, named_by);
        }
    }
}

/// Everything wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Cannot be read.
    #[error("configuration {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not the TOML it should be.
    #[error("configuration {path}: {message}")]
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
            Self::Read { .. } => {
                "make a state folder with `coffer-kbs init --state DIR`, or name the file with --config"
            }
            Self::Toml { .. } | Self::Mistakes(_) => {
                "mend each key that is named; `coffer-kbs init --state ANOTHER` writes a configuration that holds, to compare with \
                 (docs/kbs.md, \"Configuration\")"
            }
        }
    }
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::Toml`], or [`ConfigError::Mistakes`] with every key that cannot be read.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            regular::read_text(path, DOCUMENT).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        settings::parse(text, &REQUIRED).map_err(|error| match error {
            Unreadable::Toml(message) => ConfigError::Toml { path: path.into(), message },
            Unreadable::Mistakes(all) => ConfigError::Mistakes(all),
        })
    }

    /// Resolves it; files are relative to `folder`.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`] with every mistake.
    pub fn resolve(&self, folder: &Path) -> Result<Config, ConfigError> {
        let mut mistakes = Vec::new();
        let Listeners { listen, admin_listen, metrics_listen } =
            Listeners::read(&self.listen, &self.admin_listen, self.metrics_listen.as_deref(), &mut mistakes);
        let admins = self.admin_keys(&mut mistakes);
        let simulated_anchors = self.anchors(&mut mistakes);
        let policies = self.release_policies(folder, &mut mistakes);
        let endorsements = self.endorsement_files(folder, &mut mistakes);
        let of_tenants = self.tenants.iter().filter_map(|(name, entry)| {
            let floor = entry.floor.clone()?;
            Tenant::parse(name).ok().map(|tenant| (tenant, floor))
        });
        let floors = Floors::read(self.floor.as_deref(), &self.floor_waivers, of_tenants, folder, &mut mistakes);
        let chipless = Chipless::read(&self.revocation_waivers, &mut mistakes);
        let limits = &self.limits;
        limits.mistakes(&mut mistakes);
        match &self.checkpoint {
            Some(path) if path.as_os_str().is_empty() => {
                mistakes.push("checkpoint is empty, expected a file".to_owned());
            }
            Some(path) => {
                let named = self.policies.values().chain(&self.endorsements).map(PathBuf::as_path);
                let floors = self.tenants.values().map(|entry| &entry.floor).chain([&self.floor]);
                let named = named.chain(floors.flatten().map(Path::new));
                let objection = objection(folder, &folder.join(path), named);
                mistakes.extend(objection.map(|why| format!("checkpoint {} {why}", path.display())));
            }
            None => {}
        }
        let simulators = simulated_anchors.values().flatten().copied();
        let kds = self.kds.as_ref().map(|entry| entry.read(simulators, "tenant", &mut mistakes)).unwrap_or_default();
        let admin_socket = self.admin_socket.as_ref().and_then(|entry| entry.grant(&mut mistakes));
        match policies {
            Some(policies) if mistakes.is_empty() => Ok(Config {
                listen,
                admin_listen,
                metrics_listen,
                admins,
                tenants: simulated_anchors.keys().cloned().collect(),
                named_tenants: admin_socket
                    .iter()
                    .filter_map(|grant| Some((grant.tenant.clone()?, "admin_socket.tenant")))
                    .collect(),
                simulated_anchors,
                policies,
                endorsements,
                serve: ServeLimits {
                    connections: limits.connections,
                    unattested: limits.unattested,
                    unattested_lifetime: Duration::from_secs(limits.unattested_seconds),
                    ..ServeLimits::default()
                },
                source: SourceLimits {
                    connections: limits.connections_per_source,
                    all_told: limits.connections.saturating_add(4 * limits.unattested),
                    rate: twice(limits.new_per_second_per_source),
                },
                guest_rate: twice(limits.requests_per_second_per_guest),
                admin_socket,
                kds,
                checkpoint: self.checkpoint.clone(),
                floors,
                chipless,
            }),
            _ => Err(ConfigError::Mistakes(mistakes)),
        }
    }

    fn admin_keys(&self, mistakes: &mut Vec<String>) -> BTreeMap<SpkiDigest, String> {
        let mut admins = BTreeMap::new();
        for (at, admin) in self.admins.iter().enumerate() {
            let shown = coffer_rim::foreign(&admin.name);
            if !is_operator_name(&admin.name) {
                mistakes.push(format!("admins[{at}].name is \"{shown}\", expected {NAMES}"));
            }
            if self.admins[..at].iter().any(|before| is_same_name(&before.name, &admin.name)) {
                mistakes.push(format!(
                    "admins[{at}].name \"{shown}\" stands twice: the audit trail could not tell them apart"
                ));
            }
            match admin.key.parse::<SpkiDigest>() {
                Ok(key) if key.is_zero() => mistakes.push(format!("admins[{at}].key: a zero digest never matches")),
                Ok(key) => {
                    if let Some(first) = admins.insert(key, admin.name.clone()) {
                        mistakes.push(format!("admins[{at}].key is listed twice, for {first:?} and {:?}", admin.name));
                    }
                }
                Err(error) => mistakes.push(format!("admins[{at}].key: {error}")),
            }
        }
        admins
    }

    fn anchors(&self, mistakes: &mut Vec<String>) -> BTreeMap<Tenant, BTreeSet<SpkiDigest>> {
        let mut anchors: BTreeMap<Tenant, BTreeSet<SpkiDigest>> = BTreeMap::new();
        for (name, entry) in &self.tenants {
            let tenant = match Tenant::parse(name) {
                Ok(tenant) => tenant,
                Err(error) => {
                    mistakes.push(format!("tenants.{name:?}: {error}"));
                    continue;
                }
            };
            let listed = anchors.entry(tenant).or_default();
            for (at, anchor) in entry.simulated_anchors.iter().enumerate() {
                let field = format!("tenants.{name}.simulated_anchors[{at}]");
                match anchor.parse::<SpkiDigest>() {
                    Ok(anchor) if anchor.is_zero() => mistakes.push(format!("{field}: a zero digest never matches")),
                    Ok(anchor) if AMD.iter().any(|product| amd_root(*product) == anchor) => {
                        mistakes.push(format!("{field} is AMD's own root, which is not simulated"));
                    }
                    Ok(anchor) => {
                        if !listed.insert(anchor) {
                            mistakes.push(format!("{field}: {anchor} stands twice"));
                        }
                    }
                    Err(error) => mistakes.push(format!("{field}: {error}")),
                }
            }
        }
        anchors
    }

    fn release_policies(&self, folder: &Path, mistakes: &mut Vec<String>) -> Option<ReleasePolicies> {
        let mut policies = match ReleasePolicies::shipped() {
            Ok(policies) => policies,
            Err(error) => {
                mistakes.push(error.to_string());
                return None;
            }
        };
        for (name, file) in &self.policies {
            if name == crate::policies::DEFAULT || Tenant::parse(name).is_err() {
                mistakes.push(format!("policies.{name:?}: expected a name other than default"));
                continue;
            }
            if file.as_os_str().is_empty() {
                mistakes.push(format!("policies.{name} is empty, expected a file"));
                continue;
            }
            let parsed = regular::read_text(&folder.join(file), DOCUMENT)
                .map_err(|error| error.to_string())
                .and_then(|text| Policy::parse(name, &text).map_err(|error| error.to_string()));
            match parsed {
                Ok(policy) => policies.add(name.clone(), policy),
                Err(error) => mistakes.push(format!("policies.{name} ({}): {error}", file.display())),
            }
        }
        Some(policies)
    }

    fn endorsement_files(&self, folder: &Path, mistakes: &mut Vec<String>) -> Endorsements {
        let mut all = Endorsements::new();
        for (at, file) in self.endorsements.iter().enumerate() {
            if file.as_os_str().is_empty() {
                mistakes.push(format!("endorsements[{at}] is empty, expected a file"));
                continue;
            }
            if self.endorsements[..at].contains(file) {
                mistakes.push(format!("endorsements[{at}]: {} stands twice", file.display()));
                continue;
            }
            let added =
                regular::read(&folder.join(file), DOCUMENT).map_err(|error| error.to_string()).and_then(|bytes| {
                    let certificates = all.add_certificates(&bytes);
                    certificates
                        .or_else(|first| all.add_crl(&bytes).map_err(|_| first))
                        .map_err(|error| error.to_string())
                });
            if let Err(error) = added {
                mistakes.push(format!("endorsements {}: {error}", file.display()));
            }
        }
        all
    }
}

/// Keys that have to be there.
const REQUIRED: [(&str, &str); 2] = [("listen", "127.0.0.1:0"), ("admin_listen", "127.0.0.1:0")];

const AMD: [ProductLine; 3] = [ProductLine::Milan, ProductLine::Genoa, ProductLine::Turin];

fn twice(per_second: u32) -> Rate {
    Rate { burst: per_second.saturating_mul(2), per_second }
}

/// A list that is there names somebody. Whoever wants nobody leaves it out.
fn some_admins<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<AdminEntry>, D::Error> {
    let admins = Vec::deserialize(from)?;
    if admins.is_empty() {
        return Err(serde::de::Error::custom(
            "admins is an empty list: name an operator, or leave it out and have none",
        ));
    }
    Ok(admins)
}

#[cfg(test)]
mod tests;
