//! What is told of a root file system: names alone, or a tar stream.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::BorrowedFd,
};

use rustix::fs::Stat;

use super::pax::{Header, Kind};

/// How something differs from the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Added,
    Changed,
    Deleted,
}

impl Change {
    pub(super) const fn word(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// What something is.
#[derive(Debug)]
pub(super) enum What {
    File(File),
    Folder,
    Link(Vec<u8>),
    Pipe,
    /// It is gone.
    Nothing,
}

/// A file, folder or other thing of a root, or one that is gone.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) change: Change,
    /// From the root on, without a slash before it.
    pub(super) path: Vec<u8>,
    pub(super) what: What,
    pub(super) stat: Option<Stat>,
    /// Extended attributes.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Who is told.
pub(super) trait Sink {
    /// Not only names.
    fn wants_contents(&self) -> bool;
    /// False if it cannot be told of.
    fn take(&mut self, item: Item) -> io::Result<bool>;
    fn end(&mut self) -> io::Result<()>;
}

/// A word, a path and NUL for each.
pub(super) struct Lines<W>(pub(super) W);

impl<W: Write> Sink for Lines<W> {
    fn wants_contents(&self) -> bool {
        false
    }

    fn take(&mut self, item: Item) -> io::Result<bool> {
        write!(self.0, "{}/", item.change.word())?;
        self.0.write_all(&item.path)?;
        self.0.write_all(&[0])?;
        Ok(true)
    }

    fn end(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// How a layer says that a name is gone.
const WHITEOUT: &[u8] = b".wh.";

/// A tar stream. What is gone is a whiteout.
///
/// Source: OCI Image Specification 1.1, "Image Layer Filesystem Changeset".
pub(super) struct Tar<W> {
    to: W,
    /// Files with several names, by device and number, under the first of them.
    names: BTreeMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Tar<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, names: BTreeMap::new() }
    }
}

impl<W: Write> Sink for Tar<W> {
    fn wants_contents(&self) -> bool {
        true
    }

    fn take(&mut self, item: Item) -> io::Result<bool> {
        let Item { path, what, stat, attributes, .. } = item;
        let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (folder, name) = path.split_at(at);
        // Whoever reads the stream would take such a name for what it is not.
        if name.starts_with(WHITEOUT) {
            return Ok(false);
        }
        let Some(stat) = stat else {
            let path = [folder, WHITEOUT, name].concat();
            Header::new(&path, Kind::File).write(&mut self.to)?;
            return Ok(true);
        };
        let of = |kind| Header {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified: u64::try_from(stat.st_mtime).unwrap_or(0),
            attributes: &attributes,
            ..Header::new(&path, kind)
        };
        match what {
            What::File(file) => {
                let inode = (stat.st_dev, stat.st_ino);
                if let Some(first) = self.names.get(&inode) {
                    Header { attributes: &[], target: first, ..of(Kind::OtherName) }.write(&mut self.to)?;
                    return Ok(true);
                }
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                Header { size, ..of(Kind::File) }.write(&mut self.to)?;
                // Exactly so many bytes: of a file that grows no more, of one that shrinks zeros in their place.
                let copied = io::copy(&mut file.take(size), &mut self.to)?;
                let padded = size.next_multiple_of(512);
                io::copy(&mut io::repeat(0).take(padded - copied), &mut self.to)?;
                if stat.st_nlink > 1 {
                    self.names.insert(inode, path);
                }
            }
            What::Folder => of(Kind::Folder).write(&mut self.to)?,
            What::Link(target) => Header { target: &target, ..of(Kind::Link) }.write(&mut self.to)?,
            What::Pipe => of(Kind::Pipe).write(&mut self.to)?,
            What::Nothing => return Ok(false),
        }
        Ok(true)
    }

    fn end(&mut self) -> io::Result<()> {
        self.to.write_all(&[0; 1024])?;
        self.to.flush()
    }
}

/// Longest list of names, and longest value (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const LONGEST: usize = 64 << 10;

/// What goes into an image: capabilities of files, and attributes that are their owner's. Marks of the overlay's are of this box alone.
pub(super) fn attributes(file: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; LONGEST];
    let length = match rustix::fs::flistxattr(file, &mut list) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    for name in list.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        let of_overlay = name.starts_with(b"user.overlay.");
        if name == b"security.capability" || name.starts_with(b"user.") && !of_overlay {
            let mut value = vec![0; LONGEST];
            let length = rustix::fs::fgetxattr(file, name, &mut value)?;
            value.truncate(length);
            all.push((name.to_vec(), value));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn item(path: &str, what: What, stat: Option<Stat>) -> Item {
        let change = if stat.is_some() { Change::Added } else { Change::Deleted };
        Item { change, path: path.into(), what, stat, attributes: Vec::new() }
    }

    #[test]
    fn names_are_behind_their_word_and_end_where_none_can() {
        let mut lines = Lines(Vec::new());
        lines.take(item("a\nb", What::Nothing, None)).unwrap();
        assert_eq!(lines.0, b"D/a\nb\0");
    }

    #[test]
    fn a_stream_has_files_whole_their_other_names_and_whiteouts() {
        let top = tempfile::tempdir().unwrap();
        let (path, long) = (top.path().join("a"), "n".repeat(200));
        std::fs::write(&path, "hello").unwrap();
        std::fs::hard_link(&path, top.path().join("b")).unwrap();
        let stat = || rustix::fs::stat(&path).unwrap();
        let open = || What::File(File::open(&path).unwrap());
        let mut tar = Tar::new(Vec::new());
        for (name, what, stat, told) in [
            (long.as_str(), open(), Some(stat()), true),
            ("b", open(), Some(stat()), true),
            ("d/gone", What::Nothing, None, true),
            ("d/.wh.odd", open(), Some(stat()), false),
            ("d/.wh.odder", What::Nothing, None, false),
        ] {
            assert_eq!(tar.take(item(name, what, stat)).unwrap(), told, "{name}");
        }
        tar.end().unwrap();
        let kept = top.path().join("tar");
        std::fs::write(&kept, &tar.to).unwrap();
        let listed = std::process::Command::new("tar").arg("-tf").arg(&kept).output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        assert_eq!(String::from_utf8(listed.stdout).unwrap(), format!("{long}\nb\nd/.wh.gone\n"));
        let out = std::process::Command::new("tar").args(["-xOf"]).arg(&kept).arg(&long).output().unwrap();
        assert_eq!(out.stdout, b"hello");
    }

    #[test]
    fn attributes_of_owners_are_read_and_others_are_not() {
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        let set = rustix::fs::fsetxattr(file.as_fd(), "user.note", b"x\0y", rustix::fs::XattrFlags::empty());
        if set.is_ok() {
            assert_eq!(attributes(file.as_fd()).unwrap(), [(b"user.note".to_vec(), b"x\0y".to_vec())]);
        }
    }
}
