//! Data volumes: file systems that outlive the guest. Plain guests alone have them, so that all of it is their host's word.
//!
//! ```text
//! disk of the host's ─► ext4 ─► its folder `data` ─► the workload
//! ```
//!
//! A volume has no folder `data` until a guest that may write it mounted it first: then it gets what the image has at that path, as in
//! Docker, in a folder `new` that is renamed once it is whole. What the file system's own tools keep beside it (`lost+found`) the
//! workload does not see.
//! Trusts: the host. Never: runs in a guest with a TEE, whose spec has none; follows a link out of the image.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use coffer_machine::disks::{self, MOST_VOLUMES};
use coffer_spec::DataVolume;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2, syncfs},
    mount::{MountFlags, UnmountFlags, unmount},
};

use super::{
    devices,
    mounts::{OWN, at},
    root::ROOT,
};
use crate::{
    container::Bind,
    failure::{Code, Failure, OrFail},
};

/// What of a volume is the workload's.
const DATA: &str = DataVolume::CONTENTS;
/// What is to become that.
const NEW: &str = "new";
/// What a volume has that nobody wrote yet, where nothing may be written.
const NOTHING: &str = "/run/coffer/empty";
/// Folders deep in each other that are copied.
const DEPTH: usize = 256;

/// Mounts every data volume out of the workload's sight, and says what is to appear where.
///
/// # Errors
/// `volume-unusable`, else `internal`.
pub fn mount_volumes(volumes: &[DataVolume]) -> Result<Vec<Bind>, Failure> {
    let mount = |(index, volume): (usize, &DataVolume)| {
        let disk = devices::find_disk(devices::SYS_BLOCK.as_ref(), &disks::data(index).to_string())?;
        let (flags, options) = if volume.read_only {
            (MountFlags::RDONLY, "")
        } else {
            // Tables of inodes that were never used are holes of the host's file, and stay so; what is freed becomes one again.
            (MountFlags::empty(), "noinit_itable,discard")
        };
        let (folder, flags) = (mount_point(index), flags | MountFlags::NODEV | MountFlags::NOSUID);
        at(&disk.node.to_string_lossy(), &folder, "ext4", flags, options).map_err(|failure| {
            // The journal of a run that was cut off, which nobody may play back.
            let unclean = volume.read_only && failure.errno == libc::EROFS;
            let why = if unclean { ": its last run was cut off, and only one that may write it mends it" } else { "" };
            Failure { code: Code::VolumeUnusable, detail: format!("{}{why}", failure.detail), ..failure }
        })?;
        bind(volume, Path::new(&folder), Path::new(ROOT))
    };
    volumes.iter().enumerate().map(mount).collect()
}

/// Takes them away again, so that the next guest finds nothing to mend. To be called when nothing of the workload lives.
pub fn unmount_volumes() {
    for index in 0..MOST_VOLUMES {
        // One that is still in use has a journal.
        let _ = unmount(mount_point(index), UnmountFlags::empty());
    }
}

fn mount_point(index: usize) -> String {
    format!("{OWN}/data/{index}")
}

/// What of a volume that is mounted in `folder` appears, and where; a fresh one gets first what the image has there.
///
/// # Errors
/// `volume-unusable`.
pub fn bind(volume: &DataVolume, folder: &Path, image: &Path) -> Result<Bind, Failure> {
    let data = folder.join(DATA);
    let look = format!("look at the volume for {}", volume.path);
    let from = if is_folder(&data).or_fail(Code::VolumeUnusable, &look)? {
        data
    } else if volume.read_only {
        fs::create_dir_all(NOTHING).or_fail(Code::Internal, NOTHING)?;
        PathBuf::from(NOTHING)
    } else {
        let what = format!("fill the fresh volume for {}", volume.path);
        begin(volume, folder, &data, image).or_fail(Code::VolumeUnusable, &what)?;
        data
    };
    Ok(Bind { from, to: volume.path.clone(), read_only: volume.read_only })
}

/// Whether there is a folder.
///
/// # Errors
/// If there is something else.
fn is_folder(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) => Err(io::Error::other(format!("{} is no folder", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn begin(volume: &DataVolume, folder: &Path, data: &Path, image: &Path) -> io::Result<()> {
    let new = folder.join(NEW);
    // A folder of the host's may be another guest's as well, which begins it at the same time: who is first does.
    let folder = File::open(folder)?;
    folder.lock()?;
    if is_folder(data)? {
        return Ok(());
    }
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir(&new)?,
    }
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    let source = if volume.begins_empty { None } else { folder_of_image(image, &volume.path)? };
    if let Some(source) = source {
        copy_folder(Path::new(&format!("/proc/self/fd/{}", source.as_raw_fd())), &new, DEPTH)?;
    }
    syncfs(&folder)?;
    fs::rename(&new, data)?;
    folder.sync_all()
}

/// The folder that the image has at a path, wherever its links lead inside it.
fn folder_of_image(image: &Path, path: &str) -> io::Result<Option<File>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let image = openat(CWD, image, flags, Mode::empty())?;
    match openat2(&image, path.trim_start_matches('/'), flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(folder) => Ok(Some(folder.into())),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Copies what is in a folder and whose it is: files, folders and links, with users, groups and permissions.
fn copy_folder(from: &Path, to: &Path, depth: usize) -> io::Result<()> {
    let depth = depth.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(libc::ELOOP))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let found = entry.metadata()?;
        if found.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
            lchown(&to, Some(found.uid()), Some(found.gid()))?;
            continue;
        }
        if found.is_dir() {
            fs::create_dir(&to)?;
            copy_folder(&from, &to, depth)?;
        } else if found.is_file() {
            io::copy(&mut File::open(&from)?, &mut File::create_new(&to)?)?;
        } else {
            continue;
        }
        belongs_as(&to, &found)?;
    }
    belongs_as(to, &fs::metadata(from)?)
}

fn belongs_as(path: &Path, found: &fs::Metadata) -> io::Result<()> {
    lchown(path, Some(found.uid()), Some(found.gid()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(found.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(path: &str) -> DataVolume {
        DataVolume { path: path.into(), read_only: false, begins_empty: false }
    }

    /// An image with data, and a volume with the folder that ext4 keeps for itself.
    fn world() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (image, mounted) = (folder.path().join("image"), folder.path().join("mounted"));
        fs::create_dir_all(image.join("srv/db/deep")).unwrap();
        fs::create_dir_all(mounted.join("lost+found")).unwrap();
        fs::write(image.join("srv/db/deep/table"), "rows").unwrap();
        fs::set_permissions(image.join("srv/db"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(image.join("srv/db/deep/table"), fs::Permissions::from_mode(0o4640)).unwrap();
        symlink("deep/table", image.join("srv/db/link")).unwrap();
        symlink("/srv/db", image.join("db")).unwrap();
        symlink("../../../../../../etc", image.join("out")).unwrap();
        (folder, image, mounted)
    }

    #[test]
    fn a_fresh_volume_begins_with_what_the_image_has_there_and_keeps_what_is_written() {
        let (_folder, image, mounted) = world();
        let found = bind(&volume("/db"), &mounted, &image).unwrap();
        assert_eq!((found.from.as_path(), found.to.as_str()), (mounted.join("data").as_path(), "/db"));
        assert!(!found.read_only);
        let at = |path: &str| mounted.join("data").join(path);
        assert_eq!(fs::read(at("deep/table")).unwrap(), b"rows");
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("deep/table"));
        assert_eq!(fs::metadata(at("deep/table")).unwrap().mode() & 0o7777, 0o4640);
        assert_eq!(fs::metadata(at("")).unwrap().mode() & 0o7777, 0o700);
        fs::write(at("deep/table"), "more").unwrap();
        bind(&volume("/db"), &mounted, &image).unwrap();
        assert_eq!(fs::read(at("deep/table")).unwrap(), b"more", "the image's is not put over it");
        let names: Vec<_> = fs::read_dir(&mounted).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_fill_that_was_cut_off_is_begun_again_and_an_empty_one_is_empty() {
        let (_folder, image, mounted) = world();
        fs::create_dir(mounted.join("new")).unwrap();
        fs::write(mounted.join("new/half"), "").unwrap();
        bind(&DataVolume { begins_empty: true, ..volume("/db") }, &mounted, &image).unwrap();
        assert_eq!(fs::read_dir(mounted.join("data")).unwrap().count(), 0);
        assert_eq!(fs::metadata(mounted.join("data")).unwrap().mode() & 0o7777, 0o755);
        for path in ["/nowhere", "/srv/db/deep/table", "/out/passwd"] {
            fs::remove_dir_all(mounted.join("data")).unwrap();
            bind(&volume(path), &mounted, &image).unwrap();
            assert_eq!(fs::read_dir(mounted.join("data")).unwrap().count(), 0, "{path}");
        }
    }

    #[test]
    fn of_those_who_begin_a_volume_at_once_the_first_does_and_the_others_have_what_it_made() {
        let (_folder, image, mounted) = world();
        // Who has the lock has begun it already, but for the name.
        let held = File::open(&mounted).unwrap();
        held.lock().unwrap();
        fs::create_dir(mounted.join("new")).unwrap();
        fs::write(mounted.join("new/first"), "").unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| bind(&volume("/db"), &mounted, &image));
            let waits = || {
                let locks = fs::read_to_string("/proc/locks").unwrap();
                let inode = format!(":{} ", fs::metadata(&mounted).unwrap().ino());
                locks.lines().any(|line| line.contains("->") && line.contains(&inode))
            };
            while !waits() && !second.is_finished() {
                std::thread::yield_now();
            }
            fs::rename(mounted.join("new"), mounted.join("data")).unwrap();
            drop(held);
            second.join().unwrap().unwrap();
        });
        let names: Vec<_> =
            fs::read_dir(mounted.join("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["first"], "nothing of it is taken away, and nothing put over it");
    }

    #[test]
    fn what_may_not_be_written_is_not_and_what_is_no_folder_is_refused() {
        let (_folder, image, mounted) = world();
        let read_only = DataVolume { read_only: true, ..volume("/db") };
        fs::write(mounted.join("data"), "no folder").unwrap();
        for volume in [&read_only, &volume("/db")] {
            assert_eq!(bind(volume, &mounted, &image).unwrap_err().code, Code::VolumeUnusable);
        }
        fs::remove_file(mounted.join("data")).unwrap();
        symlink("/etc", mounted.join("data")).unwrap();
        assert_eq!(bind(&read_only, &mounted, &image).unwrap_err().code, Code::VolumeUnusable);
    }

    #[test]
    fn folders_that_lie_too_deep_in_each_other_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("a/b/c")).unwrap();
        fs::create_dir(&to).unwrap();
        assert!(copy_folder(&from, &to, 3).is_err());
        fs::remove_dir_all(&to).unwrap();
        fs::create_dir(&to).unwrap();
        copy_folder(&from, &to, 4).unwrap();
    }
}
