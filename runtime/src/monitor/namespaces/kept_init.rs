//! Init as a program of this host's: taken out of an initrd and held against that one's digest once, then mounted into every box
//! that starts with it.
//!
//! Trusts: root of this host, whose folder it is. Never: gives a box anything it could write to, or names what was not held
//! against its digest.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use coffer_platform::files::copy_init;
use coffer_rim::{Class, Classify as _, Failure, unnamed};
use rustix::fs::CWD;
use tempfile::NamedTempFile;

use super::order::Initrd;
use crate::home::private_folder;
use crate::platform_folder::of_boxs_platform;
use crate::process::this_boot;
use crate::sys::namespaces::mount_program;

/// Where they are kept. Root's, so that nobody else puts one there.
pub const KEPT: &str = "/run/coffer-inits";
/// So many; the others were of platforms that were here before.
const MOST: usize = 4;
/// Another program may take away what was just made, if it made more than so many.
const TRIES: usize = 3;

/// Init of this initrd as a mount that stands in no folder, and lets nothing be changed.
///
/// # Errors
/// Class `config` for an initrd that has another digest, `platform` for what this host does not let us do.
pub fn mount_init(kept: &Path, initrd: &Initrd) -> Result<OwnedFd, Failure> {
    let what = "cannot keep the guest platform's init for its boxes";
    private_folder(kept).class(Class::Platform)?;
    let program = kept.join(name_of(initrd)?);
    for _ in 0..TRIES {
        match mount_program(&program) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(kept, &program, initrd)?,
            mounted => return mounted.class_while(Class::Platform, what),
        }
    }
    Err(Failure::new(Class::Platform, format!("{what}: others take it away from {}", kept.display())))
}

/// By its digest, whatever a manifest says, and by this start of the host: what a crash left half on its disk is another's.
fn name_of(initrd: &Initrd) -> Result<String, Failure> {
    let mut digest = [0; 32];
    hex::decode_to_slice(&initrd.sha256, &mut digest).class_while(Class::Internal, "the initrd's digest")?;
    let boot = this_boot().class_while(Class::Platform, "cannot tell this start of the host from others")?;
    Ok(format!("{}-{boot}", hex::encode(digest)))
}

fn make(kept: &Path, program: &Path, initrd: &Initrd) -> Result<(), Failure> {
    let what = "cannot keep the guest platform's init for its boxes";
    let class = |made: io::Result<()>| made.class_while(Class::Platform, what);
    let mut copied = Ok(());
    let mut write = |mut file: &File| -> io::Result<()> {
        copied = copy_init(&initrd.file, &initrd.sha256, &mut file);
        file.set_permissions(Permissions::from_mode(0o555))
    };
    // Open for writing, it could not be run: it is closed before it has its name.
    let there = if let Some(file) = unnamed::new(CWD, kept) {
        class(write(&file))?;
        let read = File::open(unnamed::way_to(&file)).class_while(Class::Platform, what)?;
        drop(file);
        copied.map_err(|error| of_boxs_platform(&error))?;
        unnamed::link(&read, CWD, program).map_err(io::Error::from)
    } else {
        let (file, path) = NamedTempFile::new_in(kept)?.into_parts();
        class(write(&file))?;
        drop(file);
        copied.map_err(|error| of_boxs_platform(&error))?;
        path.persist_noclobber(program).map_err(|error| error.error)
    };
    match there {
        // Somebody else's is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        there => class(there)?,
    }
    forget(kept, program);
    Ok(())
}

/// Those that were made first. Boxes that run keep theirs.
fn forget(kept: &Path, but: &Path) {
    let Ok(entries) = fs::read_dir(kept) else { return };
    let others = entries.flatten().filter(|entry| entry.path() != but);
    let mut others: Vec<(_, PathBuf)> =
        others.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    others.sort();
    for (_, path) in others.iter().rev().skip(MOST - 1) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use coffer_platform::initrd::build;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn initrd_of(folder: &Path, init: &[u8]) -> Initrd {
        let archive = build(init, &[]);
        let file = folder.join("initrd");
        fs::write(&file, &archive).unwrap();
        Initrd { file, sha256: hex::encode(Sha256::digest(&archive)) }
    }

    fn names(folder: &Path) -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    #[test]
    fn init_is_kept_as_a_program_that_nobody_writes_to() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let initrd = initrd_of(folder.path(), b"#!/bin/true\n");
        let program = kept.path().join(&initrd.sha256);
        // Somebody else may have made it just now.
        for _ in 0..2 {
            make(kept.path(), &program, &initrd).unwrap();
            assert_eq!(fs::read(&program).unwrap(), b"#!/bin/true\n");
            assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o7777, 0o555);
            assert!(std::process::Command::new(&program).status().unwrap().success());
            assert_eq!(names(kept.path()), [program.as_path()]);
        }
    }

    #[test]
    fn what_has_another_digest_leaves_nothing() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let initrd = initrd_of(folder.path(), b"init");
        for (change, says) in [(&b"x"[..], "has SHA-256"), (&[], "no init")] {
            let mut bytes = fs::read(&initrd.file).unwrap();
            bytes.extend_from_slice(change);
            fs::write(&initrd.file, if change.is_empty() { &[] } else { &bytes[..] }).unwrap();
            let failure = make(kept.path(), &kept.path().join(&initrd.sha256), &initrd).unwrap_err();
            assert!(format!("{failure:?}").contains(says), "{failure:?}");
            assert_eq!(failure.class, Class::Config);
            assert!(names(kept.path()).is_empty());
        }
    }

    #[test]
    fn a_digest_that_is_none_names_no_file() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let initrd = initrd_of(folder.path(), b"init");
        for sha256 in ["", "..", "../../etc/passwd", &"ab/".repeat(21), &initrd.sha256[1..]] {
            let failure = mount_init(kept.path(), &Initrd { sha256: sha256.into(), ..initrd.clone() }).unwrap_err();
            assert_eq!(failure.class, Class::Internal, "{sha256}");
        }
        assert!(names(kept.path()).is_empty());
    }

    #[test]
    fn those_of_platforms_before_are_forgotten() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut all = Vec::new();
        for round in 0..=MOST {
            let initrd = initrd_of(folder.path(), &[7; 9][..=round]);
            let program = kept.path().join(&initrd.sha256);
            make(kept.path(), &program, &initrd).unwrap();
            let made = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(round as u64);
            File::open(&program).unwrap().set_modified(made).unwrap();
            all.push(program);
        }
        let mut last = all.split_off(1);
        last.sort();
        assert_eq!(names(kept.path()), last);
    }
}
