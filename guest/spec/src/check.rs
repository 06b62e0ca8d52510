//! What a spec may hold beyond the types of its fields: each rule names the field, what stands there and what may.

use core::fmt::Debug;

use crate::{
    KbsPin, Mount, Process, Scratch, SecretTarget, SecretWanted, SpecError, SvnFloor, Tee, VerityTable, Volume,
    WorkloadSpec,
};

/// Checks every field that has rules.
pub fn check(spec: &WorkloadSpec) -> Result<(), SpecError> {
    ensure(spec.version == 1, "version", &spec.version, "1")?;
    ensure(is_name(&spec.tenant), "tenant", &spec.tenant, NAME_RULE)?;
    process(&spec.process)?;
    let root = [
        "root.verity.algorithm",
        "root.verity.block_size",
        "root.verity.data_blocks",
        "root.verity.hash_start",
        "root.verity.root_hash",
        "root.verity.salt",
    ];
    verity(&spec.root.verity, root)?;
    scratch(&spec.root.scratch)?;
    secrets(spec)?;
    if let Some(bad) = spec.inject.iter().find(|name| !is_name(name)) {
        return refuse("inject", bad, NAME_RULE);
    }
    places(&spec.mounts, &spec.volumes)?;
    floors(spec)
}

fn process(process: &Process) -> Result<(), SpecError> {
    let program = process.argv.first().is_some_and(|program| !program.is_empty());
    ensure(program, "process.argv", &process.argv, "at least a program")?;
    if let Some(bad) = process.env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return refuse("process.env", bad, "NAME=value");
    }
    ensure(process.cwd.starts_with('/'), "process.cwd", &process.cwd, "an absolute path")?;
    ensure((1..=64).contains(&process.stop_signal), "process.stop_signal", &process.stop_signal, "1 to 64")
}

/// `names`: of the fields, in the order they are checked.
fn verity(verity: &VerityTable, names: [&'static str; 6]) -> Result<(), SpecError> {
    let [algorithm, block_size, data_blocks, hash_start, root_hash, salt] = names;
    ensure(verity.algorithm == "sha256", algorithm, &verity.algorithm, "sha256")?;
    ensure(verity.block_size == 4096, block_size, &verity.block_size, "4096")?;
    // What is counted in sectors of 512 bytes later must not wrap.
    let possible = (1..=1 << 40).contains(&verity.data_blocks);
    ensure(possible, data_blocks, &verity.data_blocks, "1 to 2^40 blocks")?;
    let behind = verity.hash_start >= verity.data_blocks && verity.hash_start <= 1 << 40;
    ensure(behind, hash_start, &verity.hash_start, "a block behind the data")?;
    let digest = verity.root_hash.len() == 64 && is_hex(&verity.root_hash);
    ensure(digest, root_hash, &verity.root_hash, "64 lower-case hex digits")?;
    let fits = verity.salt.len() <= 512 && verity.salt.len().is_multiple_of(2) && is_hex(&verity.salt);
    ensure(fits, salt, &verity.salt, "at most 512 lower-case hex digits")
}

fn scratch(scratch: &Scratch) -> Result<(), SpecError> {
    match scratch {
        Scratch::Tmpfs { bytes } => ensure(*bytes > 0, "root.scratch.bytes", bytes, "more than 0"),
        Scratch::Disk { bytes } => {
            let fits = (Scratch::LEAST_DISK..=Scratch::MOST_DISK).contains(bytes) && bytes.is_multiple_of(4096);
            ensure(fits, "root.scratch.bytes", bytes, "1 MiB to 64 GiB in whole blocks of 4096")
        }
    }
}

fn secrets(spec: &WorkloadSpec) -> Result<(), SpecError> {
    if spec.tee == Tee::None && (spec.kbs.is_some() || !spec.secrets.is_empty()) {
        return refuse("tee", &spec.tee, "snp or simulated, where a key broker or secrets are named");
    }
    if !spec.secrets.is_empty() && spec.kbs.is_none() {
        return refuse("kbs", &"absent", "a key broker, where secrets are named");
    }
    if let Some(KbsPin { spki, .. }) = &spec.kbs {
        ensure((1..=2).contains(&spki.len()), "kbs.spki", &spki.len(), "one or two pins")?;
    }
    for SecretWanted { from, to } in &spec.secrets {
        ensure(is_secret_path(from), "secrets.from", from, "kbs:///repository/type/tag")?;
        let (SecretTarget::File(name) | SecretTarget::Env(name)) = to;
        ensure(is_name(name), "secrets.to", name, NAME_RULE)?;
    }
    let mut targets: Vec<_> = spec.secrets.iter().map(|wanted| format!("{:?}", wanted.to)).collect();
    targets.sort_unstable();
    targets.dedup();
    ensure(targets.len() == spec.secrets.len(), "secrets.to", &"the same place twice", "each place once")
}

/// Mount points: absolute, plain, and none twice, so that their order decides nothing.
fn places(mounts: &[Mount], volumes: &[Volume]) -> Result<(), SpecError> {
    let most = volumes.len() <= Volume::MOST;
    ensure(most, "volumes", &format!("{} volumes", volumes.len()), "at most 4 volumes")?;
    for mount in mounts {
        ensure(is_mount_point(&mount.path), "mounts.path", &mount.path, MOUNT_POINT_RULE)?;
    }
    let names = [
        "volumes.verity.algorithm",
        "volumes.verity.block_size",
        "volumes.verity.data_blocks",
        "volumes.verity.hash_start",
        "volumes.verity.root_hash",
        "volumes.verity.salt",
    ];
    for volume in volumes {
        ensure(is_mount_point(&volume.path), "volumes.path", &volume.path, MOUNT_POINT_RULE)?;
        // Ours are mounted last, and a volume there would be hidden, or hide them.
        let ours = ["/proc", "/sys", "/dev", "/run/secrets", "/run/coffer"];
        let free = !ours.iter().any(|own| volume.path == *own || volume.path.starts_with(&format!("{own}/")));
        ensure(free, "volumes.path", &volume.path, "none of the guest's own folders")?;
        verity(&volume.verity, names)?;
    }
    let mut paths: Vec<_> = mounts.iter().map(|mount| &mount.path).chain(volumes.iter().map(|it| &it.path)).collect();
    paths.sort_unstable();
    match paths.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => refuse("mounts.path and volumes.path", twice[0], "each path once"),
        None => Ok(()),
    }
}

fn floors(spec: &WorkloadSpec) -> Result<(), SpecError> {
    let min_tcb = &spec.floors.seal.min_tcb;
    let tcb = min_tcb.is_empty() || min_tcb.len() == 16 && is_hex(min_tcb);
    ensure(tcb, "floors.seal.min_tcb", min_tcb, "16 lower-case hex digits or nothing")?;
    let Some(SvnFloor { id_key_digest, .. }) = &spec.floors.svn else { return Ok(()) };
    let digest = id_key_digest.len() == 96 && is_hex(id_key_digest) && id_key_digest.bytes().any(|digit| digit != b'0');
    ensure(digest, "floors.svn.id_key_digest", id_key_digest, "96 lower-case hex digits, not all zero")?;
    // Without a secure processor there is no report that could say so.
    ensure(spec.tee != Tee::None, "floors.svn", &"a floor", "none without a TEE")
}

fn ensure(holds: bool, field: &'static str, found: &dyn Debug, expected: &'static str) -> Result<(), SpecError> {
    if holds { Ok(()) } else { refuse(field, found, expected) }
}

fn refuse(field: &'static str, found: &dyn Debug, expected: &'static str) -> Result<(), SpecError> {
    Err(SpecError::Field { field, found: format!("{found:?}"), expected })
}

const NAME_RULE: &str = "1 to 64 of [A-Za-z0-9_.-], not starting with . or -";
const MOUNT_POINT_RULE: &str = "an absolute path without //, . or .. that is not /";

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_secret_path(text: &str) -> bool {
    text.strip_prefix("kbs:///").is_some_and(|rest| {
        let segments: Vec<_> = rest.split('/').collect();
        segments.len() == 3 && segments.iter().all(|segment| is_name(segment))
    })
}

fn is_mount_point(text: &str) -> bool {
    text.len() <= 4000
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0')))
}

/// One spelling per value: two specs that mean the same would otherwise have two digests.
fn is_hex(text: &str) -> bool {
    text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}
