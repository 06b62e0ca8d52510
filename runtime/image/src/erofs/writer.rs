//! Writes a planned image, front to back.

use super::directory::{self, FileType};
use super::error::WriteError;
use super::plan::{FIRST_INODE, Inode, Plan, directory_names, file_type};
use super::{BLOCK_SIZE, xattr};
use crate::holes::HoleWriter;
use crate::tree::{Extent, Kind, NodeId, Tree};
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// Changes whenever the same tree would give other bytes.
pub const EROFS_VERSION: u32 = 1;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the image, a multiple of 4096.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// Writes `tree` to `out`, an empty file open for reading and writing.
///
/// `spool`: where the file data of the tree lies. `uuid`: of the file system.
pub fn write(tree: &Tree, spool: &File, out: &File, uuid: [u8; 16]) -> Result<Written, WriteError> {
    let plan = Plan::new(tree)?;
    let bytes = plan.blocks * BLOCK_SIZE;
    let failed = |source| WriteError::Write { bytes, source };
    let mut image = Image { tree, plan: &plan, spool, out: HoleWriter::new(out), bytes };
    image.pad_to(FIRST_INODE)?;
    for inode in &plan.inodes {
        image.inode(inode)?;
    }
    for inode in &plan.inodes {
        image.data(inode)?;
    }
    image.pad_to(bytes)?;
    image.out.finish().map_err(failed)?;
    let inodes = plan.inodes.len() as u64;
    superblock(out, &plan, uuid).map_err(failed)?;
    Ok(Written { bytes, inodes })
}

struct Image<'a> {
    tree: &'a Tree,
    plan: &'a Plan,
    spool: &'a File,
    out: HoleWriter<&'a File>,
    bytes: u64,
}

impl Image<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.out.put(bytes).map_err(|source| WriteError::Write { bytes: self.bytes, source })
    }

    fn pad_to(&mut self, offset: u64) -> Result<(), WriteError> {
        let count = offset.saturating_sub(self.out.position());
        self.out.skip(count).map_err(|source| WriteError::Write { bytes: self.bytes, source })
    }

    /// The inode, its attributes, and its inline tail.
    fn inode(&mut self, inode: &Inode) -> Result<(), WriteError> {
        let node = self.tree.node(inode.node);
        let xattrs = xattr::encode(&node.meta.xattrs).ok_or(WriteError::Attributes)?;
        let number = (self.plan.by_node[inode.node.index()].unwrap_or(0) + 1) as u32;
        let layout: u16 = if inode.inline > 0 { FLAT_INLINE } else { FLAT_PLAIN };
        let place = match node.kind {
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => device_number(major, minor),
            _ => inode.block,
        };
        let mut bytes = Vec::with_capacity(64);
        bytes.extend((layout << 1 | u16::from(inode.extended)).to_le_bytes());
        bytes.extend(xattr::icount(xattrs.len()).to_le_bytes());
        bytes.extend((type_bits(file_type(node)) | node.meta.mode).to_le_bytes());
        if inode.extended {
            bytes.extend([0; 2]);
            bytes.extend(inode.size.to_le_bytes());
            bytes.extend(place.to_le_bytes());
            bytes.extend(number.to_le_bytes());
            bytes.extend(node.meta.uid.to_le_bytes());
            bytes.extend(node.meta.gid.to_le_bytes());
            bytes.extend(node.meta.mtime.to_le_bytes());
            bytes.extend(node.meta.mtime_nsec.to_le_bytes());
            bytes.extend(inode.nlink.to_le_bytes());
            bytes.extend([0; 16]);
        } else {
            // The plan made sure that these fit.
            bytes.extend((inode.nlink as u16).to_le_bytes());
            bytes.extend((inode.size as u32).to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(place.to_le_bytes());
            bytes.extend(number.to_le_bytes());
            bytes.extend((node.meta.uid as u16).to_le_bytes());
            bytes.extend((node.meta.gid as u16).to_le_bytes());
            bytes.extend([0; 4]);
        }
        self.pad_to(inode.offset)?;
        self.put(&bytes)?;
        self.put(&xattrs)?;
        if inode.inline > 0 {
            self.contents(inode, inode.size - inode.inline, inode.size)?;
        }
        Ok(())
    }

    /// The whole blocks of an inode.
    fn data(&mut self, inode: &Inode) -> Result<(), WriteError> {
        if inode.blocks == 0 {
            return Ok(());
        }
        self.pad_to(u64::from(inode.block) * BLOCK_SIZE)?;
        self.contents(inode, 0, inode.size - inode.inline)
    }

    /// Bytes `from..to` of a file, directory or symlink.
    fn contents(&mut self, inode: &Inode, from: u64, to: u64) -> Result<(), WriteError> {
        match &self.tree.node(inode.node).kind {
            Kind::File(extent) => self.copy(Extent { offset: extent.offset + from, length: to - from }),
            Kind::Directory(_) => {
                let bytes = self.directory(inode);
                self.put(&bytes[from as usize..to as usize])
            }
            Kind::Symlink(target) => self.put(&target[from as usize..to as usize]),
            Kind::Fifo | Kind::CharDevice(..) | Kind::BlockDevice(..) => Ok(()),
        }
    }

    /// Copies from the spool, but for what was never written there.
    fn copy(&mut self, extent: Extent) -> Result<(), WriteError> {
        let (mut at, end) = (extent.offset, extent.offset + extent.length);
        let failed = |bytes| move |source| WriteError::Write { bytes, source };
        while at < end {
            // Small files have no holes worth a question; the writer looks at their blocks anyway.
            let data = if end - at < WORTH_ASKING { at..end } else { next_data(self.spool, at, end) };
            self.out.skip(data.start - at).map_err(failed(self.bytes))?;
            at = data.start;
            while at < data.end {
                let mut reader = At { file: self.spool, offset: at };
                let read = self.out.take(&mut reader, data.end - at).map_err(failed(self.bytes))?;
                at += match read.map_err(WriteError::Read)? {
                    0 => return Err(WriteError::Read(io::ErrorKind::UnexpectedEof.into())),
                    count => count as u64,
                };
            }
        }
        Ok(())
    }

    fn directory(&self, inode: &Inode) -> Vec<u8> {
        let nid = |node: NodeId| self.plan.by_node[node.index()].map_or(0, |index| self.plan.inodes[index].nid());
        let mut entries: Vec<_> = self
            .tree
            .children(inode.node)
            .map(|(name, node)| directory::Entry { name, nid: nid(node), kind: file_type(self.tree.node(node)) })
            .collect();
        let own = inode.nid();
        let parent = self.plan.inodes[inode.parent].nid();
        entries.push(directory::Entry { name: b".", nid: own, kind: FileType::Directory });
        entries.push(directory::Entry { name: b"..", nid: parent, kind: FileType::Directory });
        entries.sort_unstable_by_key(|entry| entry.name);
        debug_assert!(entries.iter().map(|entry| entry.name).eq(directory_names(self.tree, inode.node)));
        directory::encode(&entries)
    }
}

/// A file, read from an offset on.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl io::Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, self.offset)
    }
}

/// Where the next data of a range lies, up to its end or the next hole; empty, at its end, where there is none. A file system
/// that knows no holes has data everywhere.
fn next_data(file: &File, from: u64, end: u64) -> Range<u64> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(start) => start.clamp(from, end),
        Err(rustix::io::Errno::NXIO) => return end..end,
        Err(_) => return from..end,
    };
    start..rustix::fs::seek(file, SeekFrom::Hole(start)).map_or(end, |hole| hole.clamp(start, end))
}

/// Bytes of a file from which on it may have holes that take longer to read than to ask for.
const WORTH_ASKING: u64 = 256 << 10;

/// Fills in the superblock and its checksum, over the rest of block 0.
fn superblock(out: &File, plan: &Plan, uuid: [u8; 16]) -> io::Result<()> {
    let mut block = [0; (BLOCK_SIZE - SUPERBLOCK_OFFSET) as usize];
    out.read_exact_at(&mut block, SUPERBLOCK_OFFSET)?;
    let root = plan.inodes.first().map_or(0, Inode::nid);
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC.to_le_bytes());
    put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
    put(12, &[12]); // blkszbits
    put(14, &(root as u16).to_le_bytes());
    put(16, &(plan.inodes.len() as u64).to_le_bytes());
    put(36, &(plan.blocks as u32).to_le_bytes());
    put(48, &uuid);
    // Build time, metadata block, shared attributes, volume name and incompatible features all are 0.
    let checksum = crc32c(&block);
    block[4..8].copy_from_slice(&checksum.to_le_bytes());
    out.write_all_at(&block, SUPERBLOCK_OFFSET)
}

pub(super) const SUPERBLOCK_OFFSET: u64 = 1024;
pub(super) const MAGIC: u32 = 0xE0F5_E1E2;
/// `EROFS_FEATURE_COMPAT_SB_CHKSUM`, `EROFS_FEATURE_COMPAT_MTIME`.
const COMPAT_CHECKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;
/// `EROFS_INODE_FLAT_PLAIN`, `EROFS_INODE_FLAT_INLINE`.
pub(super) const FLAT_PLAIN: u16 = 0;
pub(super) const FLAT_INLINE: u16 = 2;

fn type_bits(kind: FileType) -> u16 {
    match kind {
        FileType::File => 0o100_000,
        FileType::Directory => 0o040_000,
        FileType::Symlink => 0o120_000,
        FileType::Fifo => 0o010_000,
        FileType::CharDevice => 0o020_000,
        FileType::BlockDevice => 0o060_000,
    }
}

/// `new_encode_dev` of include/linux/kdev_t.h: 12 bits of major, 20 of minor.
fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xFF) | ((major & 0xFFF) << 8) | ((minor & 0xF_FF00) << 12)
}

/// CRC-32C without the final inversion, as the kernel's `crc32c(~0, …)`.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_has_its_check_value() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn device_numbers_are_encoded_as_linux_does() {
        assert_eq!(device_number(8, 1), 0x801);
        assert_eq!(device_number(259, 0x12345), 0x1230_0345 | (259 << 8));
    }
}
