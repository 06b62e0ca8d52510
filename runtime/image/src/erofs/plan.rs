//! Decides where everything goes before a byte is written.

use super::directory::{self, FileType};
use super::error::WriteError;
use super::{BLOCK_SIZE, xattr};
use crate::tree::{Kind, Meta, Node, NodeId, Tree};

/// First byte an inode may have: behind the superblock.
pub(super) const FIRST_INODE: u64 = 1024 + 128;
/// Inodes are numbered by slots of this many bytes.
const SLOT: u64 = 32;
/// Tails up to this long stand behind their inode. Longer ones would leave as much unused as a block of their own.
const MAX_INLINE: u64 = 2048;

/// One inode of the image.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) node: NodeId,
    /// `..` of a directory, as an index into [`Plan::inodes`].
    pub(super) parent: usize,
    /// Byte in the image.
    pub(super) offset: u64,
    pub(super) extended: bool,
    pub(super) size: u64,
    pub(super) nlink: u32,
    pub(super) xattr_size: u64,
    /// Bytes of the tail behind the inode; 0: all data in blocks.
    pub(super) inline: u64,
    /// First data block.
    pub(super) block: u32,
    /// Data blocks.
    pub(super) blocks: u64,
}

impl Inode {
    pub(super) fn nid(&self) -> u64 {
        self.offset / SLOT
    }

    pub(super) fn header_size(&self) -> u64 {
        if self.extended { 64 } else { 32 }
    }
}

/// All inodes in the order they are written.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) inodes: Vec<Inode>,
    /// Index into `inodes` by [`NodeId::index`].
    pub(super) by_node: Vec<Option<usize>>,
    /// Blocks of the whole image.
    pub(super) blocks: u64,
}

impl Plan {
    pub(super) fn new(tree: &Tree) -> Result<Self, WriteError> {
        let mut plan = Self { inodes: Vec::new(), by_node: vec![None; tree.len()], blocks: 0 };
        plan.collect(tree);
        let mut offset = FIRST_INODE;
        for inode in &mut plan.inodes {
            let node = tree.node(inode.node);
            inode.size = match &node.kind {
                Kind::File(extent) => extent.length,
                Kind::Directory(_) => directory::size(directory_names(tree, inode.node).into_iter()),
                Kind::Symlink(target) => target.len() as u64,
                Kind::Fifo | Kind::CharDevice(..) | Kind::BlockDevice(..) => 0,
            };
            inode.xattr_size = xattr::encode(&node.meta.xattrs).ok_or(WriteError::Attributes)?.len() as u64;
            inode.extended = !fits_compact(&node.meta, inode.size, inode.nlink);
            offset = place(inode, offset);
        }
        let mut block = offset.div_ceil(BLOCK_SIZE);
        for inode in &mut plan.inodes {
            inode.blocks = (inode.size - inode.inline).div_ceil(BLOCK_SIZE);
            if inode.blocks > 0 {
                inode.block = u32::try_from(block).map_err(|_| WriteError::TooLarge)?;
                block += inode.blocks;
            }
        }
        u32::try_from(block).map_err(|_| WriteError::TooLarge)?;
        plan.blocks = block;
        Ok(plan)
    }

    /// Numbers inodes in path order and counts links.
    fn collect(&mut self, tree: &Tree) {
        let mut pending = vec![(NodeId::ROOT, 0)];
        while let Some((node, parent)) = pending.pop() {
            if let Some(known) = self.by_node[node.index()] {
                self.inodes[known].nlink += 1;
                continue;
            }
            let index = self.inodes.len();
            self.by_node[node.index()] = Some(index);
            let is_directory = matches!(tree.node(node).kind, Kind::Directory(_));
            let mut nlink = if is_directory { 2 } else { 1 };
            let children: Vec<_> = tree.children(node).map(|(_, child)| child).collect();
            nlink +=
                children.iter().filter(|child| matches!(tree.node(**child).kind, Kind::Directory(_))).count() as u32;
            pending.extend(children.into_iter().rev().map(|child| (child, index)));
            self.inodes.push(Inode {
                node,
                parent,
                offset: 0,
                extended: false,
                size: 0,
                nlink,
                xattr_size: 0,
                inline: 0,
                block: 0,
                blocks: 0,
            });
        }
    }
}

/// Gives an inode its place at or behind `offset`; returns the first byte behind it.
fn place(inode: &mut Inode, offset: u64) -> u64 {
    let head = inode.header_size() + inode.xattr_size;
    let mut offset = offset.next_multiple_of(SLOT);
    // The fixed part never crosses a block.
    if offset % BLOCK_SIZE + inode.header_size() > BLOCK_SIZE {
        offset = offset.next_multiple_of(BLOCK_SIZE);
    }
    let tail = inode.size % BLOCK_SIZE;
    inode.inline = 0;
    if (1..=MAX_INLINE).contains(&tail) {
        // Nor does the tail: the kernel refuses one that does.
        let fits = |offset: u64| (offset + head) % BLOCK_SIZE + tail <= BLOCK_SIZE;
        if !fits(offset) && fits(0) {
            offset = offset.next_multiple_of(BLOCK_SIZE);
        }
        if fits(offset) {
            inode.inline = tail;
        }
    }
    inode.offset = offset;
    offset + head + inode.inline
}

/// Whether the 32-byte inode can say it all: its time is the superblock's, 0.
fn fits_compact(meta: &Meta, size: u64, nlink: u32) -> bool {
    let narrow = u32::from(u16::MAX);
    meta.mtime == 0
        && meta.mtime_nsec == 0
        && meta.uid <= narrow
        && meta.gid <= narrow
        && nlink <= narrow
        && u32::try_from(size).is_ok()
}

/// Names of a directory with `.` and `..`, sorted by bytes.
pub(super) fn directory_names(tree: &Tree, node: NodeId) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = tree.children(node).map(|(name, _)| name).chain([&b"."[..], b".."]).collect();
    names.sort_unstable();
    names
}

/// `EROFS_FT_*` of a node.
pub(super) fn file_type(node: &Node) -> FileType {
    match node.kind {
        Kind::File(_) => FileType::File,
        Kind::Directory(_) => FileType::Directory,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::CharDevice(..) => FileType::CharDevice,
        Kind::BlockDevice(..) => FileType::BlockDevice,
    }
}
