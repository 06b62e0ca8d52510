//! dm-verity: a disk is what the spec's table says, block by block, or it is not read.

use std::{fs::File, io::Read};

use coffer_spec::VerityTable;

use super::devices::Disk;
use crate::{
    failure::{Code, Failure, OrFail},
    sys::dm::{Access, DeviceMapper, Mapped, Target},
};

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

/// Maps a disk under dm-verity as `name`. `damaged`: the code for a disk that is not the table's.
///
/// # Errors
/// `damaged` if already its first block is another, else `internal`.
pub fn open_verity(
    mapper: &DeviceMapper,
    name: &str,
    verity: &VerityTable,
    disk: &Disk,
    on_corruption: OnCorruption,
    damaged: Code,
) -> Result<Mapped, Failure> {
    let sectors = verity.data_blocks * (u64::from(verity.block_size) / SECTOR);
    let create = |name: &str, options: &[&str]| {
        let line = verity_line(verity, &disk.numbers, options);
        mapper.create(name, Access::ReadOnly, &Target { kind: "verity", sectors, parameters: &line })
    };
    // A wrong disk is said in words first; after this, a wrong block ends a TEE guest at once.
    let trial = create(&format!("{name}-trial"), &[]).or_fail(damaged, "set up dm-verity")?;
    let mut first = vec![0; verity.block_size as usize];
    let read = File::open(&trial.node).and_then(|mut file| file.read_exact(&mut first));
    let removed = mapper.remove(&trial);
    read.or_fail(damaged, &format!("disk {name} does not match the root hash of the spec"))?;
    removed.or_fail(Code::Internal, "remove the trial device")?;
    match on_corruption {
        OnCorruption::Fail => create(name, &[]),
        // Kernels before 6.13 know nothing of panic_on_error.
        OnCorruption::Panic => {
            create(name, &["panic_on_corruption", "panic_on_error"]).or_else(|_| create(name, &["panic_on_corruption"]))
        }
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
