//! Checking an image where there is no device-mapper: all of it at once, before anything of it is believed.
//!
//! The root hash of the data is computed as dm-verity defines it and compared with the spec's. Hash blocks behind the data are
//! not read: they could only say the same.
//! Never: notices what is changed afterwards. dm-verity checks each block as it is read; this checks once, and what could change
//! the file later is the host's root, which has the guest's memory as well.
//! Source: Linux Documentation/admin-guide/device-mapper/verity.rst, "Hash Tree".

use std::{fs::File, io, os::unix::fs::FileExt};

use coffer_spec::VerityTable;
use sha2::{Digest, Sha256};

use crate::failure::{Code, Failure, OrFail};

/// Data blocks that are read at once.
const AT_ONCE: u64 = 256;
const DIGEST: usize = 32;

/// Checks that the data of an image is what the table says. `damaged`: the code for an image that is not the table's.
///
/// # Errors
/// `damaged`, and for a table of a kind that we do not write.
pub fn check(image: &File, table: &VerityTable, name: &str, damaged: Code) -> Result<(), Failure> {
    let root = root_hash(image, table).or_fail(damaged, &format!("read image {name}"))?;
    if hex::encode(root) == table.root_hash {
        return Ok(());
    }
    Err(Failure::new(damaged, format!("image {name} does not match the root hash of the spec")))
}

fn root_hash(image: &File, table: &VerityTable) -> io::Result<[u8; DIGEST]> {
    let salt = hex::decode(&table.salt).map_err(io::Error::other)?;
    if table.algorithm != "sha256" || table.data_blocks == 0 || (table.block_size as usize) < 2 * DIGEST {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "no table of SHA-256 over blocks"));
    }
    let (block, size) = (u64::from(table.block_size), table.block_size as usize);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8)) as u64;
    let share = table.data_blocks.div_ceil(threads);
    let part = |from: u64, end: u64| -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; (AT_ONCE * block) as usize];
        let mut digests = Vec::with_capacity((end - from) as usize * DIGEST);
        let mut at = from;
        while at < end {
            let some = AT_ONCE.min(end - at);
            let bytes = &mut buffer[..(some * block) as usize];
            image.read_exact_at(bytes, at * block)?;
            digests.extend(bytes.chunks(size).flat_map(|block| hash(&salt, block)));
            at += some;
        }
        Ok(digests)
    };
    let level = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|thread| (thread * share, ((thread + 1) * share).min(table.data_blocks)))
            .filter(|(from, end)| from < end)
            .map(|(from, end)| scope.spawn(move || part(from, end)))
            .collect();
        let mut level = Vec::new();
        for part in parts {
            level.extend(part.join().map_err(|_| io::Error::other("a hashing thread panicked"))??);
        }
        Ok::<_, io::Error>(level)
    })?;
    Ok(top(level, &salt, size))
}

/// From the digests of the data blocks to the root hash: that of the one block that holds all others.
fn top(mut level: Vec<u8>, salt: &[u8], size: usize) -> [u8; DIGEST] {
    while level.len() > DIGEST {
        // A hash block ends in zeros where no more digests are.
        level.resize(level.len().next_multiple_of(size), 0);
        level = level.chunks(size).flat_map(|block| hash(salt, block)).collect();
    }
    *level.first_chunk().expect("an image has a block, and its digest is no shorter")
}

fn hash(salt: &[u8], block: &[u8]) -> [u8; DIGEST] {
    Sha256::new().chain_update(salt).chain_update(block).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of `blocks` blocks and its table, computed the long way: level by level, block by block.
    fn image(blocks: u64, salt: &[u8]) -> (File, VerityTable) {
        let file = tempfile::tempfile().unwrap();
        let data: Vec<u8> = (0..blocks * 4096).map(|at| (at / 4096 % 251 + at % 7) as u8).collect();
        file.write_all_at(&data, 0).unwrap();
        let mut level: Vec<Vec<u8>> = data.chunks(4096).map(<[u8]>::to_vec).collect();
        while level.len() > 1 {
            level = level
                .chunks(128)
                .map(|below| {
                    let mut block: Vec<u8> = below.iter().flat_map(|block| hash(salt, block)).collect();
                    block.resize(4096, 0);
                    block
                })
                .collect();
        }
        let table = VerityTable {
            algorithm: "sha256".into(),
            block_size: 4096,
            data_blocks: blocks,
            hash_start: blocks,
            salt: hex::encode(salt),
            root_hash: hex::encode(hash(salt, &level[0])),
        };
        (file, table)
    }

    #[test]
    fn the_root_hash_is_dm_veritys_for_every_shape_of_tree() {
        for blocks in [1, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1] {
            let (file, table) = image(blocks, b"salt");
            assert_eq!(check(&file, &table, "root", Code::RootCorrupt), Ok(()), "{blocks} blocks");
        }
    }

    #[test]
    fn any_changed_byte_another_table_and_a_short_file_are_refused() {
        let (file, table) = image(300, &[7; 32]);
        let code = |table: &VerityTable| check(&file, table, "root", Code::RootCorrupt).map_err(|failure| failure.code);
        for at in [0, 4095, 4096, 150 * 4096, 300 * 4096 - 1] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert_eq!(code(&table), Err(Code::RootCorrupt), "byte {at}");
            file.write_all_at(&byte, at).unwrap();
        }
        assert_eq!(code(&table), Ok(()));
        assert!(code(&VerityTable { salt: "00".into(), ..table.clone() }).is_err());
        assert!(code(&VerityTable { data_blocks: 299, ..table.clone() }).is_err());
        assert!(code(&VerityTable { data_blocks: 301, ..table.clone() }).is_err());
        assert!(code(&VerityTable { data_blocks: 0, ..table.clone() }).is_err());
        assert!(code(&VerityTable { algorithm: "crc32c".into(), ..table.clone() }).is_err());
        assert!(code(&VerityTable { block_size: 0, ..table }).is_err());
    }
}
