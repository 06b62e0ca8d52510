//! Takes from the files what the rows do not hold any more.
//!
//! The write-ahead log keeps each page as every commit left it, until it is overwritten: whoever keeps a beginning of the log, and
//! the key of then, has the database of then. `secure_delete` overwrites what is deleted in the pages that are in use, and some
//! bytes stay behind where rows were moved between pages: those go when all is written anew.
//! Source: SQLite, src/wal.c (3.54): a log that is wholly in the database, with no reader in it, is read by nobody, and begins
//! anew with the next write; one whose first 32 bytes are not a header holds nothing.
//! Never: overwrites a log while anything in it is not in the database, or anybody may write.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use rustix::fs::OFlags;
use tokio::sync::Mutex;

use super::{
    super::rows::{RowsError, Traces},
    connection::{PATIENCE as FOR_A_LOCK, is_busy},
    held::Held,
    ready, schema_is_ours,
};

/// How long readers may hold it up.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one attempt keeps writers waiting for them.
const BRIEF: Duration = Duration::from_millis(50);
/// Between two attempts others write.
const PAUSE: Duration = Duration::from_millis(100);
const HEADER: u64 = 32;
const CHUNK: usize = 64 * 1024;

/// Overwrites it, as soon as nobody reads what is to go.
pub async fn overwrite(writer: &Arc<Mutex<Connection>>, log: &Path, traces: Traces) -> Result<(), RowsError> {
    if traces == Traces::Everywhere {
        Held::writer(writer.clone().lock_owned().await).run(write_anew).await?;
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let mut held = Held::writer(writer.clone().lock_owned().await);
        let log = log.to_owned();
        let emptied = held.run(move |connection| {
            connection.busy_timeout(BRIEF)?;
            let emptied = empty(connection, &log);
            connection.busy_timeout(FOR_A_LOCK)?;
            emptied
        });
        if emptied.await? {
            return Ok(());
        }
        drop(held);
        if Instant::now() >= until {
            return Err(RowsError::Held);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn write_anew(connection: &Connection) -> Result<(), RowsError> {
    schema_is_ours(connection)?;
    connection.execute_batch("VACUUM")?;
    ready(connection)
}

/// False where somebody reads or writes meanwhile.
fn empty(connection: &Connection, log: &Path) -> Result<bool, RowsError> {
    let before = version(connection)?;
    if !checkpoint(connection, "RESTART")? {
        return Ok(false);
    }
    match connection.execute_batch("BEGIN IMMEDIATE").map_err(RowsError::from) {
        Err(RowsError::Failed(error)) if is_busy(&*error) => return Ok(false),
        begun => begun?,
    }
    // Nobody writes now, and if nobody has since the checkpoint, the log is wholly in the database.
    let alone = version(connection).map(|now| now == before);
    let zeroed = if matches!(alone, Ok(true)) { zero(log) } else { Ok(()) };
    connection.execute_batch("ROLLBACK")?;
    let emptied = alone? && checkpoint(connection, "TRUNCATE")?;
    zeroed.map_err(|error| RowsError::Failed(Box::new(error)))?;
    Ok(emptied)
}

/// Changes with what other connections commit.
fn version(connection: &Connection) -> Result<i64, RowsError> {
    Ok(connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
}

fn checkpoint(connection: &Connection, mode: &str) -> Result<bool, RowsError> {
    let busy: i64 = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0))?;
    Ok(busy == 0)
}

fn zero(log: &Path) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match OpenOptions::new().write(true).custom_flags(flags).open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("the log is no regular file"));
    }
    let length = metadata.len();
    // Its beginning first: cut off after that, the rest is no log. A log whose beginning stayed would be one.
    zeros(&file, 0, length.min(HEADER))?;
    zeros(&file, length.min(HEADER), length)
}

fn zeros(file: &File, mut at: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        file.write_all_at(&zeros[..length], at)?;
        at += length as u64;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::rows::{Intent, Kind, Row, Rows as _},
            SqliteRows,
        },
        *,
    };

    /// What stays in a log that was cut off in the middle of being overwritten is no log.
    #[test]
    fn a_log_loses_its_beginning_first() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, vec![7; 200_000]).unwrap();
        zero(&log).unwrap();
        assert_eq!(std::fs::read(&log).unwrap(), vec![0; 200_000]);
        zero(&folder.path().join("none")).unwrap();
        std::os::unix::fs::symlink(&log, folder.path().join("link")).unwrap();
        assert!(zero(&folder.path().join("link")).is_err());
    }

    async fn write(rows: &SqliteRows, number: u64) {
        let mut transaction = rows.begin(Intent::Write).await.unwrap();
        let row = Row { body: vec![number.to_be_bytes()[7]; 2000], mac: vec![0; 32] };
        transaction.put(Kind::AuditLine, &number.to_be_bytes(), row.clone()).await.unwrap();
        transaction.put(Kind::Head, &[], row).await.unwrap();
        transaction.commit().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_that_is_committed_is_lost_to_it_whoever_reads_and_writes_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kbs.db");
        let rows = Arc::new(SqliteRows::create(&path).unwrap());
        let until = Instant::now() + Duration::from_secs(3);
        let mut tasks = tokio::task::JoinSet::new();
        // Two that write: one as the broker does, one as another process would.
        for (writer, rows) in [
            (0_u64, rows.clone()),
            (1, Arc::new(SqliteRows::over(super::super::connect(&path).unwrap(), &path).unwrap())),
        ] {
            tasks.spawn(async move {
                let mut number = writer;
                while Instant::now() < until {
                    write(&rows, number).await;
                    number += 2;
                }
                number / 2
            });
        }
        for _ in 0..3 {
            let rows = rows.clone();
            tasks.spawn(async move {
                while Instant::now() < until {
                    let mut view = rows.begin(Intent::Read).await.unwrap();
                    let seen = view.from(Kind::AuditLine, &[], 100).await.unwrap();
                    assert!(seen.iter().all(|(key, row)| row.body == vec![key[7]; 2000]));
                    if !seen.is_empty() {
                        assert!(view.get(Kind::Head, &[]).await.unwrap().is_some());
                    }
                    drop(view);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                0
            });
        }
        let (mut emptied, mut held) = (0, 0);
        while Instant::now() < until {
            match rows.overwrite(if emptied % 4 == 3 { Traces::Everywhere } else { Traces::Log }).await {
                Ok(()) => emptied += 1,
                Err(RowsError::Held) => held += 1,
                Err(error) => panic!("{}", coffer_rim::chain(&error)),
            }
        }
        let written: u64 = tasks.join_all().await.into_iter().sum();
        rows.overwrite(Traces::Log).await.unwrap();
        assert_eq!(std::fs::metadata(folder.path().join("kbs.db-wal")).unwrap().len(), 0);
        let connection = Connection::open(&path).unwrap();
        let lines = connection.query_row("SELECT count(*) FROM rows WHERE kind = 'audit-line'", [], |row| row.get(0));
        assert_eq!(lines, Ok(written.cast_signed()));
        assert_eq!(connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)), Ok("ok".into()));
        assert!(emptied > 3, "emptied {emptied}, held {held}, written {written}");
    }
}
