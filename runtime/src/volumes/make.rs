//! A file system for a volume: ext4, made by the host's `mke2fs` in a file with holes. Nobody here ever mounts or reads it again.
//!
//! Source: mke2fs(8).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use coffer_rim::file::sync_folder;
use coffer_rim::foreign::foreign_at_most;
use coffer_rim::{Class, Classify as _, Failure};

use crate::tools::Program;

/// Makes file systems.
pub const MKE2FS: Program = Program {
    name: "mke2fs",
    variable: "COFFER_MKE2FS",
    ours_to_build: false,
    remedy: "install e2fsprogs, which has it in /usr/sbin",
};

/// A file of so many bytes of which none is written, whole under its name or not at all.
pub(super) fn holes(path: &Path, bytes: u64) -> Result<(), Failure> {
    let what = || format!("cannot make a disk at {}", path.display());
    coffer_rim::file::Writer::private().write_with(path, |file| file.set_len(bytes)).class_while(Class::Config, what())
}

/// Makes one of `bytes` bytes, whole under its name or not at all. It takes a few MiB at first, and then what is written.
pub(super) fn file_system(program: &Path, path: &Path, bytes: u64) -> Result<(), Failure> {
    let what = || format!("cannot make a disk at {}", path.display());
    let unfinished = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
    file.and_then(|file| file.set_len(bytes)).class_while(Class::Config, what())?;
    let said = Command::new(program)
        .env_clear()
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"])
        // Nothing is written that is zero in a hole anyhow. Its root is root's, whoever makes it.
        .args(["-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard"])
        .arg(&unfinished)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .class_while(Class::Platform, format!("cannot run {}", program.display()))?;
    if !said.status.success() {
        let _ = std::fs::remove_file(&unfinished);
        let words = String::from_utf8_lossy(&said.stderr);
        let words = foreign_at_most(words.lines().last().unwrap_or_default(), 200);
        return Err(Failure::new(Class::Platform, format!("mke2fs made no file system ({}): {words}", said.status)));
    }
    let lasts = || {
        File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    };
    lasts().class_while(Class::Config, what())
}
