//! Directory contents: blocks of fixed entries followed by their names, sorted by bytes.
//!
//! Source: `erofs_dirent` in fs/erofs/erofs_fs.h; fs/erofs/namei.c searches blocks and entries by bisection.

use super::BLOCK_SIZE;

/// `sizeof(struct erofs_dirent)`.
pub(super) const ENTRY: usize = 12;
const BLOCK: usize = BLOCK_SIZE as usize;

/// `EROFS_FT_*`, which are `DT_*` made small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileType {
    File = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Symlink = 7,
}

/// One name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) nid: u64,
    pub(super) kind: FileType,
}

/// Bytes the directory takes. `names`: sorted, with `.` and `..`.
pub(super) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut full, mut used) = (0, 0);
    for name in names {
        let need = ENTRY + name.len();
        if used + need > BLOCK {
            full += 1;
            used = 0;
        }
        used += need;
    }
    full * BLOCK_SIZE + used as u64
}

/// The directory's bytes. `entries`: sorted, with `.` and `..`.
pub(super) fn encode(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let mut used = 0;
        let fits = rest.iter().take_while(|entry| {
            used += ENTRY + entry.name.len();
            used <= BLOCK
        });
        let (block, behind) = rest.split_at(fits.count());
        let mut name_offset = ENTRY * block.len();
        for entry in block {
            bytes.extend(entry.nid.to_le_bytes());
            bytes.extend((name_offset as u16).to_le_bytes());
            bytes.extend([entry.kind as u8, 0]);
            name_offset += entry.name.len();
        }
        for entry in block {
            bytes.extend(entry.name);
        }
        rest = behind;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicted_and_written_sizes_agree() {
        for count in [0, 1, 10, 200, 341, 342, 5000] {
            for length in [1, 20, 255] {
                let names: Vec<Vec<u8>> = (0..count)
                    .map(|number| {
                        let mut name = format!("{number:04}").into_bytes();
                        name.resize(length.max(4), b'x');
                        name
                    })
                    .collect();
                let entries: Vec<_> = names.iter().map(|name| Entry { name, nid: 1, kind: FileType::File }).collect();
                assert_eq!(encode(&entries).len() as u64, size(names.iter().map(Vec::as_slice)), "{count} × {length}");
            }
        }
    }
}
