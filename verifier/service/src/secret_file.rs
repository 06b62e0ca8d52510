//! Files with a secret: private, or not read.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use coffer_rim::file::Writer;
use coffer_rim::input;
use zeroize::Zeroizing;

use crate::challenge::KEY_LEN;

/// Bytes of a file that nobody else may read.
///
/// # Errors
/// In words: the file system's, or its permissions.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mode = fs::metadata(path).map_err(|error| error.to_string())?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("others may read it: its mode is {mode:03o}, expected 600 (make another, and chmod 600)"));
    }
    input::read(path, input::DOCUMENT).map(Zeroizing::new).map_err(|error| error.to_string())
}

/// A key of challenges: 64 hexadecimal digits.
///
/// # Errors
/// In words.
pub fn read_key(path: &Path) -> Result<[u8; KEY_LEN], String> {
    let text = read(path)?;
    let mut key = [0; KEY_LEN];
    match hex::decode_to_slice(text.trim_ascii_end(), &mut key) {
        Ok(()) if key != [0; KEY_LEN] => Ok(key),
        _ => Err("expected 64 hexadecimal digits, not all of them 0".to_owned()),
    }
}

/// Writes one where there is nothing yet.
///
/// # Errors
/// The file system's.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Writer::private().new_only().write(path, bytes)
}
