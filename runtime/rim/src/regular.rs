//! Files that lie there whole. What a program reads by a name that nobody has just typed is no pipe, device or folder: those may never
//! begin, or never end.
//!
//! Never: waits for somebody to open the other end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use crate::input;

/// Opens one that is there, or that `options` make.
///
/// # Errors
/// The file system's, and one for what is no regular file.
pub fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("is no regular file")) }
}

/// A whole file.
///
/// # Errors
/// As [`open`], and [`io::ErrorKind::FileTooLarge`] for one that is longer than `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    input::all(open(OpenOptions::new().read(true), path)?, most)
}

/// A whole file of text.
///
/// # Errors
/// As [`read`], and [`io::ErrorKind::InvalidData`] for what is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, most)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_regular_file_is_read_and_nobody_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, file) = (folder.path().join("pipe"), folder.path().join("file"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&*pipe, folder.path(), Path::new("/dev/zero"), Path::new("/dev/full")] {
            assert_eq!(read(path, 9).unwrap_err().to_string(), "is no regular file", "{}", path.display());
        }
        std::fs::write(&file, "word").unwrap();
        assert_eq!(read_text(&file, 9).unwrap(), "word");
        assert_eq!(read(&file, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&folder.path().join("none"), 3).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
