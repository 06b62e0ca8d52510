//! The files of a trail: `<number of its first line>.jsonl`, twenty digits, so that their names have the order of their lines.

use std::io;
use std::path::{Path, PathBuf};

const DIGITS: usize = 20;

/// Where the part lies that begins with this line.
pub(super) fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:0DIGITS$}.jsonl"))
}

/// The first line's number of every part, oldest first; none where there is no folder.
pub(super) fn all(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".jsonl"))
            .filter(|name| name.len() == DIGITS && name.bytes().all(|byte| byte.is_ascii_digit()));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()).filter(|first| *first > 0));
    }
    found.sort_unstable();
    Ok(found)
}
