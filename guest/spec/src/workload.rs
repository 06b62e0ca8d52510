//! The members of `workload.toml`. Everything that changes what runs stands here; unknown keys are refused.

use coffer_verifier::abi::{KeyDigest, SpkiDigest};
use serde::{Deserialize, Serialize};

use crate::{
    ConfigDigest, DataVolume, Domain, FolderMode, HostMay, Ingress, ManifestDigest, Name, Network, Owner,
    OwnerAuthority, Peer, Rights, Scratch, SealedVolume, SecretPath, SecretWanted, Sysctl, Tenant, digest::lower_hex,
};

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

/// Loopback port of [`WorkloadSpec::coco_routes`].
pub const COCO_PORT: u16 = 8006;

/// The whole spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Version of this format; 1.
    pub version: u32,
    /// Tenant at the key broker.
    pub tenant: Tenant,
    /// Secure processor demanded.
    pub tee: Tee,
    /// What the host may do; in TEE mode `stop` and `stats` unless said otherwise.
    pub host_may: HostMay,
    /// Names that owners may inject at `/run/secrets/NAME`.
    #[serde(default)]
    pub inject: Vec<Name>,
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
    /// Whose lists may change who the owners are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_authority: Option<OwnerAuthority>,
    /// Mounts of the workload beside its root.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Size limit of the workload's `/dev/shm` in bytes.
    #[serde(default = "Mount::shm", skip_serializing_if = "Mount::is_usual_shm")]
    pub shm_bytes: u64,
    /// Settings of the kernel, each once; at most [`Sysctl::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<Sysctl>,
    /// Read-only snapshots of host files and folders, in the order of their disks; at most [`Volume::MOST`].
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// What outlives the guest, in the order of its disks; none with a TEE. With `volumes` at most [`Volume::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_volumes: Vec<DataVolume>,
    /// What outlives a guest with a TEE, in the order of its disks. With `volumes` at most [`Volume::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sealed_volumes: Vec<SealedVolume>,
    /// Ports of the workload that are reached from outside; at most [`Ingress::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Ingress>,
    /// Other guests that the workload talks to; at most [`Peer::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    /// Its network card; without one it has its own loopback alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Audiences the workload may have tokens for.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Whether the agent answers on the loopback routes of Confidential Containers' guests too.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub coco_routes: bool,
    /// Lower bounds.
    #[serde(default)]
    pub floors: Floors,
}

impl WorkloadSpec {
    /// Every path that its guest asks the key broker for: its secrets, and the list of its owners.
    pub fn asks_for(&self) -> impl Iterator<Item = &SecretPath> {
        let kept = self.owner_authority.iter().filter_map(|authority| authority.kept.as_ref());
        self.secrets.iter().map(|secret| &secret.from).chain(kept)
    }
}

/// Image identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Reference as the owner wrote it, with registry and tag or digest.
    pub reference: String,
    /// Of the image configuration.
    pub config_digest: ConfigDigest,
    /// Of the image manifest it was made from, which says where to find it again. A record alone: what runs is the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<ManifestDigest>,
}

/// Root file system: an EROFS image under dm-verity, with a writable layer that goes with the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Verity table; the on-disk superblock is never read.
    pub verity: VerityTable,
    /// Where what the workload writes is kept.
    pub scratch: Scratch,
    /// The workload cannot write to it, whatever user it is: the writable layer is the guest's own, for the few files it puts there.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub read_only: bool,
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
    /// Host name seen by the workload; Linux takes 64 bytes.
    pub hostname: Name,
    /// Its NIS domain, which is also what makes its host name a whole one in `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<Domain>,
    /// It has a terminal, which is its standard output and error too, and its input where that is open.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub tty: bool,
    /// It has a standard input, for whoever attaches; else that is at its end.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub stdin_open: bool,
    /// A program of the guest's own is the first one: it waits for those whose parents went, and passes signals on.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub init: bool,
    /// What it may do less, or have more of, than any program of a box.
    #[serde(default, skip_serializing_if = "Rights::are_usual")]
    pub rights: Rights,
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

/// A tmpfs for the workload; host file systems do not exist in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path.
    pub path: String,
    /// Size limit in bytes.
    pub tmpfs_bytes: u64,
    /// No program starts from it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub noexec: bool,
    /// Nothing is written to it: it is an empty folder, and hides what the image has there.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub read_only: bool,
    /// Permissions of the folder.
    #[serde(default, skip_serializing_if = "FolderMode::is_usual")]
    pub mode: FolderMode,
    /// User whose folder it is.
    #[serde(default, skip_serializing_if = "is_root")]
    pub uid: u32,
    /// Group whose folder it is.
    #[serde(default, skip_serializing_if = "is_root")]
    pub gid: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_root(id: &u32) -> bool {
    *id == 0
}

impl Mount {
    /// A writable folder of so many bytes, in which everybody makes files and starts programs.
    pub fn new(path: impl Into<String>, tmpfs_bytes: u64) -> Self {
        let mode = FolderMode::default();
        Self { path: path.into(), tmpfs_bytes, noexec: false, read_only: false, mode, uid: 0, gid: 0 }
    }

    /// Bytes of a `/dev/shm` of which nobody says how large it may be.
    pub const SHM: u64 = 64 << 20;

    fn shm() -> u64 {
        Self::SHM
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_usual_shm(bytes: &u64) -> bool {
        *bytes == Self::SHM
    }

    /// Folders that the guest mounts itself, and last where two meet. Nothing else goes there.
    pub const OWN: [&str; 5] = ["/proc", "/sys", "/dev", "/run/secrets", "/run/coffer"];
}

/// A snapshot of a file or folder: an EROFS image under dm-verity on a disk of its own, mounted read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Absolute path in the workload's root.
    pub path: String,
    /// What is mounted there.
    pub kind: VolumeKind,
    /// Verity table; the on-disk superblock is never read.
    pub verity: VerityTable,
}

impl Volume {
    /// Most volumes of one guest: what the machine model has disks for.
    pub const MOST: usize = coffer_machine::disks::MOST_VOLUMES;
    /// Name of the one entry of the image where the volume is a file.
    pub const FILE: &str = "file";
}

/// Which part of a volume's image is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKind {
    /// Its root.
    Folder,
    /// Its entry [`Volume::FILE`].
    File,
}

/// Lower bounds the guest insists on, whatever the host's clock says. Each is enforced inside the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floors {
    /// No time before this is believed; seconds since 1970.
    #[serde(default)]
    pub not_before: u64,
    /// Sealing.
    #[serde(default)]
    pub seal: SealFloors,
    /// Security version, as somebody in particular signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svn: Option<SvnFloor>,
}

/// The guest's security version (GUEST_SVN) comes from the ID block, and any host can sign one with a key of its own: the
/// number means something only together with the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SvnFloor {
    /// ID_KEY_DIGEST the guest's own report must have; zero means no ID block, and names nobody.
    #[serde(deserialize_with = "lower_hex")]
    pub id_key_digest: KeyDigest,
    /// Least GUEST_SVN.
    pub min: u32,
}

/// Lower bounds of sealing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealFloors {
    /// TCB_VERSION below which nothing is unsealed, 16 hex digits of the little-endian field; empty: none.
    #[serde(default)]
    pub min_tcb: String,
}
