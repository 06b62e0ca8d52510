//! Snapshots of host files and folders: what is there now, as a read-only EROFS image with a verity tree.
//!
//! Like COPY in an image build: contents, names, permission bits and symbolic links are kept; everything belongs to root,
//! times are zero, extended attributes, set-uid and set-gid bits are left out. So the same files give the same root hash
//! on any machine, whoever owns them there, and a specification that names it can be written anywhere.
//!
//! The source is followed where it is a symbolic link; below it nothing is, so nothing outside it gets in.

use crate::erofs::{self, Look};
use crate::error::{ImageError, Result};
use crate::layer::{Limits, beyond_limits};
use crate::rootfs::write_error;
use crate::store::{Lock, Scratch, Store};
use crate::tree::{Extent, Kind, Meta, Tree};
use crate::verity::{self, VerityTable};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, openat2, readlinkat};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Its contents are the root of the image.
    Folder,
    /// It is the one entry of the image, under the name given.
    File,
}

/// A snapshot in a file of the store that is not finished, gone when dropped.
#[derive(Debug)]
pub struct Snapshot {
    file: Scratch,
    /// What the source is.
    pub kind: SnapshotKind,
    /// What dm-verity has to be told; goes into the workload specification.
    pub verity: VerityTable,
    /// Keeps a garbage collection from taking the file.
    _in_use: Lock,
}

impl Snapshot {
    /// What lies where in it.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn look(&self) -> Result<Look> {
        self.file.reopened().and_then(Look::of_file).map_err(ImageError::io("read", self.file.path()))
    }

    /// Moves the file to a place on the same file system.
    ///
    /// # Errors
    /// [`ImageError`] of class `disk-full` or `io`.
    pub fn persist(self, to: &Path) -> Result<()> {
        self.file.persist(to).map_err(ImageError::io("write", to))?;
        let folder = to.parent().unwrap_or(Path::new("."));
        coffer_rim::file::sync_folder(folder).map_err(ImageError::io("sync", folder))
    }
}

impl Store {
    /// Takes a snapshot of `source`; a file gets the name `file_name` in it.
    ///
    /// # Errors
    /// [`ImageError::Snapshot`] naming what is no file, folder or link; class `too-large`, `disk-full` or `io`. Nothing is
    /// left behind.
    pub fn snapshot(&self, source: &Path, file_name: &str, limits: Limits) -> Result<Snapshot> {
        let in_use = self.use_lock()?;
        let tmp = self.dir().join("tmp");
        let spool = tempfile::tempfile_in(&tmp).map_err(ImageError::io("create a file in", &tmp))?;
        let mut walk = Walk {
            tree: Tree::within(limits.memory, limits.steps),
            spool: BufWriter::with_capacity(1 << 20, spool),
            written: 0,
            tmp: &tmp,
            source,
            entries: 0,
            limits,
        };
        let kind = walk.all(file_name)?;
        let (tree, length) = (walk.tree, walk.written);
        let spool = walk.spool.into_inner().map_err(|error| ImageError::write(&tmp, length, error.into_error()))?;

        let file = self.scratch()?;
        let written =
            erofs::write(&tree, &spool, file.as_file(), UUID).map_err(|error| write_error(file.path(), error))?;
        let tree_bytes = verity::tree_blocks(written.bytes / erofs::BLOCK_SIZE) * erofs::BLOCK_SIZE;
        let verity =
            verity::append(file.as_file(), SALT).map_err(|error| ImageError::write(file.path(), tree_bytes, error))?;
        file.as_file().sync_all().map_err(|error| ImageError::write(file.path(), written.bytes, error))?;
        Ok(Snapshot { file, kind, verity, _in_use: in_use })
    }
}

/// Both are fixed, so that equal files are equal snapshots. A salt against tables computed in advance is enough.
const SALT: &[u8] = b"coffer/volume/v1";
/// A version 8 (custom) UUID, RFC 9562 §5.8.
const UUID: [u8; 16] = *b"coffer\x80v\x80olume\0\x01";

struct Walk<'a> {
    tree: Tree,
    spool: BufWriter<File>,
    written: u64,
    tmp: &'a Path,
    source: &'a Path,
    entries: u64,
    limits: Limits,
}

impl Walk<'_> {
    fn all(&mut self, file_name: &str) -> Result<SnapshotKind> {
        // NONBLOCK: a named pipe must not keep us waiting.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let top = rustix::fs::open(self.source, flags, Mode::empty())
            .map_err(|error| ImageError::io("open", self.source)(error.into()))?;
        let stat = rustix::fs::fstat(&top).map_err(|error| ImageError::io("read", self.source)(error.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let kind = Kind::File(self.keep(top, Path::new(""))?);
                self.place(Path::new(file_name), stat.st_mode, kind)?;
                Ok(SnapshotKind::File)
            }
            FileType::Directory => {
                self.place(Path::new(""), stat.st_mode, Kind::Directory(BTreeMap::new()))?;
                self.folder(&top)?;
                Ok(SnapshotKind::Folder)
            }
            other => Err(self.no_snapshot(Path::new(""), format!("it is a {}", word(other)))),
        }
    }

    /// Everything below `top`, in the order of names, so that the spool does not depend on the host's order.
    fn folder(&mut self, top: &OwnedFd) -> Result<()> {
        let mut pending = vec![PathBuf::new()];
        while let Some(folder) = pending.pop() {
            let failed = |action, path: &Path| {
                let path = self.source.join(path);
                move |error: rustix::io::Errno| ImageError::io(action, &path)(error.into())
            };
            let opened = open_below(top, &folder, OFlags::DIRECTORY).map_err(failed("open", &folder))?;
            let listing = Dir::read_from(&opened).map_err(failed("read", &folder))?;
            let mut names = Vec::new();
            for entry in listing {
                let entry = entry.map_err(failed("read", &folder))?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    names.push(entry.file_name().to_owned());
                }
            }
            names.sort();
            let mut below = Vec::new();
            for name in names {
                let path = folder.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                let stat = rustix::fs::statat(&opened, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed("read", &path))?;
                let kind = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => {
                        below.push(path.clone());
                        Kind::Directory(BTreeMap::new())
                    }
                    FileType::Symlink => Kind::Symlink(
                        readlinkat(&opened, &name, Vec::new()).map_err(failed("read", &path))?.into_bytes(),
                    ),
                    FileType::RegularFile => {
                        let file = open_below(top, &path, OFlags::NONBLOCK).map_err(failed("open", &path))?;
                        Kind::File(self.keep(file, &path)?)
                    }
                    other => return Err(self.no_snapshot(&path, format!("it is a {}", word(other)))),
                };
                self.place(&path, stat.st_mode, kind)?;
            }
            pending.extend(below.into_iter().rev());
        }
        Ok(())
    }

    fn place(&mut self, path: &Path, mode: u32, kind: Kind) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(ImageError::TooLarge { what: "entries", limit: self.limits.entries });
        }
        // A link has no permissions of its own.
        let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { (mode & 0o1777) as u16 };
        let meta = Meta { mode, ..Meta::default() };
        let placed = self.tree.place(path.as_os_str().as_bytes(), meta, kind);
        placed.map_err(|error| beyond_limits(error).unwrap_or_else(|other| self.no_snapshot(path, other.to_string())))
    }

    /// Copies what the file holds now to the end of the spool.
    fn keep(&mut self, file: OwnedFd, path: &Path) -> Result<Extent> {
        let offset = self.written;
        let left = self.limits.bytes - offset;
        let mut file = File::from(file).take(left + 1);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImageError::io("read", &self.source.join(path))(error)),
            };
            self.written += count as u64;
            if self.written > self.limits.bytes {
                return Err(ImageError::TooLarge { what: "bytes", limit: self.limits.bytes });
            }
            self.spool.write_all(&buffer[..count]).map_err(|error| ImageError::write(self.tmp, self.written, error))?;
        }
        Ok(Extent { offset, length: self.written - offset })
    }

    fn no_snapshot(&self, path: &Path, reason: String) -> ImageError {
        ImageError::Snapshot {
            path: if path.as_os_str().is_empty() { self.source.into() } else { self.source.join(path) },
            reason,
        }
    }
}

/// Opens what lies below a folder; no link on the way is followed, whoever puts one there meanwhile.
pub(crate) fn open_below(top: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    openat2(top, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::Fifo => "named pipe",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "file of an unknown kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn store() -> (tempfile::TempDir, Store, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let source = dir.path().join("source");
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::write(source.join("a"), "one").unwrap();
        fs::write(source.join("sub/b"), vec![7; 9000]).unwrap();
        symlink("/etc/passwd", source.join("link")).unwrap();
        (dir, store, source)
    }

    fn take(store: &Store, source: &Path) -> Result<Snapshot> {
        store.snapshot(source, "file", Limits::default())
    }

    #[test]
    fn equal_files_are_equal_snapshots_and_any_change_is_another() {
        let (_dir, store, source) = store();
        let root = || take(&store, &source).unwrap().verity.root_hash;
        let first = root();
        let newer = fs::File::open(source.join("a")).unwrap();
        newer.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(root(), first, "times are not part of it");
        fs::set_permissions(source.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        let executable = root();
        assert_ne!(executable, first);
        fs::write(source.join("sub/b"), vec![8; 9000]).unwrap();
        assert_ne!(root(), executable);
    }

    #[test]
    fn a_file_is_the_one_entry_of_its_snapshot() {
        let (dir, store, source) = store();
        let snapshot = take(&store, &source.join("a")).unwrap();
        assert_eq!(snapshot.kind, SnapshotKind::File);
        let link = dir.path().join("to-a");
        symlink(source.join("a"), &link).unwrap();
        assert_eq!(take(&store, &link).unwrap().verity, snapshot.verity, "the source itself is followed");
        let to = dir.path().join("kept");
        snapshot.persist(&to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_plain_file_is_named_and_nothing_is_left() {
        let (_dir, store, source) = store();
        let _socket = std::os::unix::net::UnixListener::bind(source.join("sub/s")).unwrap();
        let error = take(&store, &source).unwrap_err();
        assert!(error.to_string().ends_with("sub/s: it is a socket"), "{error}");
        assert_eq!(take(&store, &source.join("absent")).unwrap_err().class(), "io");
        assert_eq!(take(&store, Path::new("/dev/null")).unwrap_err().class(), "snapshot");
        assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn limits_are_errors_and_never_a_smaller_snapshot() {
        let (_dir, store, source) = store();
        for limits in [Limits { bytes: 9002, ..Limits::default() }, Limits { entries: 4, ..Limits::default() }] {
            assert_eq!(store.snapshot(&source, "file", limits).unwrap_err().class(), "too-large");
        }
        assert!(store.snapshot(&source, "file", Limits { bytes: 9003, entries: 5, ..Limits::default() }).is_ok());
    }

    #[test]
    fn fsck_finds_every_entry() {
        let (dir, store, source) = store();
        let to = dir.path().join("image");
        take(&store, &source).unwrap().persist(&to).unwrap();
        let out = dir.path().join("out");
        let run =
            std::process::Command::new("fsck.erofs").arg(format!("--extract={}", out.display())).arg(&to).output();
        let Ok(output) = run else {
            eprintln!("skipped: no fsck.erofs on this machine");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read(out.join("sub/b")).unwrap(), vec![7; 9000]);
        assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("/etc/passwd"));
    }
}
