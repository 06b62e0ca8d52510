//! The scratch disk: room for the writable layer beyond guest memory, on a disk of the host's that is never believed.
//!
//! ```text
//! writable layer (tmpfs) ─► swap ─► dm-crypt: AES-XTS and HMAC-SHA-256, random IVs ─► dm-integrity ─► the host's disk: ciphertext
//!                                                                                     └─► RAM disk: tags and IVs
//! ```
//!
//! The layer stays a tmpfs; what memory does not hold goes to swap. So no file system, superblock or other structure is
//! ever parsed from the host's disk: it holds ciphertext blocks and nothing else. The tags that authenticate them stay in
//! guest memory, so a block the host changes, moves or puts back in an earlier version does not verify and reading it is
//! an error.
//! The key is made here, lives in the kernel, and goes with the guest.
//! Source: Linux Documentation/admin-guide/device-mapper/{dm-crypt,dm-integrity}.rst.

use std::{fs::OpenOptions, io, os::unix::fs::FileExt, path::Path};

use coffer_machine::disks;
use coffer_spec::{Scratch, SealedVolume, WorkloadSpec};
use zeroize::Zeroizing;

use super::devices::Disk;
use crate::{
    failure::{Code, Failure, OrFail},
    sys::{
        dm::{Access, DeviceMapper, Target},
        swap,
    },
};

/// A block: of swap, of encryption, of authentication.
const BLOCK: u64 = Scratch::BLOCK;
const _: () = assert!(BLOCK == swap::PAGE as u64);
const TAG: u64 = Scratch::TAG;
const SECTOR: u64 = 512;
/// 32 bytes for HMAC-SHA-256, 64 for AES-256-XTS.
const KEY: usize = 32 + 64;
/// The first RAM disk.
const TAGS_NODE: &str = "/dev/ram0";
const TAGS_NUMBERS: &str = "1:0";

/// Parameters of a kernel module, by its file's name: the first RAM disk is for this disk's tags, each other one for those of a
/// sealed volume. A kernel with brd built in brings RAM disks that are large enough for most; only what is written of one takes
/// memory.
pub fn module_parameters(spec: &WorkloadSpec, module: &str) -> String {
    if !module.ends_with("-brd.ko") {
        return String::new();
    }
    let sealed = spec.sealed_volumes.iter().map(SealedVolume::tag_bytes);
    let most = sealed.fold(spec.root.scratch.tag_bytes(), u64::max);
    format!("rd_nr={} max_part=1 rd_size={}", 1 + spec.sealed_volumes.len(), most >> 10)
}

/// Turns the disk into swap of `bytes` bytes.
///
/// # Errors
/// `internal`: too little memory for the tags, a disk smaller than the spec says, or the kernel's refusal.
pub fn swap_to(mapper: &DeviceMapper, disk: &Disk, bytes: u64) -> Result<(), Failure> {
    let memory = rustix::system::sysinfo();
    let memory = memory.totalram as u64 * u64::from(memory.mem_unit);
    let tags = Scratch::Disk { bytes }.tag_bytes();
    if tags > memory / 4 {
        let detail =
            format!("{tags} bytes of tags for the scratch disk, more than a quarter of {memory} bytes of memory");
        return Err(Failure::new(Code::Internal, detail));
    }
    // Memory for tags must be there before the kernel needs it in order to free memory.
    fill(Path::new(TAGS_NODE), tags).or_fail(Code::Internal, "set memory aside for tags")?;
    let sectors = bytes / SECTOR;
    let create = |name: &str, kind, parameters: &str| {
        mapper.create(name, Access::ReadWrite, &Target { kind, sectors, parameters }).or_fail(Code::Internal, name)
    };
    let integrity = create(&format!("{}-tags", disks::SCRATCH), "integrity", &integrity_line(&disk.numbers))?;
    let crypt = create(disks::SCRATCH, "crypt", &crypt_line(&integrity.numbers)?)?;

    let pages = u32::try_from(bytes / BLOCK).or_fail(Code::Internal, "count the blocks of the scratch disk")?;
    let written = OpenOptions::new().write(true).open(&crypt.node).and_then(|device| {
        device.write_all_at(&swap::header(pages), 0)?;
        device.sync_all()
    });
    written.or_fail(Code::Internal, "write to the scratch disk")?;
    swap::swap_on(&crypt.node).or_fail(Code::Internal, "swap to the scratch disk")
}

/// `D`: what a crash would leave behind is of no interest, so nothing is written twice.
fn integrity_line(device: &str) -> String {
    format!("{device} 0 {TAG} D 3 block_size:{BLOCK} journal_sectors:8 meta_device:{TAGS_NUMBERS}")
}

/// With a new key. getrandom(2) waits until the kernel has randomness of its own.
fn crypt_line(device: &str) -> Result<Zeroizing<String>, Failure> {
    let mut key = Zeroizing::new([0; KEY]);
    getrandom::fill(&mut key[..]).or_fail(Code::Internal, "make the key of the scratch disk")?;
    let key = Zeroizing::new(hex::encode(&key[..]));
    Ok(Zeroizing::new(format!(
        "capi:authenc(hmac(sha256),xts(aes))-random {} 0 {device} 0 2 integrity:{TAG}:aead sector_size:{BLOCK}",
        key.as_str()
    )))
}

/// Writes the first `bytes` bytes of a RAM disk, which takes memory when it is written.
///
/// # Errors
/// Of the kernel.
pub fn fill(node: &Path, bytes: u64) -> io::Result<()> {
    let device = OpenOptions::new().write(true).open(node)?;
    let zeros = vec![0; 256 << 10];
    let mut at = 0;
    while at < bytes {
        let count = usize::try_from(bytes - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        device.write_all_at(&zeros[..count], at)?;
        at += count as u64;
    }
    device.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_take_about_one_part_in_85() {
        for bytes in [1 << 20, 1 << 30, coffer_spec::Scratch::MOST_DISK] {
            let tags = Scratch::Disk { bytes }.tag_bytes();
            assert!(tags >= bytes / 4096 * 48 + (136 << 10) + (64 << 10), "{bytes}");
            assert!(tags <= bytes / 85 + (1 << 20), "{bytes}");
        }
        let mut spec = coffer_spec::sample::workload(coffer_spec::Tee::Simulated);
        spec.root.scratch = Scratch::Disk { bytes: 1 << 30 };
        assert_eq!(module_parameters(&spec, "13-brd.ko"), "rd_nr=1 max_part=1 rd_size=12800");
        assert_eq!(module_parameters(&spec, "12-dm-crypt.ko"), "");
        let volume = |name: &str, bytes| SealedVolume {
            name: coffer_spec::sample::name(name),
            path: format!("/{name}"),
            bytes,
            policy: coffer_spec::VolumePolicy::Workload,
            unclean: coffer_spec::Unclean::Refuse,
            rollback_protected: true,
            read_only: false,
            begins_empty: false,
        };
        spec.sealed_volumes = vec![volume("a", 16 << 20), volume("b", 2 << 30)];
        assert_eq!(module_parameters(&spec, "13-brd.ko"), "rd_nr=3 max_part=1 rd_size=29696");
    }

    #[test]
    fn the_tables_are_those_the_kernel_documents_and_no_key_is_used_twice() {
        assert_eq!(integrity_line("254:32"), "254:32 0 48 D 3 block_size:4096 journal_sectors:8 meta_device:1:0");
        let (one, two) = (crypt_line("253:1").unwrap(), crypt_line("253:1").unwrap());
        assert_ne!(*one, *two);
        let words: Vec<_> = one.split(' ').collect();
        assert_eq!((words[0], words[1].len()), ("capi:authenc(hmac(sha256),xts(aes))-random", 192));
        assert_eq!(words[2..], ["0", "253:1", "0", "2", "integrity:48:aead", "sector_size:4096"]);
    }
}
