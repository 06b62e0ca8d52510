//! Tags of a volume in guest memory: a RAM disk of its own, read from the host's copy once, and written back when the volume closes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
};

use coffer_spec::SealedVolume;
use sha2::{Digest as _, Sha256};

/// What is copied at a time.
const CHUNK: usize = 256 << 10;
/// Bytes of dm-integrity's superblock, with the rest of its block.
const SUPERBLOCK: usize = 4096;

/// SHA-256 of what was read.
pub struct Digests {
    /// Over all of it.
    pub root: [u8; 32],
    /// Over the superblock alone.
    pub superblock: [u8; 32],
}

/// RAM disk of the sealed volume of an index: the first is the scratch disk's.
pub fn node(index: usize) -> PathBuf {
    format!("/dev/ram{}", index + 1).into()
}

/// `major:minor` of the same.
pub fn numbers(index: usize) -> String {
    format!("1:{}", index + 1)
}

/// Takes the host's copy into memory. What is digested is what was written there, read once.
///
/// # Errors
/// Of the kernel; [`io::ErrorKind::UnexpectedEof`] of a disk that is too short.
pub fn load(volume: &SealedVolume, disk: &File, index: usize) -> io::Result<Digests> {
    let memory = OpenOptions::new().write(true).open(node(index))?;
    let digests = copy(volume.tag_bytes(), |at, chunk| {
        disk.read_exact_at(chunk, SealedVolume::TAGS_AT + at)?;
        memory.write_all_at(chunk, at)
    })?;
    memory.sync_all()?;
    Ok(digests)
}

/// Writes all of it to the host's disk.
///
/// # Errors
/// Of the kernel.
pub fn store(volume: &SealedVolume, disk: &File, index: usize) -> io::Result<Digests> {
    let memory = File::open(node(index))?;
    let digests = copy(volume.tag_bytes(), |at, chunk| {
        memory.read_exact_at(chunk, at)?;
        disk.write_all_at(chunk, SealedVolume::TAGS_AT + at)
    })?;
    disk.sync_all()?;
    Ok(digests)
}

/// SHA-256 of the superblock in memory.
///
/// # Errors
/// Of the kernel.
pub fn superblock(index: usize) -> io::Result<[u8; 32]> {
    let mut block = [0; SUPERBLOCK];
    File::open(node(index))?.read_exact_at(&mut block, 0)?;
    Ok(Sha256::digest(block).into())
}

fn copy(bytes: u64, mut step: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> io::Result<Digests> {
    let (mut all, mut superblock, mut chunk, mut at) = (Sha256::new(), [0; 32], vec![0; CHUNK], 0);
    while at < bytes {
        let count = usize::try_from(bytes - at).map_or(CHUNK, |left| left.min(CHUNK));
        let chunk = &mut chunk[..count];
        step(at, chunk)?;
        if at == 0 {
            superblock = Sha256::digest(&chunk[..SUPERBLOCK.min(count)]).into();
        }
        all.update(&*chunk);
        at += count as u64;
    }
    Ok(Digests { root: all.finalize().into(), superblock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_once_and_the_first_block_by_itself() {
        let bytes = CHUNK as u64 + 4096;
        let content: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let digests = copy(bytes, |at, chunk| {
            chunk.copy_from_slice(&content[at as usize..at as usize + chunk.len()]);
            Ok(())
        })
        .unwrap();
        assert_eq!(digests.root, <[u8; 32]>::from(Sha256::digest(&content)));
        assert_eq!(digests.superblock, <[u8; 32]>::from(Sha256::digest(&content[..SUPERBLOCK])));
        assert!(copy(1, |_, _| Err(io::ErrorKind::UnexpectedEof.into())).is_err());
        assert_eq!((node(0).to_str().unwrap(), numbers(2).as_str()), ("/dev/ram1", "1:3"));
    }
}
