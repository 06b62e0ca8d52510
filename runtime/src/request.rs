//! From an image's defaults and a user's wishes to the workload spec, by Docker's rules.
//!
//! Pure: equal wishes give equal specs on any machine, so that `coffer measure` predicts what `coffer run` launches.
//! Nothing in a spec depends on the box, its id or its name.

use coffer_spec::{
    Act, ConfigDigest, Document, Floors, HostMay, Image, KbsPin, Mount, Name, Owner, Process, Root, Scratch,
    SecretTarget, SecretWanted, SpecError, Tee, Tenant, VerityTable, Volume, WorkloadSpec,
};
use coffer_verifier::abi::SpkiDigest;

/// What the image says about its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDefaults {
    /// Reference as the user wrote it, completed with registry and tag.
    pub reference: String,
    /// Of the configuration.
    pub config_digest: ConfigDigest,
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

/// What the user wants different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
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
    /// Host name inside.
    pub hostname: Name,
    /// tmpfs mounts.
    pub mounts: Vec<Mount>,
    /// Snapshots of host folders and files.
    pub volumes: Vec<Volume>,
    /// The writable layer.
    pub scratch: Scratch,
    /// Replaces the default of the mode.
    pub host_may: Option<HostMay>,
    /// Names that may be injected.
    pub inject: Vec<Name>,
    /// Key broker.
    pub kbs: Option<KbsPin>,
    /// Secrets to fetch.
    pub secrets: Vec<SecretWanted>,
    /// Owners.
    pub owners: Vec<Owner>,
    /// Lower bounds.
    pub floors: Floors,
}

/// Why wishes make no spec.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Neither image nor user names a program.
    #[error("no command specified, and image {0} has neither ENTRYPOINT nor CMD")]
    NoCommand(String),
    /// Not a signal.
    #[error("{0:?} is no signal")]
    Signal(String),
    /// The workload spec's own rules.
    #[error("the workload spec would not be valid")]
    Spec(#[from] SpecError),
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
pub fn document(image: &ImageDefaults, verity: VerityTable, wishes: &Wishes) -> Result<Document, RequestError> {
    let argv = argv(image, wishes);
    if argv.first().is_none_or(String::is_empty) {
        return Err(RequestError::NoCommand(image.reference.clone()));
    }
    let or_image = |wish: &Option<String>, image: &str, default: &str| match wish.as_deref().unwrap_or(image) {
        "" => default.to_string(),
        some => some.to_string(),
    };
    let stop_signal = or_image(&wishes.stop_signal, &image.stop_signal, "15");
    let spec = WorkloadSpec {
        version: 1,
        tenant: wishes.tenant.clone(),
        tee: wishes.tee,
        host_may: wishes.host_may.unwrap_or_else(|| default_host_may(wishes.tee)),
        inject: wishes.inject.clone(),
        image: Image { reference: image.reference.clone(), config_digest: image.config_digest },
        root: Root { verity, scratch: wishes.scratch },
        process: Process {
            argv,
            env: environment(&image.env, &wishes.env),
            cwd: or_image(&wishes.cwd, &image.cwd, "/"),
            user: or_image(&wishes.user, &image.user, "0:0"),
            stop_signal: signal_number(&stop_signal).ok_or(RequestError::Signal(stop_signal))?,
            hostname: wishes.hostname.clone(),
        },
        kbs: wishes.kbs.clone(),
        secrets: wishes.secrets.clone(),
        owners: wishes.owners.clone(),
        mounts: wishes.mounts.clone(),
        volumes: wishes.volumes.clone(),
        audiences: Vec::new(),
        floors: wishes.floors.clone(),
    };
    Ok(Document::write(&spec)?)
}

fn argv(image: &ImageDefaults, wishes: &Wishes) -> Vec<String> {
    let mut argv = match &wishes.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![program.clone()],
        None => image.entrypoint.clone(),
    };
    if !wishes.args.is_empty() {
        argv.extend(wishes.args.iter().cloned());
    } else if wishes.entrypoint.is_none() {
        argv.extend(image.cmd.iter().cloned());
    }
    argv
}

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Image entries in their order, each replaced in place by the user's; the user's new names behind them.
fn environment(image: &[String], wishes: &[String]) -> Vec<String> {
    fn name(entry: &str) -> &str {
        entry.split_once('=').map_or(entry, |(name, _)| name)
    }
    let mut merged: Vec<String> = Vec::new();
    let defaults = if image.iter().any(|entry| name(entry) == "PATH") { None } else { Some(DEFAULT_PATH.to_string()) };
    for entry in defaults.iter().chain(image).chain(wishes) {
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

/// `kbs:///repository/type/tag=NAME`, or `=env:NAME`.
pub fn secret_wanted(text: &str) -> Option<SecretWanted> {
    let (from, to) = text.rsplit_once('=')?;
    let to = match to.strip_prefix("env:") {
        Some(name) => SecretTarget::Env(name.parse().ok()?),
        None => SecretTarget::File(to.parse().ok()?),
    };
    Some(SecretWanted { from: from.parse().ok()?, to })
}

/// `/path`, or `/path:size=64m`.
pub fn tmpfs(text: &str) -> Option<Mount> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut tmpfs_bytes = 64 << 20;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => tmpfs_bytes = bytes(size)?,
            _ if matches!(option, "rw" | "nosuid" | "nodev" | "noexec") => {}
            _ => return None,
        }
    }
    path.starts_with('/').then(|| Mount { path: plain_path(path), tmpfs_bytes })
}

/// Without slashes at the end, which mean nothing.
pub fn plain_path(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => "/".into(),
        plain => plain.into(),
    }
}

/// A pin given in hex.
pub fn pin(text: &str) -> Option<SpkiDigest> {
    text.strip_prefix("sha256:").unwrap_or(text).parse().ok()
}

#[cfg(test)]
pub(crate) mod tests;
