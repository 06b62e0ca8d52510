//! Writes EROFS images: uncompressed, 4096-byte blocks, nothing in them but what the tree says.
//!
//! ```text
//! block 0    1024 zero bytes ‖ superblock (128 bytes) ‖ inodes from byte 1152 on, each followed by its attributes
//!            and, where it fits in the same block, the tail of its data
//! then       whole data blocks, in the order of the inodes
//! ```
//!
//! The same tree gives the same bytes: inodes are numbered in path order, times come from the tree, nothing from clock
//! or host. Source: Linux 6.12, fs/erofs/erofs_fs.h; Documentation/filesystems/erofs.rst.

mod directory;
mod error;
mod look;
mod plan;
mod writer;
mod xattr;

pub use error::WriteError;
pub use look::{FolderId, Found, Look};
pub use writer::{EROFS_VERSION, Written, write};
pub use xattr::keeps_xattr;

/// Block size in bytes.
pub const BLOCK_SIZE: u64 = 4096;
