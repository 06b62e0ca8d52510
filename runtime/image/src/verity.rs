//! dm-verity hash trees, format version 1: `H(salt ‖ block)`, SHA-256, 4096-byte blocks.
//!
//! The tree is written level by level into the file, never held in memory.
//! Source: Linux 6.12, drivers/md/dm-verity-target.c (`verity_ctr`, `verity_hash_at_level`);
//! Documentation/admin-guide/device-mapper/verity.rst.

use crate::holes::is_zero;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Data and hash block size in bytes.
pub const BLOCK_SIZE: u32 = 4096;

/// Digests in one hash block.
const FAN_OUT: u64 = BLOCK_SIZE as u64 / 32;

/// Everything dm-verity needs to check an image; no superblock is written, nothing on the disk is believed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerityTable {
    /// Hash algorithm: `sha256`.
    pub algorithm: String,
    /// Data and hash block size in bytes: 4096.
    pub block_size: u32,
    /// Data blocks.
    pub data_blocks: u64,
    /// Block at which the hash tree starts, in the same file.
    pub hash_start: u64,
    /// Salt, hex.
    pub salt: String,
    /// Root hash, 64 hex digits.
    pub root_hash: String,
}

/// Appends the hash tree of everything in `file` behind its data.
///
/// `file`: open for reading and writing, a multiple of 4096 bytes long and not empty.
///
/// # Errors
/// `InvalidInput` for any other length; otherwise what reading and writing fail with.
pub fn append(file: &File, salt: &[u8]) -> io::Result<VerityTable> {
    let length = file.metadata()?.len();
    let block = u64::from(BLOCK_SIZE);
    if length == 0 || length % block != 0 || salt.len() > 256 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{length} bytes and {} bytes of salt: want whole 4096-byte blocks and at most 256", salt.len()),
        ));
    }
    let data_blocks = length / block;
    let hash_start = data_blocks;

    // Levels from the leaves up, each in whole hash blocks. On the disk the top level comes first, so every level's place
    // is known before it is computed, and none is held in memory.
    let (mut below, mut blocks, mut end) = (0, data_blocks, data_blocks + tree_blocks(data_blocks));
    while blocks > 1 {
        let level = blocks.div_ceil(FAN_OUT);
        end -= level;
        hash_level(file, below, blocks, salt, end)?;
        (below, blocks) = (end, level);
    }
    let mut top = [0; BLOCK_SIZE as usize];
    file.read_exact_at(&mut top, below * block)?;
    Ok(VerityTable {
        algorithm: "sha256".to_owned(),
        block_size: BLOCK_SIZE,
        data_blocks,
        hash_start,
        salt: hex::encode(salt),
        root_hash: hex::encode(hash(salt, &top)),
    })
}

/// Blocks a tree over `data_blocks` takes.
pub fn tree_blocks(data_blocks: u64) -> u64 {
    let (mut total, mut level) = (0, data_blocks);
    while level > 1 {
        level = level.div_ceil(FAN_OUT);
        total += level;
    }
    total
}

fn hash(salt: &[u8], block: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(block).finalize().into()
}

/// Writes the digests of `count` blocks from block `first` on to block `to` and behind it, zeros to the end of the last
/// block; the work is shared between the machine's threads.
fn hash_level(file: &File, first: u64, count: u64, salt: &[u8], to: u64) -> io::Result<()> {
    /// Blocks read at once: their digests fill whole blocks.
    const AT_ONCE: u64 = 2 * FAN_OUT;
    let block = u64::from(BLOCK_SIZE);
    // Holes: equal blocks have equal digests.
    let zeros = hash(salt, &[0; BLOCK_SIZE as usize]);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8)) as u64;
    let share = count.div_ceil(threads).next_multiple_of(AT_ONCE);
    let of = |block: &[u8]| if is_zero(block) { zeros } else { hash(salt, block) };
    let hash_range = |from: u64, end: u64| -> io::Result<()> {
        let mut buffer = vec![0; (AT_ONCE * block) as usize];
        let mut at = from;
        while at < end {
            let some = AT_ONCE.min(end - at);
            let bytes = &mut buffer[..(some * block) as usize];
            file.read_exact_at(bytes, (first + at) * block)?;
            let mut digests: Vec<u8> = bytes.chunks(BLOCK_SIZE as usize).flat_map(of).collect();
            digests.resize(digests.len().next_multiple_of(BLOCK_SIZE as usize), 0);
            file.write_all_at(&digests, to * block + at * 32)?;
            at += some;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|thread| (thread * share, ((thread + 1) * share).min(count)))
            .filter(|(from, end)| from < end)
            .map(|(from, end)| scope.spawn(move || hash_range(from, end)))
            .collect();
        parts.into_iter().try_for_each(|part| part.join().map_err(|_| io::Error::other("a hashing thread panicked"))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_part_of_a_block_and_an_empty_file() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(append(&file, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        file.set_len(4097).unwrap();
        assert_eq!(append(&file, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn one_block_is_its_own_root() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let table = append(&file, b"salt").unwrap();
        assert_eq!(table.root_hash, hex::encode(hash(b"salt", &[0; 4096])));
        assert_eq!(file.metadata().unwrap().len(), 4096);
    }

    #[test]
    fn the_tree_is_as_long_as_predicted() {
        for blocks in [1, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(blocks * 4096).unwrap();
            let table = append(&file, &[]).unwrap();
            assert_eq!(file.metadata().unwrap().len(), (blocks + tree_blocks(blocks)) * 4096, "{blocks} blocks");
            assert_eq!((table.data_blocks, table.hash_start), (blocks, blocks));
        }
    }

    #[test]
    fn any_changed_block_changes_the_root() {
        let root = |byte: Option<u64>| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(300 * 4096).unwrap();
            if let Some(at) = byte {
                file.write_all_at(&[1], at).unwrap();
            }
            append(&file, &[7; 32]).unwrap().root_hash
        };
        let clean = root(None);
        for at in [0, 4095, 4096, 150 * 4096, 300 * 4096 - 1] {
            assert_ne!(root(Some(at)), clean, "byte {at}");
        }
    }
}
