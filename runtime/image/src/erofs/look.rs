//! A look into an image: what lies under a name, without mounting it.
//!
//! Reads what [`super::write`] wrote: plain and inline data, no compression. An image is ours, but the disk it lies on can be
//! damaged: each number is checked before it is used, and nothing larger than the file is ever held.
//! Source: as the writer.

use super::BLOCK_SIZE;
use super::directory::{ENTRY, FileType};
use super::writer::{FLAT_INLINE, FLAT_PLAIN, MAGIC, SUPERBLOCK_OFFSET};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// An image that is looked into.
#[derive(Debug)]
pub struct Look {
    file: File,
    bytes: u64,
    root: FolderId,
}

/// A folder of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderId(u64);

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A folder.
    Folder(FolderId),
    /// A symbolic link, and where it leads.
    Link(Vec<u8>),
    /// A file, or anything else that has nothing below it.
    File,
}

/// An inode, as far as it matters here.
struct Inode {
    mode: u16,
    size: u64,
    block: u64,
    /// Where the last part of its data lies, unless in a block.
    inline: Option<u64>,
}

impl Look {
    /// Opens an image.
    ///
    /// # Errors
    /// The file's; class `InvalidData` where it is no image of ours.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of_file(File::open(path)?)
    }

    /// As [`Look::open`].
    pub fn of_file(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let mut superblock = [0; 16];
        file.read_exact_at(&mut superblock, SUPERBLOCK_OFFSET)?;
        if superblock[..4] != MAGIC.to_le_bytes() {
            return Err(damaged());
        }
        let root = FolderId(u64::from(u16::from_le_bytes([superblock[14], superblock[15]])));
        Ok(Self { file, bytes, root })
    }

    /// The root of the image.
    pub fn root(&self) -> FolderId {
        self.root
    }

    /// What a name in a folder stands for; `None` where there is no such name.
    ///
    /// # Errors
    /// The file's; `InvalidData` where it is damaged.
    pub fn find(&self, folder: FolderId, name: &[u8]) -> io::Result<Option<Found>> {
        let bytes = self.contents(&self.inode(folder.0)?)?;
        for block in bytes.chunks(BLOCK_SIZE as usize) {
            if let Some((nid, kind)) = search(block, name)? {
                return Ok(Some(match kind {
                    kind if kind == FileType::Directory as u8 => Found::Folder(FolderId(nid)),
                    kind if kind == FileType::Symlink as u8 => Found::Link(self.contents(&self.inode(nid)?)?),
                    _ => Found::File,
                }));
            }
        }
        Ok(None)
    }

    fn inode(&self, nid: u64) -> io::Result<Inode> {
        let offset = nid.checked_mul(SLOT).ok_or_else(damaged)?;
        let mut head = [0; 32];
        self.file.read_exact_at(&mut head, offset)?;
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let is_extended = half(0) & 1 == 1;
        let size = if is_extended { u64::from(word(8)) | u64::from(word(12)) << 32 } else { u64::from(word(8)) };
        let xattrs = match u64::from(half(2)) {
            0 => 0,
            words => XATTR_HEADER + 4 * (words - 1),
        };
        let behind = offset + if is_extended { 64 } else { 32 } + xattrs;
        let inline = match half(0) >> 1 {
            FLAT_PLAIN => None,
            FLAT_INLINE => Some(behind),
            _ => return Err(damaged()),
        };
        // A folder or link; no file is read here.
        if size > self.bytes {
            return Err(damaged());
        }
        Ok(Inode { mode: half(4), size, block: u64::from(word(16)), inline })
    }

    /// The bytes of a folder or link.
    fn contents(&self, inode: &Inode) -> io::Result<Vec<u8>> {
        if !matches!(inode.mode & 0o170_000, 0o040_000 | 0o120_000) {
            return Err(damaged());
        }
        let mut bytes = vec![0; usize::try_from(inode.size).map_err(|_| damaged())?];
        let tail = if inode.inline.is_some() { bytes.len() % BLOCK_SIZE as usize } else { 0 };
        let (blocks, rest) = bytes.split_at_mut(inode.size as usize - tail);
        if !blocks.is_empty() {
            self.file.read_exact_at(blocks, inode.block * BLOCK_SIZE)?;
        }
        if let Some(offset) = inode.inline {
            self.file.read_exact_at(rest, offset)?;
        }
        Ok(bytes)
    }
}

/// Finds a name in a block of a folder.
fn search(block: &[u8], name: &[u8]) -> io::Result<Option<(u64, u8)>> {
    let entry = |index: usize| block.get(index * ENTRY..(index + 1) * ENTRY).ok_or_else(damaged);
    let name_at = |entry: &[u8]| usize::from(u16::from_le_bytes([entry[8], entry[9]]));
    let count = name_at(entry(0)?) / ENTRY;
    for index in 0..count {
        let this = entry(index)?;
        let end = if index + 1 < count { name_at(entry(index + 1)?) } else { block.len() };
        let found = block.get(name_at(this)..end).ok_or_else(damaged)?;
        // Behind the last name of a block there are zeros.
        let length = found.iter().position(|byte| *byte == 0).unwrap_or(found.len());
        if found[..length] == *name {
            let mut nid = [0; 8];
            nid.copy_from_slice(&this[..8]);
            return Ok(Some((u64::from_le_bytes(nid), this[10])));
        }
    }
    Ok(None)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the image is damaged")
}

/// As in the plan and the attributes.
const SLOT: u64 = 32;
const XATTR_HEADER: u64 = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Extent, Kind, Meta, Tree};
    use std::collections::BTreeMap;

    fn image(tree: &Tree) -> File {
        let (spool, out) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        super::super::write(tree, &spool, &out, [0; 16]).unwrap();
        out
    }

    fn tree(entries: &[(&str, Kind)]) -> Tree {
        let mut tree = Tree::new();
        for (number, (path, kind)) in entries.iter().enumerate() {
            // Compact and extended inodes, with attributes and without.
            let xattrs = BTreeMap::from([(b"user.a".to_vec(), vec![1; number % 7])]);
            let meta = Meta { mtime: number as u64 % 2, xattrs, ..Meta::default() };
            tree.place(path.as_bytes(), if number % 3 == 0 { Meta::default() } else { meta }, kind.clone()).unwrap();
        }
        tree
    }

    fn at(look: &Look, path: &str) -> Option<Found> {
        let mut found = Found::Folder(look.root());
        for name in path.split('/') {
            let Found::Folder(folder) = found else { return None };
            found = look.find(folder, name.as_bytes()).unwrap()?;
        }
        Some(found)
    }

    #[test]
    fn everything_that_was_written_is_found_and_nothing_else() {
        let file = || Kind::File(Extent { offset: 0, length: 0 });
        let link = |to: &str| Kind::Symlink(to.as_bytes().to_vec());
        let names: Vec<_> = (0..3000).map(|number| format!("large/{number:x}-{}", "n".repeat(number % 90))).collect();
        let mut entries = vec![
            ("bin/busybox", file()),
            ("bin/sh", link("busybox")),
            ("x", link("/proc")),
            ("long", link(&"l/".repeat(2000))),
            ("fifo", Kind::Fifo),
        ];
        entries.extend(names.iter().map(|name| (name.as_str(), file())));
        let look = Look::of_file(image(&tree(&entries))).unwrap();
        assert_eq!(at(&look, "bin/busybox"), Some(Found::File));
        assert_eq!(at(&look, "bin/sh"), Some(Found::Link(b"busybox".to_vec())));
        assert_eq!(at(&look, "x"), Some(Found::Link(b"/proc".to_vec())));
        assert_eq!(at(&look, "long"), Some(Found::Link("l/".repeat(2000).into_bytes())));
        assert_eq!(at(&look, "fifo"), Some(Found::File));
        assert!(matches!(at(&look, "large"), Some(Found::Folder(_))));
        for name in &names {
            assert_eq!(at(&look, name), Some(Found::File), "{name}");
        }
        for absent in ["b", "bin/s", "bin/shx", "large/", "large/0", "bin/busybox/x"] {
            assert_eq!(at(&look, absent), None, "{absent}");
        }
    }

    #[test]
    fn a_damaged_image_is_an_error_and_no_panic() {
        let link = Kind::Symlink(b"a".to_vec());
        let good = image(&tree(&[("a/b", link.clone()), ("c", link)]));
        let mut bytes = vec![0; good.metadata().unwrap().len() as usize];
        good.read_exact_at(&mut bytes, 0).unwrap();
        for position in 1024..bytes.len().min(1600) {
            for value in [0, 0xff, bytes[position] ^ 0x11] {
                let bad = tempfile::tempfile().unwrap();
                let mut changed = bytes.clone();
                changed[position] = value;
                bad.write_all_at(&changed, 0).unwrap();
                let Ok(look) = Look::of_file(bad) else { continue };
                let _ = look.find(look.root(), b"c");
                if let Ok(Some(Found::Folder(folder))) = look.find(look.root(), b"a") {
                    let _ = look.find(folder, b"b");
                }
            }
        }
        let empty = tempfile::tempfile().unwrap();
        assert!(Look::of_file(empty).is_err());
    }
}
