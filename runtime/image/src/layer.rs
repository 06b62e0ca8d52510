//! Merges the layers of an image into one tree, file data into one spool file.
//!
//! What an image cannot bring: device nodes (the guest's `/dev` is its own; a node for one of the guest's disks would be
//! a way around dm-verity and the workload specification), attributes that steer overlayfs, and attributes of
//! namespaces EROFS does not have. They are left out and counted in [`Dropped`].
//!
//! What a file has of zeros takes no space in the spool: neither the holes that an archive names, nor zeros written out.

use crate::ahead;
use crate::decompress::{self, DiffReader};
use crate::digest::Digest;
use crate::erofs;
use crate::error::{ImageError, Result};
use crate::holes::HoleWriter;
use crate::tarball::{Archive, Entry, EntryKind, Part, TarError};
use crate::tree::{DEFAULT_MEMORY, DEFAULT_STEPS, Extent, Kind, Meta, Tree, TreeError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// How large an image may be. Reaching one is an error, never a shorter image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of all layers together.
    pub entries: u64,
    /// Unpacked bytes of all layers together: of their streams, and of their files with holes.
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
    /// What was left out.
    pub dropped: Dropped,
}

/// What of an image is not in its root file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// Device nodes.
    pub devices: u64,
    /// Extended attributes.
    pub attributes: u64,
    /// VOLUME paths at which there can be no folder.
    #[serde(default)]
    pub volumes: u64,
}

/// Takes layers, bottom first.
pub struct Merger<'a> {
    tree: Tree,
    spool: Spool<'a>,
    dropped: Dropped,
    left: Limits,
    limits: Limits,
}

/// The spool file, written front to back.
struct Spool<'a> {
    writer: HoleWriter<File>,
    /// Where it lies, for messages.
    dir: &'a Path,
    /// Unpacked bytes allowed, for messages.
    limit: u64,
}

impl<'a> Merger<'a> {
    /// `spool`: an empty file that lies in `dir`.
    pub fn new(spool: File, dir: &'a Path, limits: Limits) -> Self {
        Self {
            tree: Tree::within(limits.memory, limits.steps),
            spool: Spool { writer: HoleWriter::new(spool), dir, limit: limits.bytes },
            dropped: Dropped::default(),
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
    pub fn add(&mut self, layer: Digest, blob: impl Read + Send, diff_id: Digest) -> Result<()> {
        ahead::reading(|| decompress::unpacked(blob), |stream| self.add_stream(layer, stream, diff_id))
    }

    fn add_stream(&mut self, layer: Digest, stream: impl Read, diff_id: Digest) -> Result<()> {
        let reader = DiffReader::of(stream, self.left.bytes);
        // Headers and small files come out of one read, and are hashed together.
        let mut archive = Archive::new(BufReader::with_capacity(AT_ONCE, reader));
        self.tree.begin_layer();
        while let Some(entry) = archive.next_entry().map_err(|error| self.tar_error(layer, error))? {
            self.charge()?;
            self.apply(layer, entry, &mut archive)?;
        }
        archive.drain().map_err(|error| self.tar_error(layer, error))?;
        let (found, left) = archive.into_inner().into_inner().finish();
        self.left.bytes = left;
        if found == diff_id { Ok(()) } else { Err(ImageError::CorruptDiffId { layer, expected: diff_id, found }) }
    }

    /// Makes the folders that an image says it has volumes at, where they are not there. One that cannot be made stops no
    /// image, and is counted.
    ///
    /// # Errors
    /// Class `too-large`.
    pub fn make_folders(&mut self, volumes: &[String]) -> Result<()> {
        self.tree.begin_layer();
        for path in volumes {
            self.charge()?;
            match self.tree.make_folder(path.as_bytes()) {
                Ok(()) => {}
                Err(error) => {
                    if let Ok(limit) = beyond_limits(error) {
                        return Err(limit);
                    }
                    self.dropped.volumes += 1;
                }
            }
        }
        Ok(())
    }

    /// The merged tree.
    pub fn finish(self) -> Result<Merged> {
        let (length, dir) = (self.spool.writer.position(), self.spool.dir);
        let (spool, _) = self.spool.writer.finish().map_err(|error| ImageError::write(dir, length, error))?;
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
            EntryKind::File => Kind::File(self.spool.keep(layer, entry.size, entry.parts.as_deref(), data)?),
            EntryKind::Directory => Kind::Directory(BTreeMap::new()),
            EntryKind::Symlink(target) => Kind::Symlink(target),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::HardLink(target) => return self.tree.link(&entry.path, &target).map_err(tree_error),
            EntryKind::CharDevice(..) | EntryKind::BlockDevice(..) => {
                self.dropped.devices += 1;
                // What stood there in a lower layer is gone all the same.
                return self.tree.remove(&entry.path).map_err(tree_error);
            }
        };
        let given = entry.xattrs.len();
        let xattrs: BTreeMap<_, _> =
            entry.xattrs.into_iter().filter(|(name, value)| erofs::keeps_xattr(name, value)).collect();
        self.dropped.attributes += (given - xattrs.len()) as u64;
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
    /// Copies a file's data to the end of the spool. `size`: of the file. `parts`: what of it the data is, or all of it.
    fn keep(&mut self, layer: Digest, size: u64, parts: Option<&[Part]>, data: &mut impl Read) -> Result<Extent> {
        let offset = self.writer.position();
        if offset.checked_add(size).is_none_or(|end| end > self.limit) {
            return Err(ImageError::TooLarge { what: "unpacked bytes", limit: self.limit });
        }
        for part in parts.unwrap_or(&[Part { offset: 0, length: size }]) {
            self.skip_to(offset + part.offset)?;
            let mut left = part.length;
            while left > 0 {
                let wrong = |position, error| ImageError::write(self.dir, position, error);
                let position = self.writer.position();
                let read = self.writer.take(data, left).map_err(|error| wrong(position + left, error))?;
                left -= match read {
                    Ok(0) => return Err(ImageError::Tar { layer, source: TarError::Truncated }),
                    Ok(count) => count as u64,
                    Err(source) => return Err(read_error(layer, source, self.limit)),
                };
            }
        }
        self.skip_to(offset + size)?;
        Ok(Extent { offset, length: size })
    }

    fn skip_to(&mut self, to: u64) -> Result<()> {
        let count = to - self.writer.position();
        self.writer.skip(count).map_err(|error| ImageError::write(self.dir, to, error))
    }
}

/// Unpacked bytes that are hashed and looked at together.
const AT_ONCE: usize = 64 << 10;

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
