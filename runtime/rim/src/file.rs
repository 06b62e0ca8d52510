//! Files that matter: written without a name, or beside their place, synced, named, and the folder synced. A reader never sees half
//! of one, and after a crash there is the old one or the new one.

use std::cell::RefCell;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, open};

use crate::whole::Whole;

/// How a file is written.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    mode: u32,
    owner: Option<(u32, u32)>,
    replace: bool,
    synced: bool,
    pipes: bool,
    room: u64,
}

/// A step of writing a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is made beside its place.
    Create,
    /// Bytes go into it.
    Write,
    /// They are made to last.
    Sync,
    /// It gets its name.
    Rename,
    /// The name is made to last.
    SyncFolder,
}

/// Called before a step with the file it is about; its error becomes the step's.
pub type StepFn = Rc<dyn Fn(Step, &Path) -> io::Result<()>>;

thread_local! {
    static BEFORE_STEPS: RefCell<Option<StepFn>> = const { RefCell::new(None) };
}

/// Does `act` with a look at each step of each file that this thread writes meanwhile, before it is taken. For tests of what
/// failures and interruptions leave.
pub fn before_steps<T>(look: StepFn, act: impl FnOnce() -> T) -> T {
    struct Restore(Option<StepFn>);
    impl Drop for Restore {
        fn drop(&mut self) {
            BEFORE_STEPS.set(self.0.take());
        }
    }
    let _restore = Restore(BEFORE_STEPS.replace(Some(look)));
    act()
}

fn step(step: Step, path: &Path) -> io::Result<()> {
    let look = BEFORE_STEPS.with_borrow(Clone::clone);
    look.map_or(Ok(()), |look| look(step, path))
}

/// A file that only its owner may read, in place of one that may be there.
///
/// # Errors
/// The file system's. The old file is then still there, whole.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Writer::private().write(path, bytes)
}

impl Writer {
    /// Mode 0600, ours, replaces what is there.
    pub const fn private() -> Self {
        Self { mode: 0o600, owner: None, replace: true, synced: true, pipes: false, room: 0 }
    }

    /// In place of what is at `path`, with its mode, and given to its user and group: whoever could read it can read what comes.
    ///
    /// # Errors
    /// The file system's, of a file that is not there for one. [`Self::write`] fails where the file is another user's and not ours
    /// to give away: what is there stays.
    pub fn in_place_of(path: &Path) -> io::Result<Self> {
        let there = path.metadata()?;
        Ok(Self::private().mode(there.permissions().mode() & 0o777).owner(there.uid(), there.gid()))
    }

    /// Another mode, which the file has from its first byte.
    #[must_use]
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Given to this user and group before its first byte.
    #[must_use]
    pub const fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    /// A file that is there already is an error ([`io::ErrorKind::AlreadyExists`]), and stays.
    #[must_use]
    pub const fn new_only(mut self) -> Self {
        self.replace = false;
        self
    }

    /// Not synced: for what is made anew after a crash, and which no reader may see half of all the same.
    #[must_use]
    pub const fn unsynced(mut self) -> Self {
        self.synced = false;
        self
    }

    /// For a file that a person names: where a terminal, a pipe or another device is there, it is written into. It has no
    /// name that could move. A pipe that nobody reads is refused, and not waited for.
    #[must_use]
    pub const fn into_pipes(mut self) -> Self {
        self.pipes = true;
        self
    }

    /// Room for so many bytes is taken before any is made, where the file system knows how: it is full then, and not only when
    /// there is something that would be lost.
    #[must_use]
    pub const fn room(mut self, bytes: u64) -> Self {
        self.room = bytes;
        self
    }

    /// Writes the whole file.
    ///
    /// # Errors
    /// The file system's. What stood there before is then still there, whole; or the new file is, whole, where all that failed
    /// was making its name last. Where only a new file is wanted, none is there after an error.
    pub fn write(self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write_with(path, |file| file.write_all(bytes))
    }

    /// Writes the whole file from what `fill` gives.
    ///
    /// # Errors
    /// As [`Self::write`], or what `fill` gives.
    pub fn write_with(self, path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        if self.pipes && path.metadata().is_ok_and(|there| !there.is_file() && !there.is_dir()) {
            return fill(&mut at_once(File::options().write(true), OFlags::empty(), path)?);
        }
        // Renamed over it, the link would be gone and what it leads to would stay as it was: neither is what was asked for.
        if self.replace && path.symlink_metadata().is_ok_and(|there| there.is_symlink()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a symbolic link, which is not replaced: name what it leads to",
            ));
        }
        if path.metadata().is_ok_and(|there| !there.is_file() && !there.is_dir()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is there and no regular file"));
        }
        // The name would be refused at last, when what was filled in may be the only one of its kind.
        if self.replace && path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder: name a file in it"));
        }
        if self.replace && is_mounted_at(path) {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "something is mounted there, which is not replaced",
            ));
        }
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        step(Step::Create, path)?;
        let opened = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut whole = Whole::new(opened.as_fd(), name)?;
        let file = whole.file();
        if let Some((uid, gid)) = self.owner {
            std::os::unix::fs::fchown(&*file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(self.mode))?;
        step(Step::Write, path)?;
        take_room(file, self.room)?;
        fill(file)?;
        if self.room > 0 {
            // What was not needed is given back.
            let length = file.stream_position()?;
            file.set_len(length)?;
        }
        if self.synced {
            step(Step::Sync, path)?;
            file.sync_all()?;
        }
        step(Step::Rename, path)?;
        if self.replace { whole.name(name) } else { whole.name_anew(name) }?;
        if !self.synced {
            return Ok(());
        }
        step(Step::SyncFolder, path).and_then(|()| sync_folder(folder)).inspect_err(|_| {
            if !self.replace {
                // It was made a moment ago, and nobody was told of it.
                let _ = std::fs::remove_file(path);
            }
        })
    }
}

/// Opens a file that a person names, or makes one that only its owner may read, to write behind what is there; also a pipe or another
/// device.
///
/// # Errors
/// The file system's, and one for a pipe that nobody reads.
pub fn append(path: &Path) -> io::Result<File> {
    at_once(File::options().append(true).create(true).mode(0o600), OFlags::APPEND, path)
}

/// A pipe that lies somewhere may never be read: its opening is not waited for, what is written into it is. `stays`: of the flags.
fn at_once(options: &mut OpenOptions, stays: OFlags, path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = options.custom_flags(flags).open(path).map_err(|error| {
        let is_pipe = path.metadata().is_ok_and(|there| there.file_type().is_fifo());
        match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::NXIO) if is_pipe => io::Error::new(
                io::ErrorKind::NotConnected,
                "is a pipe that nobody reads: start its reader before, or name a file",
            ),
            _ => error,
        }
    })?;
    rustix::fs::fcntl_setfl(&file, stays)?;
    Ok(file)
}

/// Writes a whole file that only its owner may read, under a new name that ends so, into the first of these folders that takes
/// it; gives its path. For what must not be lost where its own place does not take it.
///
/// # Errors
/// Why the last of them does not take it.
pub fn write_anywhere(folders: &[&Path], ending: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for folder in folders {
        result = write_somewhere_in(folder, ending, bytes);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn write_somewhere_in(folder: &Path, ending: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let folder = std::path::absolute(folder)?;
    let builder = &mut tempfile::Builder::new();
    let builder = builder.prefix("coffer-").suffix(ending).permissions(Permissions::from_mode(0o600));
    let mut file = builder.tempfile_in(&folder).map_err(without_its_name)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    let (_, path) = file.keep().map_err(|error| error.error)?;
    sync_folder(&folder)?;
    Ok(path)
}

/// The system's words alone: a name that is nobody's, and is gone, tells a reader nothing.
fn without_its_name(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((words, _)) => io::Error::new(error.kind(), words),
        None => error,
    }
}

/// Where the kernel says so.
fn is_mounted_at(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Only what says that there is no room counts: not every file system can promise it.
fn take_room(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    if bytes == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
        Err(full @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(full.into()),
        _ => Ok(()),
    }
}

/// Makes renames and removals in a folder last.
///
/// # Errors
/// The file system's.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_something_is_mounted_at_is_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_mounted_at(Path::new("/proc")));
        assert!(!is_mounted_at(folder.path()) && !is_mounted_at(&folder.path().join("none")));
    }

    #[test]
    fn what_takes_a_files_place_is_for_whom_that_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        assert_eq!(Writer::in_place_of(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        // Another user's, where this test may give it away.
        let _ = std::os::unix::fs::chown(&file, Some(65534), Some(65534));
        let of = |there: &std::fs::Metadata| (there.uid(), there.gid(), there.permissions().mode());
        let before = of(&file.metadata().unwrap());
        Writer::in_place_of(&file).unwrap().write(&file, b"new").unwrap();
        assert_eq!((of(&file.metadata().unwrap()), std::fs::read(&file).unwrap()), (before, b"new".to_vec()));
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_symbolic_link_is_neither_replaced_nor_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::os::unix::fs::symlink("file", &link).unwrap();
        // Before what it leads to is there, and after.
        for there in [false, true] {
            for writer in [Writer::private(), Writer::private().into_pipes(), Writer::private().new_only()] {
                writer.write(&link, b"new").unwrap_err();
                assert!(link.is_symlink() && file.exists() == there);
            }
            std::fs::write(&file, "old").unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
        assert_eq!(names(dir.path()), ["file", "link"]);
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_refused_and_one_that_is_read_gets_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let said = Writer::private().into_pipes().write(&pipe, b"text").unwrap_err().to_string();
        assert!(said.starts_with("is a pipe that nobody reads"), "{said}");
        assert_eq!(append(&pipe).unwrap_err().to_string(), said);
        // More than a pipe holds: what is written waits for who reads, however late that is.
        let text = vec![7; 1 << 18];
        let there = crate::regular::open(File::options().read(true), &pipe).unwrap_err();
        assert_eq!(there.to_string(), "is no regular file");
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut reader = File::options().read(true).custom_flags(flags).open(&pipe).unwrap();
        rustix::fs::fcntl_setfl(&reader, OFlags::empty()).unwrap();
        // Between two that write there is no end of what is read.
        let _held = File::options().write(true).open(&pipe).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                Writer::private().into_pipes().write(&pipe, &text).unwrap();
                append(&pipe).unwrap().write_all(b"last").unwrap();
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            let mut read = vec![0; text.len() + 4];
            io::Read::read_exact(&mut reader, &mut read).unwrap();
            assert!(read.starts_with(&text) && read.ends_with(b"last"));
        });
    }

    #[test]
    fn what_is_appended_stands_behind_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut one, mut other) = (append(&path).unwrap(), append(&path).unwrap());
        one.write_all(b"one\n").unwrap();
        other.write_all(b"other\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\nother\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn replaces_whole_files_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for (writer, text) in [(Writer::private(), "first"), (Writer::private().unsynced(), "second, longer")] {
            writer.write(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        }
        assert_eq!(names(dir.path()), ["key"]);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_private(&path, b"old").unwrap();
        let half = |file: &mut File| file.write_all(b"ne").and_then(|()| Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(Writer::private().write_with(&path, half).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!((std::fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["key".to_owned()]));
    }

    #[test]
    fn where_there_is_no_room_nothing_is_asked_for_what_fills_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_private(&path, b"old").unwrap();
        let mut asked = false;
        let fill = |_: &mut File| {
            asked = true;
            Ok(())
        };
        let full = Writer::private().room(1 << 62).write_with(&path, fill).unwrap_err();
        assert!(!asked && matches!(full.kind(), io::ErrorKind::FileTooLarge | io::ErrorKind::StorageFull), "{full}");
        assert_eq!((std::fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["key".to_owned()]));
        Writer::private().room(1 << 20).write(&path, b"new").unwrap();
        let there = std::fs::metadata(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(there.blocks() * 512 < 1 << 20, "the rest of it is given back");
    }

    #[test]
    fn an_error_of_a_folder_names_no_file_that_nobody_named() {
        let dir = tempfile::tempdir().unwrap();
        let absent = write_private(&dir.path().join("none/key"), b"new").unwrap_err();
        assert_eq!(absent.to_string(), io::Error::from_raw_os_error(2).to_string());
    }

    #[test]
    fn what_must_not_be_lost_goes_where_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let (none, there) = (dir.path().join("none"), dir.path().join("there"));
        std::fs::create_dir(&there).unwrap();
        let path = write_anywhere(&[&none, &there, dir.path()], ".sealed", b"bytes").unwrap();
        assert!(path.parent() == Some(&there) && path.extension().is_some_and(|end| end == "sealed"), "{path:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(write_anywhere(&[&none], ".sealed", b"x").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(names(dir.path()), ["there"]);
    }

    #[test]
    fn a_write_that_fails_at_any_step_leaves_the_old_file_or_the_new_one_whole() {
        use Step::{Create, Rename, Sync, SyncFolder, Write};
        for failing in [Create, Write, Sync, Rename, SyncFolder] {
            let look: StepFn =
                Rc::new(move |step, _| if step == failing { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) });
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("key");
            let new = before_steps(look.clone(), || Writer::private().new_only().write(&path, b"new"));
            assert_eq!(new.unwrap_err().kind(), io::ErrorKind::StorageFull, "{failing:?}");
            assert!(names(dir.path()).is_empty(), "{failing:?}");
            write_private(&path, b"old").unwrap();
            assert!(before_steps(look, || write_private(&path, b"new")).is_err());
            let expected = if failing == SyncFolder { b"new" } else { b"old" };
            assert_eq!(std::fs::read(&path).unwrap(), expected, "{failing:?}");
            assert_eq!(names(dir.path()), ["key"], "{failing:?}");
            write_private(&path, b"newer").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"newer", "nobody looks any more");
        }
    }

    #[test]
    fn a_device_that_a_person_names_is_written_into_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        for (device, error) in [("/dev/null", None), ("/dev/full", Some(io::ErrorKind::StorageFull))] {
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink(device, &path).unwrap();
            let written = Writer::private().into_pipes().write(&path, b"new");
            assert_eq!(written.err().map(|error| error.kind()), error, "{device}");
            assert_eq!(std::fs::read_link(&path).unwrap(), Path::new(device));
            assert_eq!(names(dir.path()), ["out"]);
        }
        let refused = Writer::private().write(&path, b"new").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "a device is not replaced either");
        assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("/dev/full"));
        std::fs::remove_file(&path).unwrap();
        Writer::private().into_pipes().write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn what_is_there_stays_where_only_a_new_file_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        Writer::private().new_only().mode(0o400).write(&path, b"old").unwrap();
        let error = Writer::private().new_only().write(&path, b"new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o400);
        assert_eq!(names(dir.path()), ["key"]);
    }
}
