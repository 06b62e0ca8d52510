//! The members of `workload.toml`. Everything that changes what runs stands here; unknown keys are refused.

use coffer_verifier::abi::SpkiDigest;
use serde::{Deserialize, Serialize};

/// Which secure processor the guest must find. There is no fallback from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tee {
    /// AMD SEV-SNP hardware.
    Snp,
    /// The simulator, which proves nothing to whoever does not list its anchor.
    Simulated,
    /// A plain microVM: no evidence, no secrets from a key broker, the host may do everything.
    None,
}

/// What an owner may do over RA-TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Run commands inside.
    Exec,
    /// Inject named values.
    Inject,
    /// Seal, and get unsealed bytes back.
    Unseal,
    /// Read the workload's output.
    Logs,
}

/// What the host may do on its plain ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostMay {
    /// Ask for an orderly stop.
    Stop,
    /// Coarse statistics.
    Stats,
    /// Read the workload's output.
    Logs,
    /// Run commands inside: gives the host everything the workload has.
    Exec,
}

/// The whole spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Version of this format; 1.
    pub version: u32,
    /// Tenant at the key broker.
    pub tenant: String,
    /// Secure processor demanded.
    pub tee: Tee,
    /// What the host may do; in TEE mode `stop` and `stats` unless said otherwise.
    pub host_may: Vec<HostMay>,
    /// Names that owners may inject at `/run/secrets/NAME`.
    #[serde(default)]
    pub inject: Vec<String>,
    /// Image the root file system was made from.
    pub image: Image,
    /// Root file system.
    pub root: Root,
    /// What runs.
    pub process: Process,
    /// Key broker; without one no secret is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kbs: Option<KbsPin>,
    /// Secrets to fetch before the workload starts; the only paths the agent will ask for.
    #[serde(default)]
    pub secrets: Vec<SecretWanted>,
    /// Owners by public key.
    #[serde(default)]
    pub owners: Vec<Owner>,
    /// Mounts of the workload beside its root.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Audiences the workload may have tokens for.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Lower bounds.
    #[serde(default)]
    pub floors: Floors,
}

/// Image identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Reference as the owner wrote it, with registry and tag or digest.
    pub reference: String,
    /// `sha256:…` of the image configuration.
    pub config_digest: String,
}

/// Root file system: an EROFS image under dm-verity, with a writable layer in guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Verity table; the on-disk superblock is never read.
    pub verity: VerityTable,
    /// Size limit of the writable tmpfs layer in bytes.
    pub scratch_bytes: u64,
}

/// Everything dm-verity needs, so that nothing on the disk is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerityTable {
    /// Hash algorithm; `sha256`.
    pub algorithm: String,
    /// Data and hash block size in bytes; 4096.
    pub block_size: u32,
    /// Data blocks.
    pub data_blocks: u64,
    /// Block at which the hash tree starts, on the same device, in blocks of `block_size`.
    pub hash_start: u64,
    /// Salt, hex, may be empty.
    pub salt: String,
    /// Root hash, hex.
    pub root_hash: String,
}

/// What runs, as OCI says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Arguments; the first is the program.
    pub argv: Vec<String>,
    /// NAME=value.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// `uid[:gid]` or names of the image's passwd.
    pub user: String,
    /// Signal number for an orderly stop; 15 is SIGTERM.
    pub stop_signal: i32,
    /// Host name seen by the workload.
    pub hostname: String,
}

/// Where the key broker is, and which keys it may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KbsPin {
    /// `host:port` the host's blind relay connects to.
    pub address: String,
    /// SHA-256 of the broker's SubjectPublicKeyInfo: current, and optionally next.
    pub spki: Vec<SpkiDigest>,
}

/// One secret the guest fetches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretWanted {
    /// `kbs:///repository/type/tag`.
    pub from: String,
    /// Where it goes.
    pub to: SecretTarget,
}

/// Where a secret goes inside the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SecretTarget {
    /// `/run/secrets/NAME`, mode 0400, owned by the workload's user.
    File(String),
    /// Environment variable of the workload.
    Env(String),
}

/// One owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// SHA-256 of the owner's SubjectPublicKeyInfo.
    pub key: SpkiDigest,
    /// What this owner may do.
    pub may: Vec<Capability>,
}

/// A tmpfs for the workload; host file systems do not exist in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path.
    pub path: String,
    /// Size limit in bytes.
    pub tmpfs_bytes: u64,
}

/// Lower bounds the guest insists on, whatever the host's clock says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floors {
    /// No time before this is believed; seconds since 1970.
    #[serde(default)]
    pub not_before: u64,
    /// Sealing.
    #[serde(default)]
    pub seal: SealFloors,
}

/// Lower bounds of sealing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealFloors {
    /// TCB_VERSION below which nothing is unsealed, 16 hex digits of the little-endian field; empty: none.
    #[serde(default)]
    pub min_tcb: String,
}
