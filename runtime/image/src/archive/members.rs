//! The files of an archive or folder by their names, each hashed when it is read.
//!
//! A stream is read once, front to back: its files go to the store's scratch folder, and what turns out to be a blob moves on
//! from there without being copied again.

use crate::decompress::DiffReader;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::layer::Limits;
use crate::snapshot::open_below;
use crate::store::{Scratch, Store};
use crate::tarball::{Archive, EntryKind};
use coffer_rim::chain;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// An image has a few files for each layer, and at most 512 layers.
const MAX_MEMBERS: usize = 20_000;
/// As Linux has it for paths.
const MAX_NAME: usize = 4096;
/// Files that are open at one time, until blobs are made of them.
const MOST_OPEN: usize = 256;
/// Links that lead to links.
const MAX_LINKS: usize = 8;
/// Documents of images.
const MAX_DOCUMENT: u64 = 4 << 20;

/// The files.
pub(super) struct Members {
    path: PathBuf,
    from: From,
}

enum From {
    Stream(BTreeMap<String, Member>),
    Folder { top: OwnedFd, left: u64 },
}

enum Member {
    /// Not among the blobs yet.
    Staged(Scratch, Kept),
    /// The same, closed.
    Shelved(TempPath, Kept),
    /// Among the blobs.
    Kept(Kept),
    /// The same as this one.
    Link(String),
}

/// A file that was read whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Its first bytes.
    pub(super) magic: [u8; 4],
}

impl Members {
    pub(super) fn of_stream(store: &Store, path: &Path, stream: impl Read, limits: Limits) -> Result<Self> {
        let bad = |reason: String| ImageError::Archive { path: path.to_owned(), reason };
        let too_large = || ImageError::TooLarge { what: "unpacked bytes", limit: limits.bytes };
        let reader = DiffReader::new(stream, limits.bytes).map_err(|error| bad(chain(&error)))?;
        let mut archive = Archive::new(BufReader::with_capacity(256 << 10, reader));
        let mut all = BTreeMap::new();
        let mut opened = 0;
        loop {
            let entry = match archive.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) if is_limit(&error) => return Err(too_large()),
                Err(error) => return Err(bad(chain(&error))),
            };
            if all.len() >= MAX_MEMBERS {
                return Err(ImageError::TooLarge { what: "files in an archive", limit: MAX_MEMBERS as u64 });
            }
            if entry.parts.is_some() {
                return Err(bad("a file of it has holes, which archives of images have not".to_owned()));
            }
            let Some(name) = normal("", &entry.path) else { continue };
            let member = match entry.kind {
                EntryKind::File => {
                    let mut hashed = Hashed::default();
                    let file = hashed.copy(store, &mut archive, entry.size).map_err(|error| match error {
                        ImageError::Io { action: "read", source, .. }
                            if source.kind() == io::ErrorKind::QuotaExceeded =>
                        {
                            ImageError::TooLarge { what: "unpacked bytes", limit: limits.bytes }
                        }
                        ImageError::Io { action: "read", source, .. } => bad(chain(&source)),
                        other => other,
                    })?;
                    let kept = hashed.finish();
                    if kept.size != entry.size {
                        return Err(bad("it ends too early".to_owned()));
                    }
                    opened += 1;
                    if opened <= MOST_OPEN {
                        Member::Staged(file, kept)
                    } else {
                        let at = file.path().to_owned();
                        Member::Shelved(file.shelved().map_err(ImageError::io("create a file in", &at))?, kept)
                    }
                }
                EntryKind::Symlink(target) => {
                    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let Some(target) = normal(folder, &target) else { continue };
                    Member::Link(target)
                }
                EntryKind::HardLink(target) => {
                    let Some(target) = normal("", &target) else { continue };
                    Member::Link(target)
                }
                _ => continue,
            };
            all.insert(name, member);
        }
        // To the end of it: who writes into a pipe is not cut off, and damage behind the last file is found.
        archive.drain().map_err(|error| if is_limit(&error) { too_large() } else { bad(chain(&error)) })?;
        Ok(Self { path: path.to_owned(), from: From::Stream(all) })
    }

    pub(super) fn of_folder(path: &Path, limits: Limits) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| ImageError::io("open", path)(error.into()))?;
        Ok(Self { path: path.to_owned(), from: From::Folder { top, left: limits.bytes } })
    }

    /// What is wrong with all of it.
    pub(super) fn bad(&self, reason: String) -> ImageError {
        ImageError::Archive { path: self.path.clone(), reason }
    }

    /// A document; `None` where there is no such file.
    pub(super) fn document(&self, store: &Store, name: &str) -> Result<Option<Vec<u8>>> {
        let file = match &self.from {
            From::Folder { top, .. } => open_file(top, &self.path, name)?,
            From::Stream(all) => match resolve(all, name) {
                Some((_, Member::Staged(file, _))) => {
                    Some(file.reopened().map_err(ImageError::io("open", file.path()))?)
                }
                Some((_, Member::Shelved(path, _))) => Some(File::open(path).map_err(ImageError::io("open", path))?),
                Some((_, Member::Kept(kept))) => {
                    let path = store.blob_path(&kept.digest);
                    Some(File::open(&path).map_err(ImageError::io("open", &path))?)
                }
                _ => None,
            },
        };
        let Some(file) = file else { return Ok(None) };
        match coffer_rim::input::all(file, MAX_DOCUMENT) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(ImageError::TooLarge { what: "bytes of a document", limit: MAX_DOCUMENT })
            }
            Err(error) => Err(ImageError::io("read", &self.path.join(name))(error)),
        }
    }

    /// Makes a file a blob under its digest; `None` where there is no such file.
    pub(super) fn keep(&mut self, store: &Store, name: &str) -> Result<Option<Kept>> {
        match &mut self.from {
            From::Folder { top, left } => {
                let Some(mut file) = open_file(top, &self.path, name)? else { return Ok(None) };
                let mut hashed = Hashed::default();
                let scratch = hashed.copy(store, &mut file, left.saturating_add(1))?;
                let kept = hashed.finish();
                let limit = *left;
                *left = limit.checked_sub(kept.size).ok_or(ImageError::TooLarge { what: "bytes of blobs", limit })?;
                store.publish(scratch, &store.blob_path(&kept.digest))?;
                Ok(Some(kept))
            }
            From::Stream(all) => {
                let Some((name, member)) = resolve(all, name) else { return Ok(None) };
                let (name, kept) = match member {
                    Member::Kept(kept) | Member::Staged(_, kept) | Member::Shelved(_, kept) => (name.to_owned(), *kept),
                    Member::Link(_) => return Ok(None),
                };
                match all.insert(name, Member::Kept(kept)) {
                    Some(Member::Staged(file, _)) => store.publish(file, &store.blob_path(&kept.digest))?,
                    Some(Member::Shelved(path, _)) => {
                        let file = File::open(&path).map_err(ImageError::io("open", &path))?;
                        store.publish(Scratch::named(file, path), &store.blob_path(&kept.digest))?;
                    }
                    _ => {}
                }
                Ok(Some(kept))
            }
        }
    }
}

/// A copy that is hashed.
#[derive(Default)]
pub(super) struct Hashed {
    hasher: Sha256,
    size: u64,
    magic: [u8; 4],
}

impl Hashed {
    /// Copies up to `most` bytes into a scratch file.
    ///
    /// # Errors
    /// [`ImageError::Io`] with the action `read` where reading fails.
    pub(super) fn copy(&mut self, store: &Store, from: &mut impl Read, most: u64) -> Result<Scratch> {
        let mut file = store.scratch()?;
        let mut buffer = vec![0; 256 << 10];
        let mut left = most;
        while left > 0 {
            let want = left.min(buffer.len() as u64) as usize;
            let count = match from.read(&mut buffer[..want]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(ImageError::Io { action: "read", path: file.path().to_owned(), source });
                }
            };
            let bytes = &buffer[..count];
            if self.size < 4 {
                let at = self.size as usize;
                let some = count.min(4 - at);
                self.magic[at..at + some].copy_from_slice(&bytes[..some]);
            }
            store.write(&mut file, bytes, self.size + count as u64)?;
            self.hasher.update(bytes);
            self.size += count as u64;
            left -= count as u64;
        }
        Ok(file)
    }

    pub(super) fn finish(self) -> Kept {
        Kept { digest: Digest::finish(self.hasher), size: self.size, magic: self.magic }
    }
}

impl Kept {
    /// Media type of a layer with these bytes.
    pub(super) fn layer_type(&self) -> &'static str {
        match self.magic {
            [0x1F, 0x8B, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
            [0x28, 0xB5, 0x2F, 0xFD] => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

/// A member, through links.
fn resolve<'a>(all: &'a BTreeMap<String, Member>, name: &str) -> Option<(&'a str, &'a Member)> {
    let mut name = normal("", name.as_bytes())?;
    for _ in 0..MAX_LINKS {
        match all.get_key_value(&name)? {
            (_, Member::Link(target)) => name.clone_from(target),
            (name, member) => return Some((name, member)),
        }
    }
    None
}

/// A name without `.` and `..`, seen from a folder; `None` where it is none that an archive of an image can mean.
fn normal(folder: &str, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= MAX_NAME)?;
    let mut parts: Vec<&str> = Vec::new();
    let folder = if name.starts_with('/') { "" } else { folder };
    for part in folder.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn open_file(top: &OwnedFd, path: &Path, name: &str) -> Result<Option<File>> {
    let Some(name) = normal("", name.as_bytes()) else { return Ok(None) };
    match open_below(top, Path::new(&name), OFlags::NONBLOCK) {
        Ok(file) => {
            let file = File::from(file);
            let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
            let reason = || format!("{name} is no file");
            if is_file { Ok(Some(file)) } else { Err(ImageError::Archive { path: path.to_owned(), reason: reason() }) }
        }
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(ImageError::io("open", &path.join(name))(error.into())),
    }
}

fn is_limit(error: &crate::tarball::TarError) -> bool {
    matches!(error, crate::tarball::TarError::Read(source) if source.kind() == io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn names_lead_nowhere_but_to_members() {
        assert_eq!(normal("", b"./a//b").as_deref(), Some("a/b"));
        assert_eq!(normal("x/y", b"../z/layer.tar").as_deref(), Some("x/z/layer.tar"));
        assert_eq!(normal("x", b"/a").as_deref(), Some("a"));
        for bad in [&b".."[..], b"../a", b"", b"/", b"\xff", &[b'a'; 5000]] {
            assert_eq!(normal("", bad), None);
        }
    }
}
