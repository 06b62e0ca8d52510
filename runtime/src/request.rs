//! From an image's defaults and what a user wants different to the workload spec, by Docker's rules.
//!
//! Pure: equal requests give equal specs on any machine, so that `coffer measure` predicts what `coffer run` launches.
//! Nothing in a spec depends on the box, its id or its name.

mod network;
mod peers;
mod rights;
mod secrets;
mod tmpfs;

use std::collections::BTreeSet;

use coffer_spec::{
    Act, ConfigDigest, DataVolume, Document, Domain, Floors, HostMay, Image, Ingress, IngressClients, KbsPin,
    ManifestDigest, Mount, Name, Network, Owner, OwnerAuthority, Peer, Process, Rights, Root, Scratch, SealedVolume,
    SecretTarget, SecretWanted, SpecError, Sysctl, Tee, Tenant, VerityTable, Volume, WorkloadSpec,
};
use coffer_verifier::abi::SpkiDigest;

use crate::publish::{How, Publish};

pub use network::{ADD_HOST, NetworkWords, Wanted, host_entry};
pub use peers::{GUESTS, GuestWords, PEER, PeerWords, SignedWords, guests, leave_to, peer};
pub use rights::{RightsError, RightsWords};
pub use secrets::{SECRET_ENV, SECRET_FILE, looks_like_a_secret, secret_env, secret_file};
pub use tmpfs::{TMPFS_RULE, Tmpfs, tmpfs, tmpfs_options};

/// What the image says about its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDefaults {
    /// Reference as the user wrote it, completed with registry and tag.
    pub reference: String,
    /// Of the configuration.
    pub config_digest: ConfigDigest,
    /// Of the manifest.
    pub manifest_digest: ManifestDigest,
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub cmd: Vec<String>,
    /// ENV, NAME=value.
    pub env: Vec<String>,
    /// WORKDIR, maybe empty.
    pub cwd: String,
    /// USER, maybe empty.
    pub user: String,
    /// STOPSIGNAL, maybe empty.
    pub stop_signal: String,
}

/// What the user wants different from the image's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadRequest {
    /// Secure processor.
    pub tee: Tee,
    /// Tenant at the key broker.
    pub tenant: Tenant,
    /// Words after the image.
    pub args: Vec<String>,
    /// Replaces ENTRYPOINT, and drops CMD.
    pub entrypoint: Option<String>,
    /// On top of ENV; a later entry of a name wins.
    pub env: Vec<String>,
    /// Replaces WORKDIR.
    pub cwd: Option<String>,
    /// Replaces USER.
    pub user: Option<String>,
    /// Replaces STOPSIGNAL.
    pub stop_signal: Option<String>,
    /// A terminal.
    pub tty: bool,
    /// A standard input.
    pub stdin_open: bool,
    /// An init of the guest's is the first program.
    pub init: bool,
    /// Rights of its programs.
    pub rights: Rights,
    /// Host name inside.
    pub hostname: Name,
    /// And its domain.
    pub domainname: Option<Domain>,
    /// tmpfs mounts.
    pub mounts: Vec<Mount>,
    /// Bytes of `/dev/shm` at most.
    pub shm_bytes: u64,
    /// Settings of the guest's kernel.
    pub sysctls: Vec<Sysctl>,
    /// Nothing is written to the root.
    pub read_only: bool,
    /// Snapshots of host folders and files.
    pub volumes: Vec<Volume>,
    /// What it keeps beyond its life.
    pub data_volumes: Vec<DataVolume>,
    /// What outlives a guest with a TEE.
    pub sealed_volumes: Vec<SealedVolume>,
    /// The writable layer.
    pub scratch: Scratch,
    /// Replaces the default of the mode.
    pub host_may: Option<HostMay>,
    /// Names that may be injected.
    pub inject: Vec<Name>,
    /// Key broker.
    pub kbs: Option<KbsPin>,
    /// Ports that are reached from outside.
    pub ingress: Vec<Ingress>,
    /// Other guests that it talks to.
    pub peers: Vec<Peer>,
    /// Its network card.
    pub network: Option<Network>,
    /// Audiences it may have tokens for.
    pub audiences: Vec<String>,
    /// Whether the agent answers on loopback routes of Confidential Containers too.
    pub coco_routes: bool,
    /// Secrets to fetch.
    pub secrets: Vec<SecretWanted>,
    /// Owners.
    pub owners: Vec<Owner>,
    /// Whose lists may change them.
    pub owner_authority: Option<OwnerAuthority>,
    /// Lower bounds.
    pub floors: Floors,
}

/// Why a request makes no spec.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A port for plain TLS without a certificate.
    #[error("a port behind /tls needs the key broker's profile that its certificate is issued by")]
    TlsProfile,
    /// What needs a card, and the word that takes it away.
    #[error("{0} needs a network card, and --network none leaves the box without")]
    NoNetwork(&'static str),
    /// A port that an image exposes and nobody can publish.
    #[error(
        "the image says that it listens on {0:?}, and --publish-all has no way to publish that; name ports with --publish"
    )]
    Exposed(String),
    /// Neither image nor user names a program.
    #[error("no command specified, and image {0} has neither ENTRYPOINT nor CMD")]
    NoCommand(String),
    /// Rights that no box has, or none.
    #[error(transparent)]
    Rights(#[from] RightsError),
    /// Not a signal.
    #[error("{0:?} is no signal")]
    Signal(String),
    /// No guest has so many virtual processors.
    #[error("{0} virtual processors, expected 1 to {most}", most = Vcpus::MOST)]
    Vcpus(u32),
    /// Less memory than a guest needs.
    #[error("Minimum memory limit allowed is {} MiB: a guest kernel runs in it too", GuestMemory::LEAST >> 20)]
    LittleMemory,
    /// More memory than the machine model has room for.
    #[error("{0} bytes of memory, at most 3g fit")]
    MuchMemory(u64),
    /// Given, and empty.
    #[error("the {0} is empty; leave it out for the image's own")]
    Empty(&'static str),
    /// Said twice, where it means nothing or two things.
    #[error("{what} {value} stands there twice")]
    Twice {
        /// What kind of thing.
        what: &'static str,
        /// Which.
        value: String,
    },
    /// A secret would go where something else stands.
    #[error("the secret {from} is to be the variable {name}, which the image or the user sets to a value of its own")]
    Variable {
        /// The variable.
        name: String,
        /// The secret.
        from: String,
    },
    /// An owner could replace what the broker released.
    #[error("{0} is a secret of the key broker's, and a name to inject: one place has one source")]
    TwoSources(String),
    /// The workload spec's own rules.
    #[error("the workload spec would not be valid")]
    Spec(#[from] SpecError),
}

/// Virtual processors of a guest: whole ones, as many as the machine model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vcpus(u32);

impl Vcpus {
    /// Most of them.
    pub const MOST: u32 = coffer_machine::map::MAX_VCPUS;

    /// So many, if a guest can have them.
    ///
    /// # Errors
    /// [`RequestError::Vcpus`].
    pub fn new(count: u32) -> Result<Self, RequestError> {
        if (1..=Self::MOST).contains(&count) { Ok(Self(count)) } else { Err(RequestError::Vcpus(count)) }
    }

    /// How many.
    pub fn count(self) -> u32 {
        self.0
    }
}

/// Memory of a guest in bytes, a multiple of 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestMemory(u64);

impl GuestMemory {
    /// Least: a guest kernel runs in it too.
    pub const LEAST: u64 = 128 << 20;
    /// Most: what lies below the machine model's devices.
    pub const MOST: u64 = 3 << 30;

    /// So many bytes, rounded down to whole MiB.
    ///
    /// # Errors
    /// [`RequestError::LittleMemory`] or [`RequestError::MuchMemory`].
    pub fn new(bytes: u64) -> Result<Self, RequestError> {
        match bytes >> 20 << 20 {
            bytes if bytes < Self::LEAST => Err(RequestError::LittleMemory),
            bytes if bytes > Self::MOST => Err(RequestError::MuchMemory(bytes)),
            bytes => Ok(Self(bytes)),
        }
    }

    /// How many.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// What the host may do unless the user says otherwise: in TEE mode nothing that shows the workload.
pub fn default_host_may(tee: Tee) -> HostMay {
    match tee {
        Tee::None => HostMay::all(),
        Tee::Snp | Tee::Simulated => HostMay::of(&[Act::Stop, Act::Stats]).unwrap_or(HostMay::none()),
    }
}

/// Writes the spec document.
///
/// # Errors
/// [`RequestError`].
pub fn document(
    image: &ImageDefaults,
    verity: VerityTable,
    request: &WorkloadRequest,
) -> Result<Document, RequestError> {
    check_given(request)?;
    check_once(request)?;
    let argv = argv(image, request);
    if argv.first().is_none_or(String::is_empty) {
        return Err(RequestError::NoCommand(image.reference.clone()));
    }
    let or_image = |wanted: &Option<String>, image: &str, default: &str| match wanted.as_deref().unwrap_or(image) {
        "" => default.to_string(),
        some => some.to_string(),
    };
    let env = environment(&image.env, &request.env);
    check_variables(&env, &request.secrets)?;
    let stop_signal = or_image(&request.stop_signal, &image.stop_signal, "15");
    let spec = WorkloadSpec {
        version: 1,
        tenant: request.tenant.clone(),
        tee: request.tee,
        host_may: request.host_may.unwrap_or_else(|| default_host_may(request.tee)),
        inject: request.inject.clone(),
        image: Image {
            reference: image.reference.clone(),
            config_digest: image.config_digest,
            manifest_digest: Some(image.manifest_digest),
        },
        root: Root { verity, scratch: request.scratch, read_only: request.read_only },
        process: Process {
            argv,
            env,
            cwd: or_image(&request.cwd, &image.cwd, "/"),
            user: or_image(&request.user, &image.user, "0:0"),
            stop_signal: signal_number(&stop_signal).ok_or(RequestError::Signal(stop_signal))?,
            hostname: request.hostname.clone(),
            domainname: request.domainname.clone(),
            tty: request.tty,
            stdin_open: request.stdin_open,
            init: request.init,
            rights: request.rights.clone(),
        },
        kbs: request.kbs.clone(),
        secrets: request.secrets.clone(),
        owners: request.owners.clone(),
        owner_authority: request.owner_authority.clone(),
        mounts: request.mounts.clone(),
        shm_bytes: request.shm_bytes,
        sysctls: request.sysctls.clone(),
        volumes: request.volumes.clone(),
        data_volumes: request.data_volumes.clone(),
        sealed_volumes: request.sealed_volumes.clone(),
        ingress: request.ingress.clone(),
        peers: request.peers.clone(),
        network: request.network.clone(),
        audiences: request.audiences.clone(),
        coco_routes: request.coco_routes,
        floors: request.floors.clone(),
    };
    Ok(Document::write(&spec)?)
}

/// A variable with a secret has no other value.
fn check_variables(env: &[String], secrets: &[SecretWanted]) -> Result<(), RequestError> {
    for wanted in secrets {
        let SecretTarget::Env(name) = &wanted.to else { continue };
        if env.iter().any(|entry| entry.split_once('=').is_some_and(|(set, _)| set == name.as_str())) {
            return Err(RequestError::Variable { name: name.to_string(), from: wanted.from.to_string() });
        }
    }
    Ok(())
}

/// Empty is not absent. An empty entry point is: it takes the image's away, as Docker has it.
fn check_given(request: &WorkloadRequest) -> Result<(), RequestError> {
    let given = [
        ("working directory", request.cwd.as_deref()),
        ("user", request.user.as_deref()),
        ("stop signal", request.stop_signal.as_deref()),
    ];
    match given.into_iter().find(|(_, value)| *value == Some("")) {
        Some((what, _)) => Err(RequestError::Empty(what)),
        None => Ok(()),
    }
}

/// Names and keys that the spec keeps in lists, each once: a second entry means nothing, or the contrary of the first.
fn check_once(request: &WorkloadRequest) -> Result<(), RequestError> {
    fn twice<T: PartialEq>(all: &[T]) -> Option<&T> {
        all.iter().enumerate().find(|(at, one)| all[..*at].contains(one)).map(|(_, one)| one)
    }
    let refuse = |what, value: String| Err(RequestError::Twice { what, value });
    if let Some(name) = twice(&request.inject) {
        return refuse("the name to inject", name.to_string());
    }
    if let Some(pin) = request.kbs.as_ref().and_then(|kbs| twice(&kbs.spki)) {
        return refuse("the key broker's pin", pin.to_string());
    }
    let of = |is_file: bool| {
        let targets = request.secrets.iter().map(|wanted| &wanted.to);
        let names = targets.filter_map(move |to| match to {
            SecretTarget::File(name) => is_file.then_some(name),
            SecretTarget::Env(name) => (!is_file).then_some(name),
        });
        names.collect::<Vec<_>>()
    };
    if let Some(name) = twice(&of(true)) {
        return refuse("the file for a secret", name.to_string());
    }
    if let Some(name) = twice(&of(false)) {
        return refuse("the variable for a secret", name.to_string());
    }
    if let Some(name) = request.inject.iter().find(|name| of(true).contains(name)) {
        return Err(RequestError::TwoSources(name.to_string()));
    }
    let owners: Vec<_> = request.owners.iter().map(|owner| owner.key).collect();
    match twice(&owners) {
        Some(key) => refuse("the owner with key", key.to_string()),
        None => Ok(()),
    }
}

fn argv(image: &ImageDefaults, request: &WorkloadRequest) -> Vec<String> {
    let mut argv = match &request.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![program.clone()],
        None => image.entrypoint.clone(),
    };
    if !request.args.is_empty() {
        argv.extend(request.args.iter().cloned());
    } else if request.entrypoint.is_none() {
        argv.extend(image.cmd.iter().cloned());
    }
    argv
}

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Image entries in their order, each replaced in place by the user's; the user's new names behind them.
fn environment(image: &[String], wanted: &[String]) -> Vec<String> {
    fn name(entry: &str) -> &str {
        entry.split_once('=').map_or(entry, |(name, _)| name)
    }
    let mut merged: Vec<String> = Vec::new();
    let defaults = if image.iter().any(|entry| name(entry) == "PATH") { None } else { Some(DEFAULT_PATH.to_string()) };
    for entry in defaults.iter().chain(image).chain(wanted) {
        match merged.iter_mut().find(|old| name(old) == name(entry)) {
            Some(old) => old.clone_from(entry),
            None => merged.push(entry.clone()),
        }
    }
    merged
}

/// `15`, `TERM`, `SIGTERM`, `SIGRTMIN+3`.
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let word = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = word.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    let at = SIGNALS.iter().position(|name| *name == word)?;
    i32::try_from(at + 1).ok()
}

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// `512m`, `1g`, `1048576`: bytes, with Docker's suffixes.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').filter(|rest| !rest.is_empty()).unwrap_or(&lower);
    let lower = lower.strip_suffix('i').unwrap_or(lower);
    let (digits, shift) = match lower.char_indices().last()? {
        (at, 'k') => (&lower[..at], 10),
        (at, 'm') => (&lower[..at], 20),
        (at, 'g') => (&lower[..at], 30),
        (at, 't') => (&lower[..at], 40),
        _ => (lower, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Without slashes at the end, which mean nothing.
pub fn plain_path(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => "/".into(),
        plain => plain.into(),
    }
}

/// Ports of a spec's ingress that these publish, open to whoever reaches them; each once, however many ports of the host lead there.
/// `profile`: by which the broker issues certificates of ports for plain TLS.
///
/// # Errors
/// [`RequestError::TlsProfile`].
pub fn ingress(publish: &[Publish], profile: Option<&Name>) -> Result<Vec<Ingress>, RequestError> {
    let ports: BTreeSet<(u16, How)> = publish.iter().map(|publish| (publish.guest, publish.how)).collect();
    let one = |(port, how)| {
        let clients = match how {
            How::Tcp | How::Udp | How::Owners => return None,
            How::RaTls => Ok(IngressClients::Anyone),
            How::Tls => profile.cloned().map(IngressClients::Certificate).ok_or(RequestError::TlsProfile),
        };
        Some(clients.map(|clients| Ingress { port, clients }))
    };
    ports.into_iter().filter_map(one).collect()
}

fn told(error: impl std::error::Error) -> String {
    error.to_string()
}

/// A pin given in hex.
pub fn pin(text: &str) -> Option<SpkiDigest> {
    text.strip_prefix("sha256:").unwrap_or(text).parse().ok()
}

#[cfg(test)]
pub(crate) mod tests;
