//! Where a checkpoint may lie: not where something else lies that the broker lives by, and that it would be written over.
//!
//! Never: takes one name of a file for another file.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::state::{CONFIG, DATABASE, LOCK, PROFILE, ROOT_KEY};

/// Why a checkpoint of a state folder may not lie there; nothing where it may. `named`: what the configuration names beside it.
pub(crate) fn objection<'a>(
    folder: &Path,
    checkpoint: &Path,
    named: impl IntoIterator<Item = &'a Path>,
) -> Option<String> {
    let Some(place) = resolved(checkpoint) else { return Some("names no file".to_owned()) };
    if let (Some(parent), Some(name)) = (place.parent(), place.file_name())
        && fs::canonicalize(folder).is_ok_and(|folder| folder == parent)
        && is_taken(&name.to_string_lossy())
    {
        return Some(format!("is {} of the state folder, and would be written over", name.display()));
    }
    let there = fs::metadata(&place).ok()?;
    if !there.is_file() {
        return Some("is no regular file".to_owned());
    }
    let same =
        |other: &Path| fs::metadata(other).is_ok_and(|other| (other.dev(), other.ino()) == (there.dev(), there.ino()));
    let inside = fs::read_dir(folder).into_iter().flatten().flatten();
    let inside = inside.filter(|entry| is_taken(&entry.file_name().to_string_lossy())).map(|entry| entry.path());
    let other = inside.chain(named.into_iter().map(|path| folder.join(path))).find(|other| same(other))?;
    Some(format!("is {} by another name, and would be written over", other.display()))
}

/// Names of a state folder that are somebody else's.
fn is_taken(name: &str) -> bool {
    [CONFIG, DATABASE, ROOT_KEY, PROFILE, "replaced-"].iter().any(|taken| name.starts_with(taken))
        || name == LOCK
        || name.contains(".pem")
}

/// Behind every link, also one that leads where nothing is.
fn resolved(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let name = path.file_name()?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned());
        path = parent.join(name);
        match fs::read_link(&path) {
            Ok(behind) => path = parent.join(behind),
            // No link, or nothing.
            Err(_) => return Some(path),
        }
    }
    None
}

/// As many as the system follows.
const LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_the_broker_lives_by_is_a_checkpoint_whatever_its_name() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        fs::create_dir(&folder).unwrap();
        for name in
            ["root.key", "kbs.db", "config.toml", "server.pem", "admin-server.pem", "admin.toml", "lock", "web.rego"]
        {
            fs::write(folder.join(name), name).unwrap();
        }
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
        link("root.key", "one");
        link("one", "two");
        link("root.key.next", "to-come");
        link("loop", "loop");
        fs::hard_link(folder.join("kbs.db"), outer.path().join("elsewhere")).unwrap();
        fs::hard_link(folder.join("web.rego"), outer.path().join("policy")).unwrap();
        std::os::unix::fs::symlink(&folder, outer.path().join("same")).unwrap();
        let asked = |name: &str| objection(&folder, &folder.join(name), [Path::new("web.rego")]);
        for name in [
            "root.key",
            "root.key.next",
            "root.key.unused-1",
            "server.pem.next",
            "kbs.db",
            "kbs.db-wal",
            "kbs.db-shm",
            "kbs.db-journal",
            "config.toml",
            "config.toml.from-backup",
            "server.pem",
            "admin-server.pem",
            "other.pem",
            "admin.toml",
            "lock",
            "replaced-1-kbs.db",
            "web.rego",
            "./root.key",
            "../state/root.key",
            "../same/root.key",
            "one",
            "two",
            "to-come",
            "loop",
            "../elsewhere",
            "../policy",
            ".",
            "..",
            "/dev/full",
            "/dev/null",
        ] {
            assert!(asked(name).is_some(), "{name}");
        }
        fs::write(folder.join("here"), "something").unwrap();
        link("/nowhere/else", "far");
        for name in ["checkpoint", "here", "../kbs.db", "../root.key", "/nowhere/kbs.db", "far", "../state/checkpoint"]
        {
            assert_eq!(asked(name), None, "{name}");
        }
    }
}
