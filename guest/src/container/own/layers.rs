//! The layers of the workload's root, and what differs between them.
//!
//! What the workload wrote lies in the upper folder of an overlay, whole ([`crate::boot::root`]). What it took away is what the image has and
//! the root has not: no mark of the overlay's is read, which only the machine's root could see.
//! However deep folders lie in each other, one of each layer is open: each is found by its path, below the layer's top and through no link.
//! Source: Linux Documentation/filesystems/overlayfs.rst; openat2(2).

use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, OwnedFd},
};

use coffer_spec::Mount;
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat, statat},
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use super::{
    super::Own,
    tree::{Change, Item, Sink, What},
};
use crate::boot::root::{LOWER, ROOT, UPPER};

/// Bytes of the longest path or target of a link, with its end: PATH_MAX. What lies deeper nobody could name.
const LONGEST_PATH: usize = 4096;
/// Files that each box has of its own, and writes at each start.
const NAMES: [&[u8]; 3] = [b"etc/hostname", b"etc/hosts", b"etc/resolv.conf"];

/// Layers as mounts that stand in no folder: from none of them a path leads to anything else of the agent's.
pub(in crate::container) struct Layers {
    lower: OwnedFd,
    upper: OwnedFd,
    root: OwnedFd,
}

impl Layers {
    /// Opens them for whoever reads them.
    ///
    /// # Errors
    /// The kernel's.
    pub(in crate::container) fn of(own: Option<&Own>) -> io::Result<Option<Self>> {
        let open = |path| {
            let tree = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
            open_folder(&tree, c".").map_err(io::Error::from)
        };
        match own {
            Some(Own::ReadRoot | Own::ReadChanges { .. }) => {
                Ok(Some(Self { lower: open(LOWER)?, upper: open(UPPER)?, root: open(ROOT)? }))
            }
            _ => Ok(None),
        }
    }

    /// Tells of everything in the root; gives how much was left out.
    ///
    /// # Errors
    /// Either side's.
    pub(super) fn root(&self, sink: impl Sink) -> io::Result<u64> {
        Walk::new(sink, &self.root, None).all()
    }

    /// Tells of what the root has that its image has not, and of what it has not.
    ///
    /// # Errors
    /// Either side's.
    pub(super) fn changes(&self, sink: impl Sink) -> io::Result<u64> {
        changes(&self.upper, &self.lower, &self.root, sink)
    }
}

fn changes(upper: &OwnedFd, lower: &OwnedFd, root: &OwnedFd, sink: impl Sink) -> io::Result<u64> {
    Walk::new(sink, upper, Some(Below { lower, root })).all()
}

/// The same folder elsewhere.
#[derive(Clone, Copy)]
struct Below<F> {
    /// In the image.
    lower: F,
    /// In the root as it is.
    root: F,
}

/// A folder that is open.
struct Here {
    upper: OwnedFd,
    below: Option<Below<OwnedFd>>,
}

/// A folder on the way.
struct Level {
    names: std::vec::IntoIter<CString>,
    /// It is in the image too.
    both: bool,
    /// Bytes of the path to what it lies in.
    before: usize,
}

struct Walk<'a, S> {
    sink: S,
    upper: &'a OwnedFd,
    /// Where there are differences to tell of; else it is all of a root.
    below: Option<Below<&'a OwnedFd>>,
    path: Vec<u8>,
    /// Folders on the way that were not told of: one is if something in it is.
    held: VecDeque<Item>,
    left_out: u64,
}

impl<'a, S: Sink> Walk<'a, S> {
    fn new(sink: S, upper: &'a OwnedFd, below: Option<Below<&'a OwnedFd>>) -> Self {
        Self { sink, upper, below, path: Vec::new(), held: VecDeque::new(), left_out: 0 }
    }

    /// Goes everywhere; gives how much was left out.
    fn all(mut self) -> io::Result<u64> {
        let (mut levels, mut here) = (Vec::new(), None);
        let top = self.open(self.below.is_some())?;
        levels.push(Level { names: names(&top.upper)?.into_iter(), both: top.below.is_some(), before: 0 });
        here.replace(top);
        while let Some(level) = levels.last_mut() {
            let both = level.both;
            let Some(name) = level.names.next() else {
                let before = level.before;
                if both {
                    self.deleted(here.as_ref())?;
                }
                self.let_go();
                levels.pop();
                self.path.truncate(before);
                here = None;
                continue;
            };
            if here.is_none() {
                here = self.open_again(both)?;
            }
            let before = self.enter(&name);
            // A folder that went away meanwhile has nothing in it; one that is another thing by now is an error, and no way elsewhere.
            let within = match &here {
                Some(_) if self.path.len() >= LONGEST_PATH => {
                    self.left_out += 1;
                    None
                }
                Some(folder) => self.one(folder, &name).or_else(gone)?,
                None => None,
            };
            if let Some(folder) = within.map(|both| self.open(both)).transpose().or_else(gone)? {
                let both = folder.below.is_some();
                levels.push(Level { names: names(&folder.upper)?.into_iter(), both, before });
                here = Some(folder);
            } else {
                self.let_go();
                self.path.truncate(before);
            }
        }
        self.sink.end()?;
        Ok(self.left_out)
    }

    /// Where the folder at the path is held still, nothing in it was told of.
    fn let_go(&mut self) {
        if self.held.back().is_some_and(|held| held.path == self.path) {
            self.held.pop_back();
        }
    }

    /// The folder at the path; `both`: in the image and in the root as well.
    fn open(&self, both: bool) -> io::Result<Here> {
        let open = |top: &OwnedFd| Ok::<_, io::Error>(open_below(top, &self.path)?);
        let below = self.below.filter(|_| both);
        let below = below.map(|below| Ok::<_, io::Error>(Below { lower: open(below.lower)?, root: open(below.root)? }));
        Ok(Here { upper: open(self.upper)?, below: below.transpose()? })
    }

    /// The same once more; nothing where it went away meanwhile.
    fn open_again(&self, both: bool) -> io::Result<Option<Here>> {
        self.open(both).map(Some).or_else(gone)
    }

    /// Tells of what the image has in a folder, and the root has not.
    fn deleted(&mut self, here: Option<&Here>) -> io::Result<()> {
        let again = if here.is_none() { self.open_again(true)? } else { None };
        let Some(Below { lower, root }) = here.or(again.as_ref()).and_then(|here| here.below.as_ref()) else {
            return Ok(());
        };
        for name in names(lower)? {
            if found(root, &name)?.is_none() {
                let length = self.enter(&name);
                self.tell(Change::Deleted, What::Nothing, None)?;
                self.path.truncate(length);
            }
        }
        Ok(())
    }

    /// Gives how long the path was.
    fn enter(&mut self, name: &CStr) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend(name.to_bytes());
        length
    }

    /// Tells of what is at the path; of a folder, gives whether it is one in the image too.
    fn one(&mut self, here: &Here, name: &CStr) -> io::Result<Option<bool>> {
        let upper = &here.upper;
        let stat = statat(upper, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let was = here.below.as_ref().map(|below| found(&below.lower, name)).transpose()?.flatten();
        let change = if was.is_some() { Change::Changed } else { Change::Added };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let folder = open_folder(upper, name)?;
                let both = was.filter(|was| FileType::from_raw_mode(was.st_mode) == FileType::Directory);
                let item = self.item(change, What::Folder, Some(&stat), &folder)?;
                if self.is_quiet(both.as_ref(), &stat) {
                    self.held.push_back(item);
                } else {
                    self.send(item)?;
                }
                Ok(Some(both.is_some()))
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(upper, name, flags, Mode::empty())?;
                let stat = rustix::fs::fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let item = self.item(change, What::Nothing, Some(&stat), &file)?;
                self.send(Item { what: What::File(file.into()), ..item })?;
                Ok(None)
            }
            FileType::Symlink => {
                let target = readlinkat(upper, name, Vec::with_capacity(LONGEST_PATH))?.into_bytes();
                self.tell(change, What::Link(target), Some(&stat))?;
                Ok(None)
            }
            FileType::Fifo => {
                self.tell(change, What::Pipe, Some(&stat))?;
                Ok(None)
            }
            // How an overlay marks what is gone.
            FileType::CharacterDevice if stat.st_rdev == 0 => Ok(None),
            _ => {
                self.left_out += 1;
                Ok(None)
            }
        }
    }

    /// Nothing of the folder itself differs, or the box made it for itself: its time, and that it is there, are nobody's change.
    fn is_quiet(&self, was: Option<&Stat>, stat: &Stat) -> bool {
        let own = |path: &str| {
            let path = path.as_bytes().strip_prefix(b"/").unwrap_or_default();
            path == self.path || path.strip_prefix(self.path.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
        };
        let same = |was: &Stat| (was.st_mode, was.st_uid, was.st_gid) == (stat.st_mode, stat.st_uid, stat.st_gid);
        self.below.is_some() && was.map_or_else(|| Mount::OWN.into_iter().any(own), same)
    }

    fn item(&self, change: Change, what: What, stat: Option<&Stat>, file: &OwnedFd) -> io::Result<Item> {
        let attributes = if self.sink.wants_contents() { super::tree::attributes(file.as_fd())? } else { Vec::new() };
        Ok(Item { change, path: self.path.clone(), what, stat: stat.copied(), attributes })
    }

    fn tell(&mut self, change: Change, what: What, stat: Option<&Stat>) -> io::Result<()> {
        self.send(Item { change, path: self.path.clone(), what, stat: stat.copied(), attributes: Vec::new() })
    }

    fn send(&mut self, item: Item) -> io::Result<()> {
        if NAMES.contains(&item.path.as_slice()) {
            return Ok(());
        }
        while let Some(folder) = self.held.pop_front() {
            self.left_out += u64::from(!self.sink.take(folder)?);
        }
        self.left_out += u64::from(!self.sink.take(item)?);
        Ok(())
    }
}

/// Nothing, of what went away meanwhile.
fn gone<T>(error: io::Error) -> io::Result<Option<T>> {
    if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
}

/// The folder at a path below another; nothing leads out of that one on the way.
fn open_below(top: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { &b"."[..] } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(top, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn open_folder(at: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn found(folder: &OwnedFd, name: &CStr) -> io::Result<Option<Stat>> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// In order, so that the same root gives the same stream.
fn names(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for found in Dir::read_from(folder)? {
        let found = found?;
        if !matches!(found.file_name().to_bytes(), b"." | b"..") {
            names.push(found.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::*;

    /// As [`Lines`](super::super::tree::Lines), into memory.
    #[derive(Default)]
    struct Told<'a>(Option<&'a mut Vec<String>>);

    impl Sink for Told<'_> {
        fn wants_contents(&self) -> bool {
            false
        }

        fn take(&mut self, item: Item) -> io::Result<bool> {
            let line = format!("{} {}", item.change.word(), String::from_utf8_lossy(&item.path));
            self.0.as_mut().unwrap().push(line);
            Ok(true)
        }

        fn end(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn folder(path: &Path) -> OwnedFd {
        fs::create_dir_all(path).unwrap();
        fs::File::open(path).unwrap().into()
    }

    fn write(at: &Path, files: &[&str]) {
        for file in files {
            fs::create_dir_all(at.join(file).parent().unwrap()).unwrap();
            fs::write(at.join(file), file).unwrap();
        }
    }

    #[test]
    fn what_was_added_changed_and_deleted_is_told_with_the_folders_it_is_in_and_nothing_of_the_boxs_own() {
        let top = tempfile::tempdir().unwrap();
        let [lower, upper, root] = ["lower", "upper", "root"].map(|name| top.path().join(name));
        write(&lower, &["etc/passwd", "etc/hosts", "usr/bin/tool", "usr/share/doc", "gone/a", "was/file"]);
        write(&upper, &["etc/hosts", "etc/hostname", "usr/bin/tool", "new/deep/file", "was"]);
        write(&root, &["etc/passwd", "etc/hosts", "usr/bin/tool", "new/deep/file", "was"]);
        for own in ["proc", "run/secrets", "run/coffer", "tmp"] {
            fs::create_dir_all(upper.join(own)).unwrap();
            fs::create_dir_all(root.join(own)).unwrap();
        }
        fs::create_dir_all(root.join("usr/share")).unwrap();
        fs::create_dir_all(upper.join("usr/share")).unwrap();
        symlink("x", upper.join("new/link")).unwrap();
        let mut told = Vec::new();
        let left = changes(&folder(&upper), &folder(&lower), &folder(&root), Told(Some(&mut told))).unwrap();
        told.sort_unstable_by(|one, other| one[2..].cmp(&other[2..]));
        let expected = [
            "D gone",
            "A new",
            "A new/deep",
            "A new/deep/file",
            "A new/link",
            "A tmp",
            "C usr",
            "C usr/bin",
            "C usr/bin/tool",
            "C usr/share",
            "D usr/share/doc",
            "C was",
        ];
        assert_eq!((told, left), (expected.map(str::to_owned).to_vec(), 0));
    }

    #[test]
    fn all_of_a_root_is_told_but_for_the_names_that_each_box_has_of_its_own() {
        let top = tempfile::tempdir().unwrap();
        write(top.path(), &["etc/hosts", "etc/passwd", "proc/x"]);
        let mut told = Vec::new();
        Walk::new(Told(Some(&mut told)), &folder(top.path()), None).all().unwrap();
        assert_eq!(told, ["A etc", "A etc/passwd", "A proc", "A proc/x"]);
    }

    #[test]
    fn folders_deeper_than_there_are_descriptors_are_told_and_what_nobody_could_name_is_counted() {
        let top = tempfile::tempdir().unwrap();
        let [lower, upper, root] = ["lower", "upper", "root"].map(|name| folder(&top.path().join(name)));
        // A path of 4,095 bytes has 2,048 names of one letter; there is one more.
        let (mut both, mut at) = (Vec::new(), [&lower, &upper, &root].map(|layer| layer.try_clone().unwrap()));
        for level in 0..2049 {
            for layer in &mut at {
                rustix::fs::mkdirat(&*layer, "d", Mode::RWXU).unwrap();
                *layer = open_folder(&*layer, c"d").unwrap();
            }
            both.push("d");
            if level == 1000 {
                openat(&at[1], "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
                openat(&at[0], "gone", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            }
        }
        let mut told = Vec::new();
        let left = changes(&upper, &lower, &root, Told(Some(&mut told))).unwrap();
        assert_eq!(left, 1);
        let deep = both[..1001].join("/");
        assert_eq!(told.len(), 1003, "the folders on the way, and two things in the last of them");
        assert_eq!(told[1001..], [format!("A {deep}/file"), format!("D {deep}/gone")]);
        let mut all = Vec::new();
        assert_eq!(Walk::new(Told(Some(&mut all)), &root, None).all().unwrap(), 1);
        assert_eq!(all.len(), 2048);
        // Deeper than it could be removed by holding each.
        assert!(std::process::Command::new("rm").arg("-r").arg(top.path()).status().unwrap().success());
    }
}
