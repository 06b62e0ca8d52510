//! The workload's root: dm-verity under EROFS, and over it a writable layer in guest memory.

use std::{fs::File, io::Read};

use coffer_spec::{Root, VerityTable};
use rustix::mount::MountFlags;

use super::{
    devices::Disk,
    mounts::{OWN, at},
};
use crate::{
    failure::{Code, Failure, OrFail},
    sys::dm::{DeviceMapper, Mapped},
};

/// Where the workload's root is mounted.
pub const ROOT: &str = "/run/coffer/root";

/// Sectors of a block device, in bytes.
const SECTOR: u64 = 512;

/// What dm-verity does with a block that is not the measured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCorruption {
    /// The read fails.
    Fail,
    /// The guest ends.
    Panic,
}

/// The dm-verity table line. Everything comes from the spec; the superblock on the disk is never read.
///
/// Source: Linux Documentation/admin-guide/device-mapper/verity.rst.
pub fn verity_line(verity: &VerityTable, device: &str, options: &[&str]) -> String {
    let VerityTable { algorithm, block_size, data_blocks, hash_start, salt, root_hash } = verity;
    let salt = if salt.is_empty() { "-" } else { salt };
    let mut line = format!(
        "1 {device} {device} {block_size} {block_size} {data_blocks} {hash_start} {algorithm} {root_hash} {salt}"
    );
    if !options.is_empty() {
        line = format!("{line} {} {}", options.len(), options.join(" "));
    }
    line
}

/// Mounts the root at [`ROOT`].
///
/// # Errors
/// `root-corrupt` if the disk does not have the spec's root hash, else `internal`.
pub fn mount_root(root: &Root, disk: &Disk, on_corruption: OnCorruption) -> Result<(), Failure> {
    let mapper = DeviceMapper::open().or_fail(Code::Internal, "open the device mapper")?;
    let mapped = open_verity(&mapper, &root.verity, disk, on_corruption)?;
    let lower = format!("{OWN}/lower");
    let scratch = format!("{OWN}/scratch");
    let node = mapped.node.to_string_lossy();
    at(&node, &lower, "erofs", MountFlags::RDONLY | MountFlags::NODEV, "")
        .map_err(|failure| Failure::new(Code::RootCorrupt, failure.detail))?;
    at("scratch", &scratch, "tmpfs", MountFlags::NODEV, &format!("mode=755,size={}", root.scratch_bytes))?;
    for name in ["upper", "work"] {
        std::fs::create_dir(format!("{scratch}/{name}")).or_fail(Code::Internal, name)?;
    }
    let layers = format!("lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work");
    at("overlay", ROOT, "overlay", MountFlags::NODEV, &layers)
}

fn open_verity(
    mapper: &DeviceMapper,
    verity: &VerityTable,
    disk: &Disk,
    on_corruption: OnCorruption,
) -> Result<Mapped, Failure> {
    let sectors = verity.data_blocks * (u64::from(verity.block_size) / SECTOR);
    let create = |name: &str, options: &[&str]| {
        mapper.create(name, sectors, "verity", &verity_line(verity, &disk.numbers, options))
    };
    // A wrong disk is said in words first; after this, a wrong block ends a TEE guest at once.
    let trial = create("coffer-trial", &[]).or_fail(Code::RootCorrupt, "set up dm-verity")?;
    let mut first = vec![0; verity.block_size as usize];
    let read = File::open(&trial.node).and_then(|mut file| file.read_exact(&mut first));
    let removed = mapper.remove(&trial);
    read.or_fail(Code::RootCorrupt, "root disk does not match the root hash of the spec")?;
    removed.or_fail(Code::Internal, "remove the trial device")?;
    match on_corruption {
        OnCorruption::Fail => create("coffer-root", &[]),
        // Kernels before 6.13 know nothing of panic_on_error.
        OnCorruption::Panic => create("coffer-root", &["panic_on_corruption", "panic_on_error"])
            .or_else(|_| create("coffer-root", &["panic_on_corruption"])),
    }
    .or_fail(Code::Internal, "set up dm-verity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_line_is_the_one_the_kernel_documents() {
        let verity = VerityTable {
            algorithm: "sha256".into(),
            block_size: 4096,
            data_blocks: 100,
            hash_start: 101,
            salt: String::new(),
            root_hash: "ab".into(),
        };
        assert_eq!(verity_line(&verity, "254:16", &[]), "1 254:16 254:16 4096 4096 100 101 sha256 ab -");
        let salted = VerityTable { salt: "cd".into(), ..verity };
        assert_eq!(
            verity_line(&salted, "254:16", &["panic_on_corruption"]),
            "1 254:16 254:16 4096 4096 100 101 sha256 ab cd 1 panic_on_corruption"
        );
    }
}
