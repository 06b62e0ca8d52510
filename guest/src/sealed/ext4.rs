//! An empty ext4, written here: what another had made would have to be believed.
//!
//! The least that Linux mounts for writing with a journal: groups of 32768 blocks of 4096 bytes, extents, no checksums of its own,
//! as each block has a tag. Every block that is ever read before it is written by the file system is written here, since a block
//! without a tag does not verify.
//! Source: Linux Documentation/filesystems/ext4/{super,group_descr,bitmaps,inodes,ifork,directory,journal}.rst.

use std::{fs::File, io, os::unix::fs::FileExt};

const BLOCK: usize = 4096;
const GROUP_BLOCKS: u64 = 8 * BLOCK as u64;
const INODE: usize = 256;
const INODES_PER_GROUP: u32 = 4096;
const TABLE_BLOCKS: u64 = (INODES_PER_GROUP as usize * INODE / BLOCK) as u64;
const DESCRIPTOR: usize = 32;
/// The first inode that is not reserved: lost+found.
const FIRST_INODE: u32 = 11;
const ROOT_INODE: u32 = 2;
const JOURNAL_INODE: u32 = 8;
/// A last group with fewer blocks for data is left out.
const LEAST_DATA: u64 = 64;

/// Random bytes that the file system has, and the time it is made.
pub struct Seeds {
    /// Its id.
    pub uuid: [u8; 16],
    /// For hashes of names.
    pub hash: [u8; 16],
    /// Seconds since 1970.
    pub now: u32,
}

/// Where everything lies.
struct Layout {
    blocks: u64,
    groups: u64,
    descriptor_blocks: u64,
    journal_blocks: u64,
}

impl Layout {
    fn of(bytes: u64) -> Self {
        let mut blocks = bytes / BLOCK as u64;
        let descriptor_blocks = |groups: u64| (groups * DESCRIPTOR as u64).div_ceil(BLOCK as u64);
        let mut groups = blocks.div_ceil(GROUP_BLOCKS);
        let least = 1 + descriptor_blocks(groups) + 2 + TABLE_BLOCKS + LEAST_DATA;
        if groups > 1 && blocks - (groups - 1) * GROUP_BLOCKS < least {
            groups -= 1;
            blocks = groups * GROUP_BLOCKS;
        }
        let journal_blocks = match blocks >> 16 {
            0 => 1024,
            1..4 => 4096,
            _ => 8192,
        };
        Self { blocks, groups, descriptor_blocks: descriptor_blocks(groups), journal_blocks }
    }

    fn first(group: u64) -> u64 {
        group * GROUP_BLOCKS
    }

    fn blocks_of(&self, group: u64) -> u64 {
        (self.blocks - Self::first(group)).min(GROUP_BLOCKS)
    }

    /// Blocks of superblock and descriptors in a group.
    fn copies(&self, group: u64) -> u64 {
        if has_copy(group) { 1 + self.descriptor_blocks } else { 0 }
    }

    fn bitmap(&self, group: u64) -> u64 {
        Self::first(group) + self.copies(group)
    }

    fn table(&self, group: u64) -> u64 {
        self.bitmap(group) + 2
    }

    /// The root folder, `lost+found`, then the journal, behind the tables of the first group.
    fn root(&self) -> u64 {
        self.table(0) + TABLE_BLOCKS
    }

    fn used(&self, group: u64) -> u64 {
        let own = if group == 0 { 2 + self.journal_blocks } else { 0 };
        self.copies(group) + 2 + TABLE_BLOCKS + own
    }

    fn free(&self) -> u64 {
        (0..self.groups).map(|group| self.blocks_of(group) - self.used(group)).sum()
    }
}

/// `sparse_super`: groups 0, 1 and powers of 3, 5 and 7.
fn has_copy(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group < 2 || [3, 5, 7].into_iter().any(power_of)
}

/// Makes one of at most `bytes` bytes, 16 MiB or more.
///
/// # Errors
/// Of writing.
pub fn format(device: &File, bytes: u64, seeds: &Seeds) -> io::Result<()> {
    let layout = Layout::of(bytes);
    let put = |block: u64, bytes: &[u8]| device.write_all_at(bytes, block * BLOCK as u64);
    let descriptors = descriptors(&layout);
    for group in 0..layout.groups {
        if has_copy(group) {
            let mut first = vec![0; BLOCK];
            // Of the first group it lies behind the room for a boot loader.
            let at = if group == 0 { 1024 } else { 0 };
            first[at..at + 1024].copy_from_slice(&superblock(&layout, seeds, group)?);
            put(Layout::first(group), &first)?;
            put(Layout::first(group) + 1, &descriptors)?;
        }
        put(layout.bitmap(group), &bitmap(layout.used(group), layout.blocks_of(group)))?;
        let inodes = if group == 0 { u64::from(FIRST_INODE) } else { 0 };
        put(layout.bitmap(group) + 1, &bitmap(inodes, u64::from(INODES_PER_GROUP)))?;
        zero(device, layout.table(group), TABLE_BLOCKS)?;
    }
    let root = layout.root();
    let mut inodes = vec![0; BLOCK];
    let mut inode = |number: u32, mode, links, first, blocks| {
        let at = (number as usize - 1) * INODE;
        inodes[at..at + INODE].copy_from_slice(&self::inode(mode, links, first, blocks, seeds.now));
    };
    inode(ROOT_INODE, 0o40755, 3, root, 1);
    inode(FIRST_INODE, 0o40700, 2, root + 1, 1);
    inode(JOURNAL_INODE, 0o100_600, 1, root + 2, layout.journal_blocks);
    put(layout.table(0), &inodes)?;
    put(root, &folder(&[(".", ROOT_INODE), ("..", ROOT_INODE), ("lost+found", FIRST_INODE)]))?;
    put(root + 1, &folder(&[(".", FIRST_INODE), ("..", ROOT_INODE)]))?;
    zero(device, root + 2, layout.journal_blocks)?;
    put(root + 2, &journal(&layout, seeds))?;
    device.sync_all()
}

fn zero(device: &File, first: u64, blocks: u64) -> io::Result<()> {
    let zeros = vec![0; 64 * BLOCK];
    let mut done = 0;
    while done < blocks {
        let count = (blocks - done).min(64);
        device.write_all_at(&zeros[..count as usize * BLOCK], (first + done) * BLOCK as u64)?;
        done += count;
    }
    Ok(())
}

/// The first `used` bits of `all`, and what lies behind them, which is nobody's.
fn bitmap(used: u64, all: u64) -> Vec<u8> {
    let mut bits = vec![0_u8; BLOCK];
    for bit in (0..used).chain(all..GROUP_BLOCKS) {
        bits[(bit / 8) as usize] |= 1 << (bit % 8);
    }
    bits
}

/// Little-endian fields at their offsets.
struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn u16(&mut self, at: usize, value: u64) {
        self.0[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
    }

    fn u32(&mut self, at: usize, value: u64) {
        self.0[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    }
}

fn superblock(layout: &Layout, seeds: &Seeds, group: u64) -> io::Result<[u8; 1024]> {
    let mut block = [0; 1024];
    // Numbers of blocks have 32 bits here.
    if layout.blocks > u64::from(u32::MAX) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let inodes = layout.groups * u64::from(INODES_PER_GROUP);
    let mut fields = Fields(&mut block);
    for (at, value) in [
        (0x00, inodes),
        (0x04, layout.blocks),
        (0x0c, layout.free()),
        (0x10, inodes - u64::from(FIRST_INODE)),
        (0x18, 2),
        (0x1c, 2),
        (0x20, GROUP_BLOCKS),
        (0x24, GROUP_BLOCKS),
        (0x28, u64::from(INODES_PER_GROUP)),
        (0x30, u64::from(seeds.now)),
        (0x40, u64::from(seeds.now)),
        (0x4c, 1), // revision with the fields below
        (0x54, u64::from(FIRST_INODE)),
        (0x5c, 0x4 | 0x8 | 0x20),              // has_journal, ext_attr, dir_index
        (0x60, 0x2 | 0x40),                    // filetype, extents
        (0x64, 0x1 | 0x2 | 0x8 | 0x20 | 0x40), // sparse_super, large_file, huge_file, dir_nlink, extra_isize
        (0xe0, u64::from(JOURNAL_INODE)),
        (0x108, u64::from(seeds.now)),
        (0x160, 1), // names are hashed as signed characters
    ] {
        fields.u32(at, value);
    }
    for (at, value) in [
        (0x36, 0xffff), // no number of mounts asks for a check
        (0x38, 0xef53),
        (0x3a, 1), // clean
        (0x3c, 2), // read-only after an error
        (0x58, INODE as u64),
        (0x5a, group),
        (0x15c, 32),
        (0x15e, 32),
    ] {
        fields.u16(at, value);
    }
    block[0x68..0x78].copy_from_slice(&seeds.uuid);
    block[0xec..0xfc].copy_from_slice(&seeds.hash);
    block[0xfc] = 1; // half of MD4
    Ok(block)
}

fn descriptors(layout: &Layout) -> Vec<u8> {
    let mut all = vec![0; layout.descriptor_blocks as usize * BLOCK];
    for (group, bytes) in (0..layout.groups).zip(all.chunks_exact_mut(DESCRIPTOR)) {
        let mut fields = Fields(bytes);
        fields.u32(0x0, layout.bitmap(group));
        fields.u32(0x4, layout.bitmap(group) + 1);
        fields.u32(0x8, layout.table(group));
        fields.u16(0xc, layout.blocks_of(group) - layout.used(group));
        let (taken, folders) = if group == 0 { (FIRST_INODE, 2) } else { (0, 0) };
        fields.u16(0xe, u64::from(INODES_PER_GROUP - taken));
        fields.u16(0x10, folders);
    }
    all
}

fn inode(mode: u64, links: u64, first: u64, blocks: u64, now: u32) -> [u8; INODE] {
    let mut bytes = [0; INODE];
    let mut fields = Fields(&mut bytes);
    fields.u16(0x0, mode);
    fields.u32(0x4, blocks * BLOCK as u64);
    for time in [0x8, 0xc, 0x10] {
        fields.u32(time, u64::from(now));
    }
    fields.u16(0x1a, links);
    fields.u32(0x1c, blocks * (BLOCK as u64 / 512));
    fields.u32(0x20, 0x8_0000); // extents
    // One extent, in the inode itself.
    fields.u16(0x28, 0xf30a);
    fields.u16(0x2a, 1);
    fields.u16(0x2c, 4);
    fields.u16(0x38, blocks);
    fields.u32(0x3c, first);
    fields.u16(0x80, 32);
    bytes
}

/// Entries of a folder: the last takes the rest of the block.
fn folder(entries: &[(&str, u32)]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    for (index, (name, number)) in entries.iter().enumerate() {
        let last = index + 1 == entries.len();
        let length = if last { BLOCK - at } else { (8 + name.len()).next_multiple_of(4) };
        let mut fields = Fields(&mut block[at..]);
        fields.u32(0, u64::from(*number));
        fields.u16(4, length as u64);
        fields.0[6] = name.len() as u8;
        fields.0[7] = 2; // a folder
        fields.0[8..8 + name.len()].copy_from_slice(name.as_bytes());
        at += length;
    }
    block
}

/// Superblock of an empty journal; big-endian, as jbd2 has it.
fn journal(layout: &Layout, seeds: &Seeds) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let fields = [
        (0x0, 0xc03b_3998_u32),
        (0x4, 4), // a superblock of version 2
        (0xc, BLOCK as u32),
        (0x10, layout.journal_blocks as u32),
        (0x14, 1), // the first block of the log
        (0x18, 1), // the first commit expected
        (0x40, 1), // one file system
    ];
    for (at, value) in fields {
        block[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    block[0x30..0x40].copy_from_slice(&seeds.uuid);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const SEEDS: Seeds = Seeds { uuid: [7; 16], hash: [9; 16], now: 1_700_000_000 };

    fn made(bytes: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        format(file.as_file(), bytes, &SEEDS).unwrap();
        file
    }

    #[test]
    fn e2fsck_finds_nothing_to_mend() {
        let Some(e2fsck) = ["/usr/sbin/e2fsck", "/sbin/e2fsck"].into_iter().find(|path| std::fs::exists(path).unwrap())
        else {
            eprintln!("skipped: no e2fsck on this machine");
            return;
        };
        // One group; a last group that is left out; several, and copies in some of them; the largest.
        let group = GROUP_BLOCKS * BLOCK as u64;
        for bytes in [16 << 20, group, group + (1 << 20), 3 * group + (9 << 20), 10 * group, 4 << 30, 64 << 30] {
            let file = made(bytes);
            let said = Command::new(e2fsck).args(["-f", "-n"]).arg(file.path()).output().unwrap();
            let words = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
            assert!(said.status.success(), "{bytes}: {words}");
            assert!(words.contains("/lost+found") || words.contains("11/"), "{words}");
        }
    }

    #[test]
    fn what_is_used_lies_within_its_group_and_free_blocks_are_counted() {
        for bytes in [16 << 20, 127 << 20, 129 << 20, 1 << 30, 64 << 30] {
            let layout = Layout::of(bytes);
            assert!(layout.blocks * BLOCK as u64 <= bytes && layout.free() < layout.blocks, "{bytes}");
            for group in 0..layout.groups {
                assert!(layout.used(group) + LEAST_DATA <= layout.blocks_of(group), "{bytes} {group}");
            }
        }
        let copies: Vec<u64> = (0..60).filter(|group| has_copy(*group)).collect();
        assert_eq!(copies, [0, 1, 3, 5, 7, 9, 25, 27, 49]);
    }
}
