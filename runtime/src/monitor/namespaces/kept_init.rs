//! Init as a program of this host's: taken out of an initrd and held against that one's digest once, then copied into the root of
//! every box that starts with it, for which nothing is hashed.
//!
//! Trusts: root of this host, whose folder it is. Never: gives a box the file itself, which others have too; names what was not held
//! against its digest.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use coffer_platform::files::copy_init;
use coffer_rim::{Class, Classify as _, Failure, unnamed};
use rustix::fs::CWD;
use tempfile::NamedTempFile;

use super::order::Initrd;
use crate::home::private_folder;
use crate::platform_folder::of_boxs_platform;
use crate::process::this_boot;

/// Where they are kept. Root's, so that nobody else puts one there.
pub const KEPT: &str = "/run/coffer-inits";
/// So many; the others were of platforms that were here before.
const MOST: usize = 4;
/// Another program may take away what was just made, if it made more than so many.
const TRIES: usize = 3;

/// Init of this initrd, to be read.
///
/// # Errors
/// Class `config` for an initrd that has another digest, `platform` for what this host does not let us do.
pub fn open(kept: &Path, initrd: &Initrd) -> Result<File, Failure> {
    private_folder(kept).class(Class::Platform)?;
    let program = kept.join(name_of(initrd)?);
    for _ in 0..TRIES {
        match File::open(&program) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(kept, &program, initrd)?,
            opened => return opened.map_err(|error| not_kept(kept, &error)),
        }
    }
    Err(not_kept(kept, &io::Error::other("others take it away")))
}

fn not_kept(kept: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot keep the guest platform's init in {}", kept.display());
    let failure = Failure::caused(Class::Platform, error).while_doing(what);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failure.hint("make room there"),
        _ => failure,
    }
}

/// By its digest, whatever a manifest says, and by this start of the host: what a crash left half on its disk is another's.
fn name_of(initrd: &Initrd) -> Result<String, Failure> {
    let mut digest = [0; 32];
    hex::decode_to_slice(&initrd.sha256, &mut digest).class_while(Class::Internal, "the initrd's digest")?;
    let boot = this_boot().class_while(Class::Platform, "cannot tell this start of the host from others")?;
    Ok(format!("{}-{boot}", hex::encode(digest)))
}

fn make(kept: &Path, program: &Path, initrd: &Initrd) -> Result<(), Failure> {
    let there = if let Some(mut file) = unnamed::new(CWD, kept) {
        write(&mut file, kept, initrd)?;
        unnamed::link(&file, CWD, program).map_err(io::Error::from)
    } else {
        let mut file = NamedTempFile::new_in(kept).map_err(|error| not_kept(kept, &error))?;
        write(file.as_file_mut(), kept, initrd)?;
        file.persist_noclobber(program).map(drop).map_err(|error| error.error)
    };
    match there {
        // Somebody else's is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        there => there.map_err(|error| not_kept(kept, &error))?,
    }
    forget(kept, program);
    Ok(())
}

fn write(to: &mut File, kept: &Path, initrd: &Initrd) -> Result<(), Failure> {
    let mut noted = Noted { to, failed: None };
    let copied = copy_init(&initrd.file, &initrd.sha256, &mut noted);
    // What cannot be written says nothing about the initrd.
    match noted.failed {
        Some(error) => Err(not_kept(kept, &error)),
        None => copied.map_err(|error| of_boxs_platform(&error)),
    }
}

/// Remembers why it could not be written to.
struct Noted<'a> {
    to: &'a mut File,
    failed: Option<io::Error>,
}

impl Write for Noted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Those that were made first. Boxes that run keep theirs.
fn forget(kept: &Path, but: &Path) {
    let Ok(entries) = fs::read_dir(kept) else { return };
    // One that is being made has a hidden name, where it has one.
    let hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
    let others = entries.flatten().filter(|entry| !hidden(entry) && entry.path() != but);
    let mut others: Vec<(_, PathBuf)> =
        others.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    others.sort();
    for (_, path) in others.iter().rev().skip(MOST - 1) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
    fn init_is_kept_whole_for_its_owner() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let initrd = initrd_of(folder.path(), b"#!/bin/true\n");
        let program = kept.path().join(&initrd.sha256);
        // Somebody else may have made it just now.
        for _ in 0..2 {
            make(kept.path(), &program, &initrd).unwrap();
            assert_eq!(fs::read(&program).unwrap(), b"#!/bin/true\n");
            assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o077, 0);
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
            let failure = open(kept.path(), &Initrd { sha256: sha256.into(), ..initrd.clone() }).unwrap_err();
            assert_eq!(failure.class, Class::Internal, "{sha256}");
        }
        assert!(names(kept.path()).is_empty());
    }

    #[test]
    fn no_room_for_it_is_no_fault_of_the_initrd() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let initrd = initrd_of(folder.path(), b"init");
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let failure = write(&mut full, kept.path(), &initrd).unwrap_err();
        assert_eq!((failure.class, failure.hint.as_deref()), (Class::Platform, Some("make room there")));
        assert!(!failure.to_string().contains("initrd"), "{failure}");
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
