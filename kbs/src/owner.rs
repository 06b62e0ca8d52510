//! Whose the files of a state folder are: its owner's, whoever makes them.
//!
//! Root works on the folder of the user that serves it, and what root makes there (keys, a database, a checkpoint) would shut that user
//! out. So what a command of root made is given to the folder's owner, at its end, whatever came of it.
//! Never: gives away what was there before, what has another name elsewhere, or anything but a regular file.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// User and group.
pub(crate) type Owner = (u32, u32);

/// While this lives, what root makes in a folder is to be its owner's; given when it is dropped.
pub(crate) struct Kept {
    /// Nobody where whoever works here owns the folder, or is not root.
    owner: Option<Owner>,
    places: Vec<PathBuf>,
    before: BTreeSet<(u64, u64)>,
}

impl Kept {
    /// Of a state folder and its checkpoint.
    pub(crate) fn of(folder: &Path, checkpoint: &Path) -> Self {
        let places = vec![folder.to_owned(), checkpoint.to_owned()];
        let owner = another(folder);
        let before =
            if owner.is_some() { files(&places).filter_map(|path| identity(&path)).collect() } else { BTreeSet::new() };
        Self { owner, places, before }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(owner) = self.owner else { return };
        for path in files(&self.places).filter(|path| identity(path).is_some_and(|one| !self.before.contains(&one))) {
            say(&path, give(&path, owner));
        }
    }
}

/// Gives a folder that was just made, and all in it, to the owner of the one in whose place it comes.
pub(crate) fn like(place: &Path, made: &Path) {
    let Some(owner) = another(place) else { return };
    for path in files(&[made.to_owned()]) {
        say(&path, give(&path, owner));
    }
    say(made, File::open(made).and_then(|folder| fchown(&folder, Some(owner.0), Some(owner.1))));
}

/// The owner of a folder, where that is somebody else than root, who works here.
fn another(folder: &Path) -> Option<Owner> {
    let there = fs::metadata(folder).ok()?;
    (rustix::process::geteuid().is_root() && there.uid() != 0).then_some((there.uid(), there.gid()))
}

/// What lies in the folders of these, and those of these that are files.
fn files(places: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    places.iter().flat_map(|place| match fs::read_dir(place) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![place.clone()],
    })
}

/// What a name stands for, links not followed.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|there| (there.dev(), there.ino()))
}

fn give(path: &Path, (uid, gid): Owner) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::LOOP) =>
        {
            return Ok(());
        }
        file => file?,
    };
    let there = file.metadata()?;
    if there.is_file() && there.nlink() == 1 && there.uid() == 0 { fchown(&file, Some(uid), Some(gid)) } else { Ok(()) }
}

fn say(path: &Path, given: io::Result<()>) {
    if let Err(error) = given {
        tracing::error!(%error, file = %path.display(), hint = NOT_MINE, "a file was not given to the folder's owner");
    }
}

/// What to do about a file that whoever serves may not read.
pub(crate) const NOT_MINE: &str = "it belongs to another user than the one that works here: run this as root, or as the folder's owner; `chown --reference=DIR FILE` gives a file of the state folder to the folder's owner";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Listener, State, accept_rollback, init, make_next_key, mend, rotate_root, state::CHECKPOINT, store::Forget,
        switch_key,
    };

    /// Somebody who is not root; where tests do not run as root, whoever runs them: then nothing is given, and all is theirs.
    fn somebody() -> Owner {
        if rustix::process::geteuid().is_root() {
            (4242, 4343)
        } else {
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        }
    }

    fn owners(folder: &Path) -> BTreeSet<Owner> {
        files(&[folder.to_owned()])
            .chain([folder.to_owned()])
            .map(|path| fs::metadata(path).unwrap())
            .map(|there| (there.uid(), there.gid()))
            .collect()
    }

    #[tokio::test]
    async fn whatever_root_does_in_a_folder_leaves_it_its_owners() {
        let outer = tempfile::tempdir().unwrap();
        let (folder, owner) = (outer.path().join("state"), somebody());
        // Made in a folder that was prepared for its user.
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(owner.0), Some(owner.1)).unwrap();
        init(&folder, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        assert_eq!(owners(&folder), BTreeSet::from([owner]));
        rotate_root(&folder).await.unwrap();
        for listener in Listener::ALL {
            make_next_key(&folder, listener).unwrap();
            assert_eq!(owners(&folder), BTreeSet::from([owner]));
            switch_key(&folder, listener).unwrap();
        }
        mend::repair(&folder, Forget::default()).await.unwrap();
        assert_eq!(owners(&folder), BTreeSet::from([owner]));
        fs::remove_file(folder.join(CHECKPOINT)).unwrap();
        fs::remove_file(folder.join("lock")).unwrap();
        accept_rollback(&folder).await.unwrap();
        assert_eq!(owners(&folder), BTreeSet::from([owner]));
        let backup = outer.path().join("backup");
        crate::backup(&folder, &backup, None, crate::IfThere::Stays).await.unwrap();
        crate::restore(&backup, &folder, None, crate::CheckpointElsewhere::Stays).await.unwrap();
        assert_eq!(owners(&folder), BTreeSet::from([owner]));
        State::open(&folder).await.unwrap();
    }

    #[test]
    fn what_was_there_before_and_what_has_another_name_is_not_given_away() {
        let outer = tempfile::tempdir().unwrap();
        let (folder, elsewhere) = (outer.path().join("state"), outer.path().join("elsewhere"));
        fs::create_dir(&folder).unwrap();
        fs::write(&elsewhere, "root's").unwrap();
        fs::write(folder.join("before"), "root's").unwrap();
        let mine = fs::metadata(&elsewhere).unwrap().uid();
        std::os::unix::fs::chown(&folder, Some(somebody().0), Some(somebody().1)).unwrap();
        {
            let _kept = Kept::of(&folder, &folder.join("checkpoint"));
            fs::hard_link(&elsewhere, folder.join("link")).unwrap();
            std::os::unix::fs::symlink(&elsewhere, folder.join("symlink")).unwrap();
            fs::write(folder.join("made"), "").unwrap();
        }
        for kept in ["before", "link", "symlink"] {
            assert_eq!(fs::metadata(folder.join(kept)).unwrap().uid(), mine, "{kept}");
        }
        assert_eq!(fs::metadata(folder.join("made")).unwrap().uid(), somebody().0);
    }
}
