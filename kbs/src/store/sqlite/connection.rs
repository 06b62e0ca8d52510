//! Opens the file so that what is committed in it lasts, and does its work apart from the event loop.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use super::super::{apart, rows::RowsError};

/// How long another process may hold a lock before it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(10);
const SYNCHRONOUS_FULL: i64 = 2;
/// Format 1 has no signers and no manifests, format 2 a table per kind, format 3 a head without an epoch.
pub const FORMAT_1: i64 = 1;
pub const FORMAT: i64 = 4;

pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RowsError> + Send + 'static,
) -> Result<T, RowsError> {
    if apart::is_here() {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| RowsError::Failed(Box::new(error)))?
}

/// SQLite waits for most locks by itself, but not where it changes or restores the log: there it says busy at once.
pub fn patiently<T>(mut open: impl FnMut() -> Result<T, RowsError>) -> Result<T, RowsError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(RowsError::Failed(error)) if is_busy(&*error) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

pub fn is_busy(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

pub fn connect(path: &Path) -> Result<Connection, RowsError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // Whatever somebody plants in the schema while this is open acts on nothing.
    for (setting, config, on) in [
        ("triggers", DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        ("views", DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        ("trusted schema", DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        ("defensive", DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
    ] {
        let found = connection.set_db_config(config, on)?;
        if found != on {
            let expected = if on { "on" } else { "off" };
            return Err(RowsError::Durability { setting, found: found.to_string(), expected });
        }
    }
    let found = format(&connection)?;
    // An empty file is one that is being made.
    if found != 0 && !(FORMAT_1..=FORMAT).contains(&found) {
        return Err(RowsError::Format { found, expected: FORMAT });
    }
    let journal: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if journal != "wal" {
        return Err(RowsError::Durability { setting: "journal_mode", found: journal, expected: "wal" });
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if synchronous != SYNCHRONOUS_FULL {
        let found = synchronous.to_string();
        return Err(RowsError::Durability { setting: "synchronous", found, expected: "2 (FULL)" });
    }
    connection.pragma_update(None, "secure_delete", "ON")?;
    // A look opens the log and its index: all files are there from now on.
    format(&connection)?;
    Ok(connection)
}

pub fn format(connection: &Connection) -> Result<i64, RowsError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}
