//! Removal of a folder with all that is in it, however deep: a box may have made it.
//!
//! What lies deeper than the second level is moved up there first, so that four folders are open at a time and no path is longer than
//! a name. A folder whose mode keeps its owner out is opened to it. Trusts: that nobody else changes the folder meanwhile.
//! Never: follows a link, or leaves the folder.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

/// So many names of folders are held at a time.
const AT_ONCE: usize = 4096;

/// Removes a folder. One that is not there is removed already.
///
/// # Errors
/// The file system's, of the first thing that stays. What went before it is gone.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.is_dir() => let_in(CWD, path),
        _ => {}
    }
    let top = open(CWD, path)?;
    let mut moved = 0_u64;
    while let Some(folders) = remove_files(&top)? {
        for name in folders {
            let folder = open(&top, &name)?;
            while let Some(deeper) = remove_files(&folder)? {
                for deep in deeper {
                    move_up(&folder, &deep, &top, &mut moved)?;
                }
            }
            unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
    }
    fs::remove_dir(path)
}

/// Lets its owner into a folder, and have parts of it elsewhere. Where that is somebody else, what follows says so.
fn let_in(at: impl AsFd, path: impl Arg) {
    let _ = chmodat(at, path, Mode::RWXU, AtFlags::empty());
}

fn open(at: impl AsFd, path: impl Arg) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, path, flags, Mode::empty())?.into())
}

/// Removes what is no folder, and names the folders: not all of them where there are many. Nothing, where there was nothing.
fn remove_files(folder: &File) -> io::Result<Option<Vec<OsString>>> {
    let (mut folders, mut empty) = (Vec::new(), true);
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        if name == "." || name == ".." {
            continue;
        }
        empty = false;
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
            known => known,
        };
        if kind != FileType::Directory {
            unlinkat(folder, &name, AtFlags::empty())?;
            continue;
        }
        let_in(folder, &name);
        folders.push(name);
        if folders.len() == AT_ONCE {
            break;
        }
    }
    Ok((!empty).then_some(folders))
}

/// Gives a folder a place at the top, under a name that is free or an empty folder's.
fn move_up(from: &File, name: &OsString, top: &File, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        match renameat(from, name, top, format!("{moved}")) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Command;

    use rustix::fs::mkdirat;
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    use super::*;

    /// Says to the test below that it has few descriptors.
    const FEW: &str = "COFFER_TEST_FEW_DESCRIPTORS";

    #[test]
    fn a_folder_deeper_than_there_are_descriptors_goes_whole() {
        if std::env::var_os(FEW).is_none() {
            let test = "removal::tests::a_folder_deeper_than_there_are_descriptors_goes_whole";
            let again = Command::new("sh")
                .args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\""])
                .arg(std::env::current_exe().unwrap())
                .arg(test)
                .env(FEW, "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&again.stdout);
            assert!(again.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep");
        fs::create_dir(&path).unwrap();
        let (name, mut at) = ("d".repeat(100), open(CWD, &path).unwrap());
        for level in 0..200 {
            for beside in [name.as_str(), "1", "2"] {
                mkdirat(&at, beside, Mode::RWXU).unwrap();
            }
            openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            at = open(&at, name.as_str()).unwrap_or_else(|error| panic!("{level}: {error}"));
        }
        drop(at);
        remove_folder(&path).unwrap();
        assert!(!path.exists());
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
    }

    #[test]
    fn modes_that_keep_a_folders_owner_out_keep_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone");
        fs::create_dir_all(path.join("shut/in/deeper")).unwrap();
        fs::create_dir_all(path.join("read/only/deeper")).unwrap();
        for (closed, mode) in
            [("shut/in", 0), ("shut", 0), ("read/only/deeper", 0o500), ("read/only", 0o500), ("read", 0o500), ("", 0)]
        {
            fs::set_permissions(path.join(closed), fs::Permissions::from_mode(mode)).unwrap();
        }
        let nothing = CapabilitySet::empty();
        let as_anybody = || {
            // Of this thread alone: root may whatever the modes say.
            let sets = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
            set_capabilities(None, sets).unwrap();
            remove_folder(&path)
        };
        std::thread::scope(|scope| scope.spawn(as_anybody).join().unwrap()).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_links_lead_to_stays_and_many_folders_go() {
        let folder = tempfile::tempdir().unwrap();
        let (path, kept) = (folder.path().join("gone"), folder.path().join("kept"));
        fs::create_dir_all(path.join("a/b/c")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        for link in ["link", "a/link", "a/b/link", "a/b/c/link"] {
            symlink(&kept, path.join(link)).unwrap();
        }
        for at in 0..=AT_ONCE {
            fs::create_dir(path.join(format!("a/b/{at}"))).unwrap();
        }
        // A name that a folder gets on its way up.
        fs::create_dir_all(path.join("1/1/1")).unwrap();
        remove_folder(&path).unwrap();
        assert!(!path.exists() && kept.join("file").exists());
        remove_folder(&path).unwrap();
        symlink(&kept, &path).unwrap();
        assert!(remove_folder(&path).is_err() && kept.join("file").exists());
    }
}
