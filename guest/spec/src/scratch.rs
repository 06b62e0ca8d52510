//! The writable layer of the root, and how much guest memory it takes.

use serde::{Deserialize, Serialize};

/// The writable layer of the root. Either kind begins empty and is gone when the guest ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Scratch {
    /// In guest memory.
    Tmpfs {
        /// Size limit in bytes.
        bytes: u64,
    },
    /// On a disk of the host's, encrypted and authenticated under a key of this guest's own; the tags that tell the last
    /// version of a block from earlier ones stay in guest memory, so the host cannot put an old block back.
    Disk {
        /// Size limit in bytes, and size of the disk; a multiple of 4096.
        bytes: u64,
    },
}

impl Scratch {
    /// Least bytes in memory: the guest itself writes a few files of a page each.
    pub const LEAST_TMPFS: u64 = 64 << 10;
    /// Most bytes of a disk: its tags take about 1.2 % of that in guest memory.
    pub const MOST_DISK: u64 = 64 << 30;
    /// Least bytes of a disk.
    pub const LEAST_DISK: u64 = 1 << 20;
    /// Bytes of a block of the disk.
    pub const BLOCK: u64 = 4096;
    /// Bytes of a block's tag: HMAC-SHA-256, and the random IV of AES.
    pub const TAG: u64 = 32 + 16;

    /// Bytes of guest memory that a disk's tags take, all of it from the start.
    pub fn tag_bytes(self) -> u64 {
        // What dm-integrity keeps beside the tags: its superblock and one section of a journal that direct mode never
        // uses, 136 KiB together, and the rest of the last buffer.
        const EXTRA: u64 = 512 << 10;
        match self {
            Self::Tmpfs { .. } => 0,
            Self::Disk { bytes } => (bytes / Self::BLOCK * Self::TAG + EXTRA).next_multiple_of(Self::BLOCK),
        }
    }
}
