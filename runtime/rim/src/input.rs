//! Files and standard input that a person names: read whole, and never more of them than could be meant. A device that never
//! ends, or a disk image given by mistake, is refused after that much.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than any document has: specs, policies, manifests, keys, lists, certificates.
pub const DOCUMENT: u64 = 4 << 20;
/// More than any firmware image has.
pub const FIRMWARE: u64 = 64 << 20;

/// A whole file.
///
/// # Errors
/// The file system's, and [`io::ErrorKind::FileTooLarge`] for one that is longer than `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    all(File::open(path)?, most)
}

/// A whole file of text.
///
/// # Errors
/// As [`read`], and [`io::ErrorKind::InvalidData`] for what is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, most)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "is not UTF-8 text"))
}

/// All that a reader gives.
///
/// # Errors
/// As [`read`].
pub fn all(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is longer than {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_refused_after_as_much_as_could_be_meant() {
        let error = read(Path::new("/dev/zero"), 4096).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::FileTooLarge, "is longer than 4096 bytes")
        );
        assert_eq!(all(io::repeat(7).take(4096), 4096).unwrap(), [7; 4096]);
        assert_eq!(read_text(Path::new("/dev/zero"), 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\xff").unwrap();
        assert_eq!(read_text(file.path(), 9).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
