//! The ready file: there while a program serves, with where it listens.
//!
//! Never: takes the place of a file that is none, whatever name it was given; removes one that another process wrote.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Class, Classify as _, Failure, file::Writer, input};

/// More bytes than a ready file has.
const LONGEST: u64 = 4 << 10;

/// A ready file, until this is dropped.
#[derive(Debug)]
pub struct Announced(Option<PathBuf>);

/// Takes away what a process that is gone left there, before anybody waits for the new one.
///
/// # Errors
/// Class `config`: what lies there is no ready file, and stays.
pub fn clear_stale(file: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = file.filter(|path| is_file(path)) else { return Ok(()) };
    match read(path) {
        None => Err(none(path)),
        // Process ids come again: in a container the next one may be ours.
        Some(pid) if pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists() => {
            std::fs::remove_file(path).class_while(Class::Config, format!("ready file {}", path.display()))
        }
        Some(_) => Ok(()),
    }
}

fn none(path: &Path) -> Failure {
    Failure::new(Class::Config, format!("{} is there, and is no ready file", path.display()))
        .hint("name another file with --ready-file, or move that one away")
}

/// Writes a ready file, if one is named: `document`, with the process id in it. What a killed process left there goes; a pipe or a
/// terminal is written into. Gives the document as it was written.
///
/// # Errors
/// Class `config`: what lies there is no ready file, and stays; or it cannot be written.
pub fn announce(file: Option<&Path>, mut document: Value) -> Result<(Announced, String), Failure> {
    document["pid"] = std::process::id().into();
    let document = document.to_string();
    if let Some(path) = file {
        if is_file(path) && read(path).is_none() {
            return Err(none(path));
        }
        // A reader sees the whole file or none.
        let written = Writer::private().into_pipes().write(path, format!("{document}\n").as_bytes());
        written.class_while(Class::Config, format!("ready file {}", path.display()))?;
    }
    Ok((Announced(file.map(Path::to_owned)), document))
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(path) = self.0.as_deref().filter(|path| read(path) == Some(std::process::id())) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_file())
}

/// Which process wrote a ready file, if it is one.
fn read(path: &Path) -> Option<u32> {
    let bytes = is_file(path).then(|| input::read(path, LONGEST).ok()).flatten()?;
    let said: Value = serde_json::from_slice(&bytes).ok()?;
    said.get("listen")?;
    said.get("pid")?.as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_there_while_it_is_held_and_what_is_none_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready");
        let document = || json!({ "listen": "127.0.0.1:1" });
        let held = announce(Some(&path), document()).unwrap();
        assert_eq!(read(&path), Some(std::process::id()));
        drop(held);
        assert!(!path.exists());
        // Of a process that was killed, of one that lives, and one that another has written since.
        std::fs::write(&path, r#"{"listen":"127.0.0.1:2","pid":4294967295}"#).unwrap();
        clear_stale(Some(&path)).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, r#"{"listen":"127.0.0.1:2","pid":1}"#).unwrap();
        clear_stale(Some(&path)).unwrap();
        assert!(path.exists());
        let held = announce(Some(&path), document()).unwrap();
        assert_eq!(read(&path), Some(std::process::id()));
        std::fs::write(&path, r#"{"listen":"127.0.0.1:2","pid":1}"#).unwrap();
        drop(held);
        assert_eq!(read(&path), Some(1), "another's");
        for other in ["secret", "{}", r#"{"listen":"x"}"#, r#"{"pid":1}"#, ""] {
            std::fs::write(&path, other).unwrap();
            let refused = announce(Some(&path), document()).map(drop).unwrap_err();
            assert!(refused.to_string().contains("is no ready file"), "{refused}");
            assert!(clear_stale(Some(&path)).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
        }
    }
}
