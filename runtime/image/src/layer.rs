//! Merges the layers of an image into one tree, file data into one spool file.
//!
//! What an image cannot bring: device nodes (the guest's `/dev` is its own; a node for one of the guest's disks would be
//! a way around dm-verity and the workload specification), attributes that steer overlayfs, and attributes of
//! namespaces EROFS does not have. They are left out and counted in [`Merged::dropped`].

use crate::decompress::{self, DiffReader};
use crate::digest::Digest;
use crate::erofs;
use crate::error::{ImageError, Result};
use crate::tarball::{Archive, Entry, EntryKind, TarError};
use crate::tree::{DEFAULT_MEMORY, DEFAULT_STEPS, Extent, Kind, Meta, Tree, TreeError};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// How large an image may be. Reaching one is an error, never a shorter image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of all layers together.
    pub entries: u64,
    /// Unpacked bytes of all layers together.
    pub bytes: u64,
    /// Bytes of memory that nodes, names, targets and attributes of all layers together may take. Everything else a layer
    /// makes us hold has a fixed bound: see [`crate::tarball`] and [`crate::decompress`].
    pub memory: u64,
    /// Steps of work that following the paths of all layers together may take.
    pub steps: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 4_000_000, bytes: 64 << 30, memory: DEFAULT_MEMORY, steps: DEFAULT_STEPS }
    }
}

/// Layers merged.
#[derive(Debug)]
pub struct Merged {
    /// The tree.
    pub tree: Tree,
    /// File data; extents of the tree point into it.
    pub spool: File,
    /// Device nodes and attributes left out.
    pub dropped: u64,
}

/// Takes layers, bottom first.
pub struct Merger<'a> {
    tree: Tree,
    spool: Spool<'a>,
    dropped: u64,
    left: Limits,
    limits: Limits,
}

/// The spool file, written front to back.
struct Spool<'a> {
    writer: io::BufWriter<File>,
    length: u64,
    buffer: Vec<u8>,
    /// Where it lies, for messages.
    dir: &'a Path,
    /// Unpacked bytes allowed, for messages.
    limit: u64,
}

impl<'a> Merger<'a> {
    /// `spool`: an empty file that lies in `dir`.
    pub fn new(spool: File, dir: &'a Path, limits: Limits) -> Self {
        let writer = io::BufWriter::with_capacity(1 << 20, spool);
        Self {
            tree: Tree::within(limits.memory, limits.steps),
            spool: Spool { writer, length: 0, buffer: vec![0; 64 << 10], dir, limit: limits.bytes },
            dropped: 0,
            left: limits,
            limits,
        }
    }

    /// Adds a layer and checks that it unpacks to what the configuration says.
    ///
    /// `layer`: digest of the compressed blob, for messages. `diff_id`: digest of the tar stream in it.
    ///
    /// # Errors
    /// [`ImageError`] of class `corrupt`, `too-large`, `disk-full` or `io`. The merger is of no use afterwards.
    pub fn add(&mut self, layer: Digest, blob: impl Read, diff_id: Digest) -> Result<()> {
        let reader =
            DiffReader::new(blob, self.left.bytes).map_err(|source| ImageError::Decompress { layer, source })?;
        let mut archive = Archive::new(reader);
        self.tree.begin_layer();
        while let Some(entry) = archive.next_entry().map_err(|error| self.tar_error(layer, error))? {
            self.charge()?;
            self.apply(layer, entry, &mut archive)?;
        }
        archive.drain().map_err(|error| self.tar_error(layer, error))?;
        let (found, left) = archive.into_inner().finish();
        self.left.bytes = left;
        if found == diff_id { Ok(()) } else { Err(ImageError::CorruptDiffId { layer, expected: diff_id, found }) }
    }

    /// The merged tree.
    pub fn finish(self) -> Result<Merged> {
        let (length, dir) = (self.spool.length, self.spool.dir);
        let spool =
            self.spool.writer.into_inner().map_err(|error| ImageError::write(dir, length, error.into_error()))?;
        if self.dropped > 0 {
            tracing::debug!(dropped = self.dropped, "device nodes and attributes left out of the image");
        }
        Ok(Merged { tree: self.tree, spool, dropped: self.dropped })
    }

    fn apply(&mut self, layer: Digest, entry: Entry, data: &mut impl Read) -> Result<()> {
        let tree_error = |source| beyond_limits(source).unwrap_or_else(|source| ImageError::Tree { layer, source });
        if let Some(whiteout) = Whiteout::of(&entry.path) {
            return match whiteout {
                Whiteout::Opaque(directory) => self.tree.opaque(directory),
                Whiteout::Name(path) => self.tree.whiteout(&path),
                Whiteout::Reserved => Ok(()),
            }
            .map_err(tree_error);
        }
        let kind = match entry.kind {
            EntryKind::File => Kind::File(self.spool.keep(layer, entry.size, data)?),
            EntryKind::Directory => Kind::Directory(std::collections::BTreeMap::new()),
            EntryKind::Symlink(target) => Kind::Symlink(target),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::HardLink(target) => return self.tree.link(&entry.path, &target).map_err(tree_error),
            EntryKind::CharDevice(..) | EntryKind::BlockDevice(..) => {
                self.dropped += 1;
                // What stood there in a lower layer is gone all the same.
                return self.tree.remove(&entry.path).map_err(tree_error);
            }
        };
        let given = entry.xattrs.len();
        let xattrs: std::collections::BTreeMap<_, _> =
            entry.xattrs.into_iter().filter(|(name, value)| erofs::keeps_xattr(name, value)).collect();
        self.dropped += (given - xattrs.len()) as u64;
        let (mode, uid, gid, mtime, mtime_nsec) = (entry.mode, entry.uid, entry.gid, entry.mtime, entry.mtime_nsec);
        let meta = Meta { mode, uid, gid, mtime, mtime_nsec, xattrs };
        self.tree.place(&entry.path, meta, kind).map_err(tree_error)
    }

    /// Takes one entry off the limits.
    fn charge(&mut self) -> Result<()> {
        let too_many = ImageError::TooLarge { what: "entries", limit: self.limits.entries };
        self.left.entries = self.left.entries.checked_sub(1).ok_or(too_many)?;
        Ok(())
    }

    fn tar_error(&self, layer: Digest, error: TarError) -> ImageError {
        match error {
            TarError::Read(source) => read_error(layer, source, self.limits.bytes),
            source => ImageError::Tar { layer, source },
        }
    }
}

/// What a tree refuses because of [`Limits`], or the error as it was.
pub(crate) fn beyond_limits(error: TreeError) -> Result<ImageError, TreeError> {
    match error {
        TreeError::Memory { limit } => {
            Ok(ImageError::TooLarge { what: "bytes of memory for names and attributes", limit })
        }
        TreeError::Work { limit } => Ok(ImageError::TooLarge { what: "steps along its paths", limit }),
        other => Err(other),
    }
}

/// A failure of [`DiffReader`].
fn read_error(layer: Digest, source: io::Error, limit: u64) -> ImageError {
    if source.kind() == io::ErrorKind::QuotaExceeded {
        ImageError::TooLarge { what: "unpacked bytes", limit }
    } else if decompress::wants_too_large_a_window(&source) {
        ImageError::TooLarge { what: "bytes of zstd window", limit: decompress::MAX_WINDOW }
    } else {
        ImageError::Decompress { layer, source }
    }
}

impl Spool<'_> {
    /// Copies a file's data to the end of the spool.
    fn keep(&mut self, layer: Digest, size: u64, data: &mut impl Read) -> Result<Extent> {
        let offset = self.length;
        let buffer = &mut self.buffer;
        let mut left = size;
        while left > 0 {
            let want = left.min(buffer.len() as u64) as usize;
            let count = match data.read(&mut buffer[..want]) {
                Ok(0) => return Err(ImageError::Tar { layer, source: TarError::Truncated }),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(read_error(layer, source, self.limit)),
            };
            self.writer
                .write_all(&buffer[..count])
                .map_err(|error| ImageError::write(self.dir, self.length + left, error))?;
            left -= count as u64;
            self.length += count as u64;
        }
        Ok(Extent { offset, length: size })
    }
}

/// What a name with the prefix `.wh.` means.
enum Whiteout<'a> {
    /// Everything below this directory is hidden.
    Opaque(&'a [u8]),
    /// This path is hidden.
    Name(Vec<u8>),
    /// A marker of AUFS itself: nothing to a file system.
    Reserved,
}

impl<'a> Whiteout<'a> {
    fn of(path: &'a [u8]) -> Option<Self> {
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        let start = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, name) = trimmed.split_at(start);
        let hidden = name.strip_prefix(b".wh.")?;
        Some(match hidden {
            b".wh..opq" => Self::Opaque(directory),
            _ if hidden.starts_with(b".wh.") || matches!(hidden, b"" | b"." | b"..") => Self::Reserved,
            _ => Self::Name([directory, hidden].concat()),
        })
    }
}

#[cfg(test)]
mod tests;
