//! Whether the files at the database's path are still those that are open: SQLite goes on in files that were moved away, and what
//! it writes there is lost with the process.
//!
//! Trusts: device and inode number. Never: says so of a file that is changed in place; the ledger above notices that.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::super::rows::RowsError;

/// The files of one database as they were when it was opened.
pub struct Files([Opened; 3]);

struct Opened {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// The least that it has for as long as it is open, in bytes.
    least: u64,
}

impl Files {
    /// Those of a database that is open: all three are there.
    ///
    /// # Errors
    /// [`RowsError::Failed`] names one that is not.
    pub fn of(database: &Path) -> Result<Self, RowsError> {
        let beside = |end: &str| {
            let mut path = database.as_os_str().to_owned();
            path.push(end);
            PathBuf::from(path)
        };
        let opened = |path: PathBuf, shrinks: bool| match std::fs::metadata(&path) {
            Ok(found) => {
                let least = if shrinks { 0 } else { found.len() };
                Ok(Opened { device: found.dev(), inode: found.ino(), least, path })
            }
            Err(error) => Err(not_looked_at(&path, &error)),
        };
        // The index of the log is memory of this process: cut short, each look at it would end the process.
        Ok(Self([opened(database.to_owned(), true)?, opened(beside("-wal"), true)?, opened(beside("-shm"), false)?]))
    }

    /// Where the database is.
    pub fn database(&self) -> &Path {
        &self.0[0].path
    }

    /// What a database that is not open yet is known by.
    pub fn identity(database: &Path) -> Option<(u64, u64)> {
        std::fs::metadata(database).ok().map(|found| (found.dev(), found.ino()))
    }

    /// That the database is the one that was there before it was opened.
    ///
    /// # Errors
    /// [`RowsError::Beneath`].
    pub fn begin_with(&self, before: Option<(u64, u64)>) -> Result<(), RowsError> {
        let Opened { path, device, inode, .. } = &self.0[0];
        if before == Some((*device, *inode)) {
            return Ok(());
        }
        Err(RowsError::Beneath { path: path.clone(), how: "replaced" })
    }

    /// That they are there.
    ///
    /// # Errors
    /// [`RowsError::Beneath`] names the first that is another one, or cut short.
    pub fn are_there(&self) -> Result<(), RowsError> {
        for file in &self.0 {
            let how = match std::fs::metadata(&file.path) {
                Ok(found) if (found.dev(), found.ino()) != (file.device, file.inode) => "replaced",
                Ok(found) if found.len() < file.least => "cut short",
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => "taken away",
                Err(error) => return Err(not_looked_at(&file.path, &error)),
            };
            return Err(RowsError::Beneath { path: file.path.clone(), how });
        }
        Ok(())
    }
}

fn not_looked_at(path: &Path, error: &io::Error) -> RowsError {
    RowsError::Failed(format!("{}: {error}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::{SqliteRows, Upgrade},
        *,
    };
    use crate::store::{Intent, Kind, Opened, Row, Rows};

    async fn written(rows: &SqliteRows, key: u8) -> Result<(), RowsError> {
        let mut transaction = rows.begin(Intent::Write).await?;
        transaction.put(Kind::AuditLine, &[key], Row { body: vec![key], mac: vec![key] }).await?;
        transaction.commit().await
    }

    /// What was said is that something was done to a file, and which.
    fn said<T>(result: Result<T, RowsError>, name: &str, wanted: &str) {
        match result {
            Err(RowsError::Beneath { path, how }) => assert!(path.ends_with(name) && how == wanted, "{path:?} {how}"),
            Err(other) => panic!("{name} {wanted}: {other}"),
            Ok(_) => panic!("{name} {wanted}: went on"),
        }
    }

    #[tokio::test]
    async fn a_file_that_is_moved_replaced_or_cut_beneath_stops_everything_until_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        drop(SqliteRows::create(&path("kbs.db")).unwrap());
        let Ok(Opened::Current(rows)) = SqliteRows::open(&path("kbs.db"), Upgrade::Refused).await else { panic!() };
        written(&rows, 1).await.unwrap();
        for name in ["kbs.db", "kbs.db-wal", "kbs.db-shm"] {
            let mut begun = rows.begin(Intent::Write).await.unwrap();
            begun.put(Kind::AuditLine, &[9], Row { body: vec![9], mac: vec![9] }).await.unwrap();
            fs::rename(path(name), path("away")).unwrap();
            said(begun.commit().await, name, "taken away");
            said(rows.begin(Intent::Read).await.map(|_| ()), name, "taken away");
            fs::copy(path("away"), path(name)).unwrap();
            said(rows.begin_with(Intent::Read, Kind::Head, &[]).await.map(|_| ()), name, "replaced");
            said(written(&rows, 2).await, name, "replaced");
            fs::rename(path("away"), path(name)).unwrap();
            written(&rows, 3).await.unwrap();
        }
        let mut view = rows.begin(Intent::Read).await.unwrap();
        assert!(view.get(Kind::AuditLine, &[9]).await.unwrap().is_none(), "what was not committed is not there");
        drop(view);
        let index = fs::read(path("kbs.db-shm")).unwrap();
        fs::OpenOptions::new().write(true).truncate(true).open(path("kbs.db-shm")).unwrap();
        said(written(&rows, 4).await, "kbs.db-shm", "cut short");
        said(rows.begin(Intent::Read).await.map(|_| ()), "kbs.db-shm", "cut short");
        fs::write(path("kbs.db-shm"), index).unwrap();
        written(&rows, 5).await.unwrap();
    }
}
